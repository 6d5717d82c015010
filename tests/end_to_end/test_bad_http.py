"""Bad input over HTTP: refused with a problem document that names the field, and the next good request works at once."""

import gzip
import json
import time
import zlib
from typing import Any, NamedTuple

import pytest

KIBI = 1024
AT_ONCE_SECONDS = 2.0
GOOD_DAY = "2026-09-30"


class Bad(NamedTuple):
    """A body, and what it must be refused with. A ``None`` code leaves the code open."""

    name: str
    body: bytes
    status: int
    code: str
    attr: str | None
    encoding: str = "identity"


def report(**fields: Any) -> bytes:
    """A good daily report of the organization that the test fills in, with ``fields`` in the place of good ones."""
    good = {"organization_id": "ORGANIZATION", "date": GOOD_DAY, "event_count_in_period": 10}
    return json.dumps({name: value for name, value in {**good, **fields}.items() if value is not ...}).encode()


def with_raw_counter(literal: str) -> bytes:
    """A counter written as no JSON library would write it."""
    return report(event_count_in_period="LITERAL").replace(b'"LITERAL"', literal.encode())


COUNTER = "event_count_in_period"
BOMB = gzip.compress(b'{"organization_id":"ORGANIZATION","padding":"' + b"0" * (64 * KIBI * KIBI) + b'"}', 9)

BAD_REPORTS = [
    Bad("empty", b"", 400, "not_json", None),
    Bad("not JSON", b"event_count_in_period=10", 400, "not_json", None),
    Bad("half of a document", report()[:-5], 400, "not_json", None),
    Bad("not UTF-8", b'{"organization_id": "\xff\xfe"}', 400, "not_json", None),
    Bad("an array", b"[1, 2]", 400, "invalid_input", None),
    Bad("null", b"null", 400, "invalid_input", None),
    Bad("deep nesting", b"[" * 200_000, 400, "not_json", None),
    Bad(
        "deep nesting in a field",
        report(teams="DEEP").replace(b'"DEEP"', b"[" * 50_000 + b"]" * 50_000),
        400,
        "not_json",
        None,
    ),
    Bad("no organization", report(organization_id=...), 400, "required", "organization_id"),
    Bad("organization of a wrong type", report(organization_id=7), 400, "invalid_input", "organization_id"),
    Bad("no day", report(date=...), 400, "required", "date"),
    Bad("no such day", report(date="2026-02-30"), 400, "invalid_input", "date"),
    Bad("a day of a wrong type", report(date=20260930), 400, "invalid_input", "date"),
    Bad("a day of the future", report(date="2126-01-01"), 400, "invalid_input", "date"),
    Bad("period of a wrong type", report(period="September"), 400, "invalid_input", "period"),
    Bad(
        "period without end",
        report(period={"start_inclusive": f"{GOOD_DAY}T00:00:00+00:00"}),
        400,
        "required",
        "period__end_inclusive",
    ),
    Bad(
        "period of two days",
        report(period={"start_inclusive": f"{GOOD_DAY}T00:00:00+00:00", "end_inclusive": "2026-10-01T23:59:59+00:00"}),
        400,
        "invalid_input",
        "period__end_inclusive",
    ),
    Bad("counter as text", report(event_count_in_period="10"), 400, "invalid_input", COUNTER),
    Bad("counter null", report(event_count_in_period=None), 400, "invalid_input", COUNTER),
    Bad("counter true", report(event_count_in_period=True), 400, "invalid_input", COUNTER),
    Bad("counter an object", report(event_count_in_period={"count": 1}), 400, "invalid_input", COUNTER),
    Bad("counter negative", report(event_count_in_period=-1), 400, "invalid_input", COUNTER),
    Bad("counter of sixteen digits", report(event_count_in_period=10**15), 400, "invalid_input", COUNTER),
    Bad("counter 2^70", report(event_count_in_period=2**70), 400, "invalid_input", COUNTER),
    Bad("counter 1e400", with_raw_counter("1e400"), 400, "not_json", None),
    Bad("counter 1.5", with_raw_counter("1.5"), 400, "invalid_input", COUNTER),
    Bad("counter NaN", with_raw_counter("NaN"), 400, "not_json", None),
    Bad("counter Infinity", with_raw_counter("Infinity"), 400, "not_json", None),
    Bad("uncatalogued counter negative", report(new_thing_in_period=-5), 400, "invalid_input", "new_thing_in_period"),
    Bad("teams of a wrong type", report(teams=[1, 2]), 400, "invalid_input", "teams"),
    Bad("team of a wrong type", report(teams={"7": 3}), 400, "invalid_input", "teams__7"),
    Bad("team counter negative", report(teams={"7": {COUNTER: -1}}), 400, "invalid_input", f"teams__7__{COUNTER}"),
    Bad("unknown organization", report(organization_id="nobody"), 403, "permission_denied", "organization_id"),
    Bad("10 MiB", report(padding="0" * (10 * KIBI * KIBI)), 413, "body_too_large", None),
    Bad("gzip bomb", BOMB, 413, "body_too_large", None, "gzip"),
    Bad("gzip that is none", report(), 400, "invalid_encoding", None, "gzip"),
    Bad("gzip cut off", gzip.compress(report())[:-9], 400, "invalid_encoding", None, "gzip"),
    Bad("deflate called br", zlib.compress(report()), 415, "unsupported_encoding", None, "br"),
    Bad("two encodings", gzip.compress(report()), 415, "unsupported_encoding", None, "gzip, gzip"),
]


@pytest.fixture(scope="module")
def customer(billing, cloud):
    return billing.new_organization(cloud)


@pytest.mark.parametrize("bad", BAD_REPORTS, ids=[bad.name for bad in BAD_REPORTS])
def test_a_bad_daily_report_is_refused_and_the_next_good_one_is_counted(billing, customer, bad):
    name = customer.organization_id.encode()
    answer = billing.ask(
        "POST",
        "/api/usage",
        billing.token(customer),
        content=bad.body if bad.encoding != "identity" else bad.body.replace(b"ORGANIZATION", name),
        headers={"Content-Type": "application/json", "Content-Encoding": bad.encoding},
    )
    check_problem(answer, bad.status, bad.code, bad.attr)

    started = time.monotonic()
    good = billing.ask("POST", "/api/usage", billing.token(customer), content=report().replace(b"ORGANIZATION", name))
    assert good.status_code == 200
    assert time.monotonic() - started < AT_ONCE_SECONDS


def test_a_chunked_body_is_measured_as_it_comes(billing, customer):
    def chunks():
        for _ in range(160):
            yield b"0" * 64 * KIBI

    answer = billing.ask("POST", "/api/usage", billing.token(customer), content=chunks())
    check_problem(answer, 413, "body_too_large", None)


def test_a_report_about_a_foreign_organization_is_refused_like_one_about_nobody(billing, customer):
    other = billing.new_organization(billing.new_license())
    bodies = [report().replace(b"ORGANIZATION", each.encode()) for each in (other.organization_id, "nobody")]
    foreign, nobody = (billing.ask("POST", "/api/usage", billing.token(customer), content=body) for body in bodies)
    assert foreign.status_code == nobody.status_code == 403
    assert foreign.json() == nobody.json()
    assert billing.events_used(other) == (0, 0)


def test_nothing_of_a_refused_report_is_kept(billing, cloud):
    organization = billing.new_organization(cloud)
    name = organization.organization_id.encode()
    for bad in BAD_REPORTS:
        if len(bad.body) < KIBI and bad.encoding == "identity":
            billing.ask(
                "POST", "/api/usage", billing.token(organization), content=bad.body.replace(b"ORGANIZATION", name)
            )
    kept = billing.as_operator("GET", f"/v1/usage/{organization.organization_id}/reports")
    assert kept["results"] == []
    assert billing.events_used(organization) == (0, 0)


BAD_CALLS = [
    ("PATCH", "/api/billing", "{", "not_json", None),
    ("PATCH", "/api/billing", "[]", "invalid_input", None),
    ("PATCH", "/api/billing", '{"custom_limits_usd": 5}', "invalid_input", "custom_limits_usd"),
    ("PATCH", "/api/billing", '{"custom_limits_usd": {"product_analytics": -1}}', "invalid_input", "custom_limits_usd__product_analytics"),
    ("PATCH", "/api/billing", '{"custom_limits_usd": {"product_analytics": 1.5}}', "invalid_input", "custom_limits_usd__product_analytics"),
    ("PATCH", "/api/billing", '{"custom_limits_usd": {"product_analytics": "5"}}', "invalid_input", "custom_limits_usd__product_analytics"),
    ("PATCH", "/api/billing", '{"custom_limits_usd": {"product_analytics": 1e400}}', "invalid_input", "custom_limits_usd__product_analytics"),
    ("PATCH", "/api/billing", '{"custom_limits_usd": {"product_analytics": NaN}}', "invalid_input", "custom_limits_usd__product_analytics"),
    ("PATCH", "/api/billing", '{"custom_limits_usd": {"tea": 5}}', "unknown_product", "custom_limits_usd__tea"),
    ("PATCH", "/api/billing", '{"custom_limit_usd": {}}', "invalid_input", "custom_limit_usd"),
    ("PATCH", "/api/billing", '{"org_users": [{"email": "a@b.c", "distinct_id": "1"}]}', "required", "org_users__0__role"),
    ("PATCH", "/api/billing", '{"org_customer_email": "\\u0000@b.c"}', "invalid_input", "org_customer_email"),
    ("POST", "/v1/quota", "{", "not_json", None),
    ("POST", "/v1/quota", '{"checks": 7}', "invalid_input", "checks"),
    ("POST", "/v1/quota", '{"checks": [{"organization_id": 7, "usage_key": "events"}]}', "invalid_input", "checks__0__organization_id"),
    ("POST", "/v1/quota", '{"checks": [{"organization_id": "ORGANIZATION"}]}', "invalid_input", "checks__0"),
    ("POST", "/v1/quota", json.dumps({"checks": [{"organization_id": "o", "usage_key": "events"}] * 10_001}), "too_many_checks", "checks"),
    ("POST", "/v1/meter-events", "{", "not_json", None),
    ("POST", "/v1/meter-events", '{"specversion": "1.0", "id": "1", "source": "s", "type": "t"}', "required", "subject"),
    ("POST", "/v1/meter-events", "[" + ",".join(["{}"] * 1_001) + "]", "batch_too_large", None),
    ("GET", "/v1/meter-events", "", "required", "organization_id"),
    ("GET", "/v1/meter-events?organization_id=ORGANIZATION&after=x", "", "invalid_input", "after"),
    ("GET", "/v1/meter-events?organization_id=ORGANIZATION&from=noon", "", "invalid_input", "from"),
    ("POST", "/v1/sources/us/watermark", "{", "not_json", None),
    ("POST", "/v1/sources/us/watermark", "{}", "required", "complete_through"),
    ("POST", "/v1/sources/us/watermark", '{"complete_through": "2026-10-01T00:00:00"}', "invalid_input", "complete_through"),
    ("POST", "/v1/sources/a%20b/watermark", '{"complete_through": null}', "invalid_input", "source"),
    ("GET", "/v1/sources/%00", "", "invalid_input", None),
    ("GET", "/v1/closings", "", "required", "organization_id"),
    ("GET", "/v1/usage/ORGANIZATION?meter=events&by=planet", "", "invalid_input", "by"),
    ("GET", "/v1/usage/ORGANIZATION?meter=EVENTS!", "", "invalid_input", "meter"),
    ("GET", "/v1/usage/ORGANIZATION?period_start=yesterday", "", "invalid_input", "period_start"),
    ("GET", "/v1/usage/ORGANIZATION/reports?limit=0", "", "invalid_input", "limit"),
    ("GET", "/v1/usage/ORGANIZATION/reports?after_id=99999999999999999999", "", "invalid_input", "after_id"),
    ("GET", "/v1/usage/ORGANIZATION%00", "", "invalid_input", None),
    ("GET", "/v1/quota/ORGANIZATION/%00", "", "invalid_input", None),
    ("GET", "/v1/invoices?organization_id=%00", "", "invalid_input", "organization_id"),
    ("GET", "/v1/limits/ORGANIZATION/explain?meter=events%00", "", "invalid_input", "meter"),
    ("GET", "/v1/limits/ORGANIZATION/explain", "", "required", "meter"),
    ("GET", "/v1/limits/ORGANIZATION/explain?meter=events&at=2026-10-01T00:00:00", "", "invalid_input", "at"),
    ("GET", "/v1/limits/ORGANIZATION/history?meter=events&limit=-1", "", "invalid_input", "limit"),
    ("GET", "/v1/limits/ORGANIZATION/history?meter=events&from=yesterday", "", "invalid_input", "from"),
    ("POST", "/v1/limits/ORGANIZATION/what-if", "{", "not_json", None),
    ("POST", "/v1/limits/ORGANIZATION/what-if", "{}", "required", "meter"),
    ("POST", "/v1/limits/ORGANIZATION/what-if", '{"meter": "events", "usage_per_day": 1e400}', "invalid_input", "usage_per_day"),
    ("POST", "/v1/limits/ORGANIZATION/what-if", '{"meter": "events", "trust_score": 4}', "invalid_input", "trust_score"),
    ("GET", "/v1/invoices", "", "required", "organization_id"),
    ("GET", "/v1/invoices?organization_id=ORGANIZATION&limit=many", "", "invalid_input", "limit"),
    ("GET", "/api/products-v2?plan=gold", "", "invalid_choice", "plan"),
    ("PUT", "/v1/customers/ORGANIZATION/projects", '[{"team_id": "1"}]', "required", "0__api_token"),
    ("PUT", "/v1/customers/ORGANIZATION/projects", '[{"team_id": "1", "api_token": "a\\u0000b"}]', "invalid_input", "0__api_token"),
    ("POST", "/v1/licenses", '{"type": "scale"}', "required", "email"),
    ("POST", "/v1/licenses", '{"type": "scale", "email": "a@example.test", "organization_name": "A\\u0000"}', "invalid_input", "organization_name"),
    ("POST", "/v1/licenses", '{"type": "golden", "email": "a@example.test", "organization_name": "A"}', "invalid_input", "type"),
]  # fmt: skip


@pytest.mark.parametrize("call", BAD_CALLS, ids=lambda call: f"{call[0]} {call[1]} {call[2][:60]}")
def test_a_bad_call_is_refused_naming_the_field(billing, customer, call):
    method, path, body, code, attr = call
    name = customer.organization_id
    token = None if path.startswith("/v1/licenses") else billing.token(customer)
    answer = billing.ask(
        method,
        path.replace("ORGANIZATION", name),
        token,
        content=body.replace("ORGANIZATION", name),
        headers={"Content-Type": "application/json"},
    )
    check_problem(answer, 400, code, attr)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/v1/nothing", 404),
        ("/usage-ingest/nothing", 404),
        ("/api/usages", 501),
        ("/api/billing/nothing", 501),
        ("/licenses/usage", 501),
    ],
)
def test_an_unknown_path_is_a_problem_document_too(billing, path, status):
    answer = billing.ask("GET", path)
    assert answer.status_code == status
    assert set(answer.json()) == {"type", "code", "detail", "attr"}


def check_problem(answer, status, code, attr):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert set(document) == {"type", "code", "detail", "attr"}
    assert (document["code"], document["attr"]) == (code, attr), document
    assert document["detail"]
