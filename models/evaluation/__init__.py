"""What a model is worth: competitors, studies and the report that ``xas-agent evaluate`` writes."""
