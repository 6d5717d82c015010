"""`quill`: quotes, usage, limits, licenses, dead letters, topics."""
