"""Names of files in a session's folder that others read while it runs."""

DOCUMENTS = "documents.jsonl"
SESSION = "session.json"
"""Description of the session, written at its start."""
SUMMARY = "summary.json"
"""Counts and results, and the last judgements of the rules."""
