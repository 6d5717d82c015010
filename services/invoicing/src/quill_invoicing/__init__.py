"""Closes periods, rates them, writes invoices, collects through Stripe."""
