"""Load, decide, save: one use case, one transaction. Publishing follows the commit (see `store.publication`)."""
