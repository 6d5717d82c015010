"""A stateful Stripe on loopback for tests and the demo."""
