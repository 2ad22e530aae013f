"""Studies that answer the questions of the report."""
