"""Where licenses live: Postgres, or memory for tests and simulation; one behaviour suite holds both."""
