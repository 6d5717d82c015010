"""One file per Stripe resource: its shape, its rules and its routes."""
