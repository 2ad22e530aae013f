"""``python -m xas_agent``."""

from .cli import app

app()
