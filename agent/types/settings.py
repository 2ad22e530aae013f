"""The base of every model that a user's YAML is read into."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen group of settings; a key that it does not know is an error, not a silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
