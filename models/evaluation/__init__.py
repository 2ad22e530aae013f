"""Evaluation of a model: competitors, studies and the report that ``xas-agent evaluate`` writes."""
