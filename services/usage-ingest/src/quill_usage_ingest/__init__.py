"""Takes usage reports, merges them into cells, publishes period usage."""
