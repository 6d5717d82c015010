"""Usage without a database, a broker or a clock."""
