"""Mail servers: the real one, and one in memory."""
