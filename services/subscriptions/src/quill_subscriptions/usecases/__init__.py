"""Load, decide, save, announce: one use case, one transaction."""
