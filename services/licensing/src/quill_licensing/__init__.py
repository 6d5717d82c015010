"""Issues licenses and says which instance is calling."""
