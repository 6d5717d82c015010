"""What may be lost at any time without a number changing: everything in Redis, and the process of every service."""

import threading
import time
from datetime import timedelta

import pytest
from quill_stack.components import SERVICES

ORGANIZATIONS = 8
DAYS = 20
METERS = ("events", "recordings", "survey_responses")


def test_redis_wiped_and_rebuilt_answers_the_same(billing, region, clock, cloud, cache):
    # Over its free events, within them, over its free recordings, and one that never reported.
    used = [(1_500_000, 10), (10, 10), (10, 6_000), None]
    organizations = [billing.new_organization(cloud) for _ in used]
    for organization, counts in zip(organizations, used, strict=True):
        if counts is not None:
            counters = {"event_count_in_period": counts[0], "recording_count_in_period": counts[1]}
            region.send(billing.report(organization, clock.now(), 0, counters=counters, completeness="partial"))

    def answers():
        checks = [{"organization_id": o.organization_id, "usage_key": meter} for o in organizations for meter in METERS]
        return billing.as_operator("POST", "/v1/quota", json={"checks": checks})["answers"]

    def marks():
        keys = sorted(cache.keys("@posthog/*"))
        return {key: cache.zrange(key, 0, -1, withscores=True) for key in keys}

    limited = [True, False, False, False, False, False, False, True, False, False, False, False]
    billing.eventually(lambda: [not answer["allowed"] for answer in answers()] == limited)
    billing.eventually(lambda: all(cache.zscore(f"@posthog/quota-limits/{meter}", organizations[n].project_token)
                                   for meter, n in (("events", 0), ("recordings", 2))))  # fmt: skip

    def is_steady():
        """Revisions are compared too: nothing may still be on its way to the log, the board or the mirror."""
        first = answers()
        time.sleep(1)
        return first == answers() and all(lag(billing, service) == 0 for service in ("usage-ingest", "quota-limiter"))

    billing.eventually(is_steady)
    before, marked = answers(), marks()

    cache.flushdb()
    assert marks() == {}
    # Even with nothing in Redis the answers are right: they come from the store behind it.
    assert answers() == before
    rebuilt = billing.as_operator("POST", "/v1/limits/rebuild")
    assert rebuilt["is_complete"] is True
    assert rebuilt["organizations"] >= len(organizations)
    assert answers() == before
    assert marks() == marked


@pytest.mark.timeout(480)
def test_every_service_is_killed_while_reports_flow_and_every_total_is_exact(billing, system, region, clock, cloud):
    organizations = [billing.new_organization(cloud) for _ in range(ORGANIZATIONS)]
    instance = billing.new_organization(billing.new_license("scale"))
    restarts = {name: system.restarts(name) for name in SERVICES}
    clock.reach(clock.now() + timedelta(days=DAYS))
    today = clock.now()
    truth = dict.fromkeys((*organizations, instance), 0)
    all_sent = threading.Event()

    def kill_each_once():
        for name in SERVICES:
            time.sleep(0.7)
            system.kill(name)
        all_sent.wait(60)

    killer = threading.Thread(target=kill_each_once)
    killer.start()
    try:
        for day in range(DAYS):
            on = today - timedelta(days=DAYS - day)
            for number, organization in enumerate(organizations):
                count = 1_000 * (day + 1) + number
                truth[organization] += count
                complete = billing.report(organization, on, count)
                noon = billing.report(organization, on, count * 2 // 5, completeness="partial", as_of=on)
                region.send(noon, complete, noon, *([complete] if day % 3 == 0 else []))
            truth[instance] += 7 * day + 1
            daily = {
                "organization_id": instance.organization_id,
                "date": on.date().isoformat(),
                "event_count_in_period": 7 * day + 1,
            }
            billing.as_license(instance, "POST", "/api/usage", json=daily)
            time.sleep(0.1)
    finally:
        all_sent.set()
        killer.join(90)
    for name in SERVICES:
        billing.eventually(lambda name=name: system.restarts(name) > restarts[name])
        system.wait_ready(name)

    def totals():
        return {organization: total(billing, organization) for organization in truth}

    billing.eventually(lambda: totals() == {organization: (count, 0) for organization, count in truth.items()})
    # Still so when everything that was repeated has passed, and limits are decided by the same numbers.
    for service in ("usage-ingest", "quota-limiter", "subscriptions", "invoicing"):
        billing.eventually(lambda service=service: lag(billing, service) == 0)
    assert totals() == {organization: (count, 0) for organization, count in truth.items()}
    assert all(billing.dead_letters(organization.organization_id) == [] for organization in truth)
    for organization, count in truth.items():
        assert billing.quota(organization)["usage"] == count


def total(billing, organization):
    """Complete and partial events, over every period that was reported."""
    periods = billing.as_operator("GET", f"/v1/usage/{organization.organization_id}")["periods"]
    meters = [period["meters"]["events"] for period in periods]
    return sum(meter["complete"] for meter in meters), sum(meter["partial"] for meter in meters)


def lag(billing, service):
    report = billing.as_operator("GET", f"/{service}/health/ready", expect=None)
    return sum(report["consumer_lag_records"].values())
