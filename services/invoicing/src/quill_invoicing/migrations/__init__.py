"""This service's tables, step by step; the runtime's own come from its history."""
