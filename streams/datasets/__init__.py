"""Real logs that can be replayed as live traffic."""
