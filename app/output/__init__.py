"""The output of a session: tables, pictures, a live view."""
