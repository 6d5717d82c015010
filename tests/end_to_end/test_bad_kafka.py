"""Bad input over Kafka, among good reports on the same partition: parked with its reason, and nothing waits for it (L4)."""

import json
import uuid
from datetime import timedelta
from typing import Any, NamedTuple

PARTITION = 2
PROMPTLY_SECONDS = 5.0


class Bad(NamedTuple):
    """A record's value, and the reason it must be parked with."""

    name: str
    value: bytes | None
    reason: str
    attribute: str | None


def altered(report, **fields: Any) -> bytes:
    """A report with some of its fields replaced, or left out where they are ``...``."""
    document = {**json.loads(report.to_bytes()), **fields}
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


def bad_records(report) -> list[Bad]:
    start = report.window_start
    with_literal = altered(report, counters={"event_count_in_period": "LITERAL"})
    return [
        Bad("no value", None, "empty_value", None),
        Bad("empty", b"", "not_json", None),
        Bad("not JSON", b"\x00\x01 events=7", "not_json", None),
        Bad("not UTF-8", b'{"report_id": "\xff"}', "not_json", None),
        Bad("deep nesting", b"[" * 200_000, "not_json", None),
        Bad("an array", b"[]", "invalid_message", None),
        Bad("no organization", altered(report, organization_id=...), "invalid_message", "organization_id"),
        Bad("organization of a wrong type", altered(report, organization_id=7), "invalid_message", "organization_id"),
        Bad("instant of a wrong type", altered(report, as_of="noon"), "invalid_message", "as_of"),
        Bad("instant without offset", altered(report, as_of="2026-10-01T12:00:00"), "invalid_message", "as_of"),
        Bad("unknown completeness", altered(report, completeness="nearly"), "invalid_message", "completeness"),
        Bad("counters of a wrong type", altered(report, counters=[1]), "invalid_message", "counters"),
        Bad("counter negative", altered(report, counters={"a": -1}), "invalid_message", "counters__a"),
        Bad("counter 2^70", altered(report, counters={"a": 2**70}), "invalid_message", "counters__a"),
        Bad("counter as text", altered(report, counters={"a": "1"}), "invalid_message", "counters__a"),
        Bad("counter NaN", with_literal.replace(b'"LITERAL"', b"NaN"), "invalid_message", "counters__event_count_in_period"),
        Bad("counter 1e400", with_literal.replace(b'"LITERAL"', b"1e400"), "invalid_message", "counters__event_count_in_period"),
        Bad("window of 25 hours", altered(report, window_end=(start + timedelta(hours=25)).isoformat()), "invalid_message", None),
        Bad("window backwards", altered(report, window_end=(start - timedelta(hours=1)).isoformat()), "invalid_message", None),
        Bad("NUL in a name", altered(report, report_id="a\u0000b"), "invalid_message", "report_id"),
        Bad("as-of of a far future", altered(report, as_of="2126-01-01T00:00:00Z"), "as_of_in_the_future", "as_of"),
    ]  # fmt: skip


def test_every_bad_record_is_parked_with_its_reason_and_no_good_one_waits(billing, region, clock, cloud):
    good, broken = billing.new_organization(cloud), billing.new_organization(cloud)
    bad = bad_records(billing.report(broken, clock.now(), 1))
    known = {letter["id"] for letter in billing.dead_letters()}
    first_day = clock.now() - timedelta(days=len(bad) + 1)
    expected = 0
    marker = uuid.uuid4().hex
    for number, record in enumerate(bad):
        day = first_day + timedelta(days=number)
        count = number * 1_000 + 1
        expected += count
        region.queue(record.value, key=f"{marker}:{record.name}".encode(), partition=PARTITION)
        region.queue(
            billing.report(good, day, count).to_bytes(),
            key=good.organization_id.encode(),
            headers=[("traceparent", b"\xff\xfe not UTF-8"), ("x", b"\x00")],
            partition=PARTITION,
        )
    region.flush()
    waited = billing.eventually(lambda: events_of_all_periods(billing, good) == expected)
    assert waited < PROMPTLY_SECONDS

    parked = sorted(
        (each for each in billing.dead_letters() if each["id"] not in known), key=lambda letter: letter["offset"]
    )
    assert [(letter["reason_code"], letter["attribute"]) for letter in parked] == [
        (record.reason, record.attribute) for record in bad
    ]
    assert {letter["partition"] for letter in parked} == {PARTITION}
    assert all(letter["detail"] for letter in parked)
    shown = billing.as_operator("GET", f"/usage-ingest/v1/dead-letters/{parked[2]['id']}")
    assert shown["value_base64"] == "AAEgZXZlbnRzPTc="
    assert billing.events_used(broken) == (0, 0)


def test_reports_of_an_unknown_organization_wait_and_are_counted_by_themselves_once_it_is_known(
    billing, region, clock, cloud
):
    late, other = billing.new_organization(cloud, known=False), billing.new_organization(cloud)
    region.send(
        billing.report(late, clock.now(), 700),
        billing.report(other, clock.now(), 5),
        billing.report(late, clock.now() - timedelta(days=1), 77),
        billing.report(other, clock.now() - timedelta(days=1), 6),
        partition=PARTITION,
    )
    billing.eventually(lambda: events_of_all_periods(billing, other) == 11, seconds=PROMPTLY_SECONDS)
    parked = billing.dead_letters(late.organization_id)
    assert [(letter["reason_code"], letter["attribute"]) for letter in parked] == [
        ("unknown_organization", "organization_id")
    ] * 2
    billing.make_known(late)
    billing.eventually(lambda: events_of_all_periods(billing, late) == 777, seconds=PROMPTLY_SECONDS)
    assert [letter["replays"] for letter in billing.dead_letters(late.organization_id)] == [1, 1]


def test_a_parked_report_is_replayed_by_an_operator_once_its_reason_is_gone(billing, region, clock, organization):
    # A source whose clock is ten days ahead; by then its report is in order.
    ahead = clock.now() + timedelta(days=10)
    region.send(billing.report(organization, clock.now(), 321, as_of=ahead))
    billing.eventually(lambda: billing.dead_letters(organization.organization_id))
    (letter,) = billing.dead_letters(organization.organization_id)
    assert (letter["reason_code"], letter["attribute"]) == ("as_of_in_the_future", "as_of")
    replay = f"/usage-ingest/v1/dead-letters/{letter['id']}/replay"
    assert billing.ask("POST", replay, billing.token(organization)).status_code == 401
    clock.reach(ahead)
    assert billing.as_operator("POST", replay)["replays"] == 1
    billing.eventually(lambda: events_of_all_periods(billing, organization) == 321)
    # Twice does no harm (L1).
    assert billing.as_operator("POST", replay)["replays"] == 2
    region.send(billing.report(organization, clock.now() - timedelta(days=30), 4))
    billing.eventually(lambda: events_of_all_periods(billing, organization) == 325)


def events_of_all_periods(billing, organization):
    """Complete and partial events, over every period that was reported."""
    periods = billing.as_operator("GET", f"/v1/usage/{organization.organization_id}")["periods"]
    meters = [period["meters"]["events"] for period in periods if "events" in period["meters"]]
    return sum(meter["complete"] + meter["partial"] for meter in meters)
