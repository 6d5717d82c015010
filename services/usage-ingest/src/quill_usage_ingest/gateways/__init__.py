"""Queues, through a well-kept client."""
