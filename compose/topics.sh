#!/usr/bin/env bash
# Creates every topic that does not exist yet. A test holds this list and the registry in libs/contracts together.
set -euo pipefail

create() {
    local name=$1 partitions=$2
    shift 2
    local settings=()
    for setting in "$@"; do settings+=(--config "$setting"); done
    /opt/kafka/bin/kafka-topics.sh --bootstrap-server "$BOOTSTRAP_SERVER" --create --if-not-exists \
        --topic "$name" --partitions "$partitions" --replication-factor 1 "${settings[@]}"
}

create usage.reports.v1 4 cleanup.policy=delete retention.ms=2592000000
create usage.daily-reports.v1 4 cleanup.policy=delete retention.ms=2592000000 max.message.bytes=4194304
create usage.report-runs.v1 1 cleanup.policy=delete retention.ms=2592000000
create usage.meter-events.v1 4 cleanup.policy=delete retention.ms=2592000000
create usage.late-usage.v1 4 cleanup.policy=delete retention.ms=2592000000
create usage.watermarks.v1 1 cleanup.policy=delete retention.ms=2592000000
create usage.sources.v1 1 cleanup.policy=compact min.compaction.lag.ms=604800000
create usage.period-usage.v1 4 cleanup.policy=compact min.compaction.lag.ms=604800000
create usage.team-usage.v1 4 cleanup.policy=compact min.compaction.lag.ms=604800000
create limits.states.v1 4 cleanup.policy=compact min.compaction.lag.ms=604800000
create limits.transitions.v1 4 cleanup.policy=delete retention.ms=2592000000
create limits.thresholds.v1 4 cleanup.policy=delete retention.ms=2592000000
create subscriptions.catalog.v1 1 cleanup.policy=compact min.compaction.lag.ms=604800000
create subscriptions.customers.v1 4 cleanup.policy=compact min.compaction.lag.ms=604800000
create invoicing.invoices.v1 4 cleanup.policy=delete retention.ms=2592000000
create invoicing.credits.v1 4 cleanup.policy=compact min.compaction.lag.ms=604800000
create licensing.licenses.v1 1 cleanup.policy=compact min.compaction.lag.ms=604800000
create usage.reports.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create usage.daily-reports.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create usage.report-runs.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create usage.meter-events.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create usage.late-usage.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create usage.watermarks.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create usage.sources.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create usage.period-usage.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create usage.team-usage.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create limits.states.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create limits.transitions.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create limits.thresholds.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create subscriptions.catalog.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create subscriptions.customers.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create invoicing.invoices.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create invoicing.credits.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
create licensing.licenses.v1.dead 1 cleanup.policy=delete retention.ms=2592000000
