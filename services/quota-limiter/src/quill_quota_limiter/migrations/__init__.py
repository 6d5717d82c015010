"""The quota limiter's migration history."""
