"""What a command does besides the agent."""
