"""Messages and HTTP bodies to domain values and back."""
