"""The work of commands other than running the agent."""
