"""What every service runs on: Kafka, Postgres, outbox, events, auth, telemetry."""
