"""Simulated regions and self-hosted instances, and what the truth is."""
