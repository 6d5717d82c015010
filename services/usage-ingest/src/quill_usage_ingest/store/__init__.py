"""Where usage is kept: Postgres, and a memory store with the same behaviour."""
