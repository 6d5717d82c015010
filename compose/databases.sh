#!/bin/sh
# Runs once, when the Postgres volume is empty: every service owns a database of its own.
set -eu
for database in quill_usage_ingest quill_quota_limiter quill_subscriptions quill_invoicing quill_licensing; do
    createdb --username "$POSTGRES_USER" "$database"
done
