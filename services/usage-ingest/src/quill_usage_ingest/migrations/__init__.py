"""Schema history of the usage database."""
