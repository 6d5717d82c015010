"""A month of usage through the whole system, checked against the truth."""
