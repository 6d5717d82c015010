"""Where decisions are kept (Postgres, memory) and where answers are read from (Redis, memory)."""
