"""Pure limit rules: values in, decisions out. No clock, no store, no wire."""
