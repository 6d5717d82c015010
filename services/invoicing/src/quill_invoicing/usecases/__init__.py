"""Load, decide, save, emit: one use case, one transaction."""
