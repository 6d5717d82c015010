"""The local stack: real Kafka, Postgres and Valkey without Docker."""
