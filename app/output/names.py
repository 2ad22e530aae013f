"""Names of files of a session's folder that others read while it runs."""

DOCUMENTS = "documents.jsonl"
SESSION = "session.json"
"""What a session is, written at its start."""
SUMMARY = "summary.json"
"""Counts and results, and what the rules judged last."""
