"""Catalog, customers, subscriptions, billing limits; GET/PATCH /api/billing."""
