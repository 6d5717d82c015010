"""History of this service's tables."""
