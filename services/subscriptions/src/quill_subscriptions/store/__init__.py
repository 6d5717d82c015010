"""Where customers, the catalog and the copy of usage are kept: Postgres, or memory for fast tests."""
