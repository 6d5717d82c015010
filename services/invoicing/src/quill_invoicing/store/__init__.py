"""Where the facts are kept: Postgres, and memory with the same behaviour."""
