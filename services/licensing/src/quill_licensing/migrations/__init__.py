"""The history of licensing's tables."""
