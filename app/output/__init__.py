"""What a session leaves: tables, pictures, a live view."""
