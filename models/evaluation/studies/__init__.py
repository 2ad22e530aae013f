"""Studies: the questions that the report answers."""
