"""No license reads or changes an organization that its token does not name, on any route of any service (L18)."""

import uuid
from typing import NamedTuple

import pytest
from quill_stack.components import SERVICES

REFUSALS = frozenset({401, 403, 404})


class Route(NamedTuple):
    """A route with a place for an organization: ``{organization_id}`` in its address or body."""

    service: str
    method: str
    path: str
    own: int
    """What a license gets for its own organization: 200 where the route is for customers, a refusal where it is not."""
    query: str = ""
    body: object = None


SUBSCRIPTION = {"products": ["surveys"]}
REPORT = {"organization_id": "{organization_id}", "date": "2026-09-30", "event_count_in_period": 1}
CHECKS = {"checks": [{"organization_id": "{organization_id}", "usage_key": "events"}]}
DROPPED = {
    "id": "tenant-1",
    "organization_id": "{organization_id}",
    "usage_key": "events",
    "source": "us",
    "window_start": "2026-09-30T00:00:00Z",
    "window_end": "2026-09-30T01:00:00Z",
    "allowed": 1,
    "dropped": 0,
}
PACKED_CHECKS = {"usage_key": "events", "organization_ids": ["{organization_id}"]}
FURTHER_LICENSE = {"license_id": "another", "reason": "another region"}
REVERSION = {"actor": "ada", "reason": "another region"}
THRESHOLDS = {**REVERSION, "percents": [90]}
SPEND_THRESHOLDS = {**REVERSION, "meter": "events", "amounts_minor": [5_000]}
SCOPES = {**REVERSION, "revision": 0, "scopes": []}
CORRECTION = {**REVERSION, "correction_id": "c1", "kind": "void", "report_ids": [1]}
BACKFILL = {"source": "us", "reports": [{"organization_id": "{organization_id}", "usage_report": REPORT}]}
EVENT = {
    "specversion": "1.0",
    "id": "tenant",
    "source": "tenants",
    "type": "tenants.call",
    "subject": "{organization_id}",
    "time": "2026-09-30T00:00:00Z",
}
PROJECT = [{"team_id": "1", "api_token": "phc_tenant"}]

NAMING_AN_ORGANIZATION = [
    Route("usage-ingest", "POST", "/api/usage", 200, body=REPORT),
    Route("usage-ingest", "GET", "/v1/usage/{organization_id}", 200),
    Route("usage-ingest", "GET", "/v1/usage/{organization_id}/reports", 200),
    Route("usage-ingest", "POST", "/v1/usage/{organization_id}/recompute", 401),
    Route("usage-ingest", "GET", "/v1/usage/{organization_id}/explain", 200, query="meter=events"),
    Route("usage-ingest", "GET", "/v1/usage/{organization_id}/as-of", 200, query="at=2026-09-30T00:00:00Z"),
    Route("usage-ingest", "GET", "/v1/usage/{organization_id}/reports/{report_id}", 404),
    Route("usage-ingest", "GET", "/v1/report-runs", 401),
    Route("usage-ingest", "GET", "/v1/usage/{organization_id}/corrections", 401),
    Route("usage-ingest", "POST", "/v1/usage/{organization_id}/corrections", 401, body=CORRECTION),
    Route(
        "usage-ingest", "POST", "/v1/usage/{organization_id}/corrections/{correction_id}/revert", 401, body=REVERSION
    ),
    Route("usage-ingest", "POST", "/v1/usage/reports", 401, body=BACKFILL),
    Route("usage-ingest", "POST", "/v1/meter-events", 200, body=EVENT),
    Route("usage-ingest", "GET", "/v1/meter-events", 200, query="organization_id={organization_id}"),
    Route("quota-limiter", "GET", "/v1/quota/{organization_id}/{usage_key}", 200),
    Route("quota-limiter", "GET", "/v1/quota/{organization_id}", 200),
    Route("quota-limiter", "POST", "/v1/quota", 200, body=CHECKS),
    Route("quota-limiter", "POST", "/v1/quota/packed", 200, body=PACKED_CHECKS),
    Route("quota-limiter", "POST", "/v1/limits/dropped", 200, body=DROPPED),
    Route("quota-limiter", "GET", "/v1/limits/{organization_id}", 200),
    Route("quota-limiter", "GET", "/v1/limits/{organization_id}/explain", 200, query="meter=events"),
    Route("quota-limiter", "GET", "/v1/limits/{organization_id}/history", 200, query="meter=events"),
    Route("quota-limiter", "POST", "/v1/limits/{organization_id}/what-if", 200, body={"meter": "events"}),
    Route("quota-limiter", "GET", "/v1/limits/{organization_id}/thresholds", 200),
    Route("quota-limiter", "PUT", "/v1/limits/{organization_id}/thresholds", 401, body=THRESHOLDS),
    Route("quota-limiter", "PUT", "/v1/limits/{organization_id}/thresholds/spend", 401, body=SPEND_THRESHOLDS),
    Route("quota-limiter", "GET", "/v1/limits/{organization_id}/scopes", 200),
    Route("quota-limiter", "PUT", "/v1/limits/{organization_id}/scopes", 401, body=SCOPES),
    Route("subscriptions", "GET", "/v1/customers/{organization_id}", 401),
    Route("subscriptions", "PATCH", "/v1/customers/{organization_id}", 401, body={"never_drop_data": True}),
    Route("subscriptions", "POST", "/v1/customers/{organization_id}/subscription", 401, body=SUBSCRIPTION),
    Route("subscriptions", "DELETE", "/v1/customers/{organization_id}/subscription", 401),
    Route(
        "subscriptions",
        "POST",
        "/v1/customers/{organization_id}/subscription/quantities",
        401,
        body={"quantities": {"seats": 3}},
    ),
    Route("subscriptions", "GET", "/v1/customers/{organization_id}/history", 401),
    Route("subscriptions", "POST", "/v1/customers/{organization_id}/licenses", 401, body=FURTHER_LICENSE),
    Route(
        "subscriptions",
        "POST",
        "/v1/customers/{organization_id}/licenses/{license_id}/detach",
        401,
        body={"reason": "moved out"},
    ),
    Route("subscriptions", "PUT", "/v1/customers/{organization_id}/projects", 200, body=PROJECT),
    Route("invoicing", "GET", "/v1/invoices", 200, query="organization_id={organization_id}"),
]
NAMING_ITS_ORGANIZATION_IN_THE_TOKEN = {
    ("subscriptions", "GET", "/api/billing"),
    ("subscriptions", "PATCH", "/api/billing"),
    ("subscriptions", "GET", "/api/billing/available_product_features"),
    ("usage-ingest", "GET", "/api/v2/usage"),
    ("quota-limiter", "GET", "/v1/limits/stream"),
    ("usage-ingest", "POST", "/api/v2/usage"),
}
NAMING_A_THING_OF_AN_ORGANIZATION = {("invoicing", "GET", "/v1/invoices/{invoice_id}")}
FOR_OPERATORS = {
    ("quota-limiter", "POST", "/v1/limits/rebuild"),
    ("quota-limiter", "GET", "/v1/limits/drift"),
    ("quota-limiter", "POST", "/v1/limits/drift"),
    ("quota-limiter", "GET", "/v1/limits/rules"),
    ("quota-limiter", "POST", "/v1/limits/rules"),
    ("quota-limiter", "GET", "/v1/limits/rules/events"),
    ("quota-limiter", "GET", "/v1/limits/rules/{version}"),
    ("quota-limiter", "GET", "/v1/limits/rules/{version}/shadow"),
    ("quota-limiter", "POST", "/v1/limits/rules/{version}/shadow"),
    ("quota-limiter", "POST", "/v1/limits/rules/{version}/discard"),
    ("quota-limiter", "POST", "/v1/limits/rules/{version}/activate"),
    ("quota-limiter", "GET", "/v1/limits/webhooks"),
    ("quota-limiter", "POST", "/v1/limits/webhooks"),
    ("quota-limiter", "GET", "/v1/limits/webhooks/deliveries"),
    ("quota-limiter", "POST", "/v1/limits/webhooks/deliveries/{delivery_id}/replay"),
    ("quota-limiter", "GET", "/v1/limits/webhooks/{endpoint_id}"),
    ("quota-limiter", "PATCH", "/v1/limits/webhooks/{endpoint_id}"),
    ("quota-limiter", "DELETE", "/v1/limits/webhooks/{endpoint_id}"),
    ("quota-limiter", "POST", "/v1/limits/webhooks/{endpoint_id}/rotate"),
    ("quota-limiter", "POST", "/v1/limits/webhooks/{endpoint_id}/replay"),
    ("subscriptions", "GET", "/v1/customers"),
    ("subscriptions", "GET", "/v1/billing-updates"),
    ("subscriptions", "GET", "/v1/catalog"),
    ("subscriptions", "GET", "/v1/catalog/{product_key}"),
    ("usage-ingest", "GET", "/v1/generations/comparison"),
    ("usage-ingest", "POST", "/v1/generations/comparison/accept"),
    ("usage-ingest", "GET", "/v1/sources"),
    ("usage-ingest", "PUT", "/v1/sources/{source}"),
    ("usage-ingest", "POST", "/v1/sources/{source}/waivers"),
    ("usage-ingest", "POST", "/v1/sources/{source}/waivers/{waiver_id}/take-back"),
    ("invoicing", "GET", "/v1/closings"),
    ("invoicing", "GET", "/v1/closings/held"),
    ("invoicing", "GET", "/v1/alerts"),
    ("invoicing", "POST", "/v1/alerts/{alert_id}/resolve"),
    ("invoicing", "GET", "/v1/credits"),
    ("invoicing", "GET", "/v1/credits/entries"),
    ("invoicing", "GET", "/v1/reconciliations"),
    ("invoicing", "POST", "/v1/reconciliations/{reconciliation_id}/accept"),
    ("licensing", "GET", "/v1/licenses"),
    ("licensing", "GET", "/v1/licenses/{license_id}"),
    ("licensing", "POST", "/v1/licenses/{license_id}/revoke"),
    *((service, "GET", "/v1/operations") for service in SERVICES),
    *((service, "POST", "/v1/operations/{operation_id}/retry") for service in SERVICES),
    *((service, "GET", "/v1/dead-letters") for service in SERVICES),
    *((service, "GET", "/v1/dead-letters/{letter_id}") for service in SERVICES),
    *((service, "POST", "/v1/dead-letters/{letter_id}/replay") for service in SERVICES),
}
NAMING_A_SOURCE = {
    ("usage-ingest", "GET", "/v1/sources/{source}"),
    ("usage-ingest", "POST", "/v1/sources/{source}/watermark"),
}
PERSON = {"actor": "me", "reason": "because"}
BODIES = {
    "/v1/reconciliations/{reconciliation_id}/accept": PERSON,
    "/v1/alerts/{alert_id}/resolve": PERSON,
    "/v1/generations/comparison/accept": {
        "organization_id": "somebody",
        "day": "2026-09-30",
        "source": "us",
        **PERSON,
    },
    "/v1/limits/rules": {
        "document": {
            "near_percent": 80,
            "grace_days_by_trust": {"0": 0, "3": 0, "7": 1, "10": 3, "15": 5},
            "resources": {},
        },
        **PERSON,
    },
    "/v1/limits/rules/{version}/shadow": PERSON,
    "/v1/limits/rules/{version}/discard": PERSON,
    "/v1/limits/rules/{version}/activate": PERSON,
    "/v1/limits/webhooks": {"url": "https://example.org/", **PERSON},
    "/v1/limits/webhooks/deliveries/{delivery_id}/replay": PERSON,
    "/v1/limits/webhooks/{endpoint_id}": PERSON,
    "/v1/limits/webhooks/{endpoint_id}/rotate": PERSON,
    "/v1/limits/webhooks/{endpoint_id}/replay": PERSON,
    "/v1/sources/{source}": {"is_expected": True, **PERSON},
    "/v1/sources/{source}/waivers": {"waiver_id": "w", "through": "2026-10-01T00:00:00Z", **PERSON},
    "/v1/sources/{source}/waivers/{waiver_id}/take-back": PERSON,
}
FOR_ANYBODY = {
    ("subscriptions", "GET", "/api/products-v2"),
    ("licensing", "POST", "/v1/licenses"),
    ("invoicing", "POST", "/webhooks/stripe"),
    *((service, "GET", path) for service in SERVICES for path in ("/health/live", "/health/ready", "/metrics")),
}


@pytest.fixture(scope="module")
def mine(billing, cloud):
    return billing.new_organization(cloud)


@pytest.fixture(scope="module")
def others(billing, cloud):
    """Somebody else's organization, one that nobody has, and one of the same region that the token does not name."""
    return {
        "foreign": billing.new_organization(billing.new_license()).organization_id,
        "random": str(uuid.uuid4()),
        "of the same license": billing.new_organization(cloud).organization_id,
    }


def test_the_tables_name_every_route_of_every_service(billing):
    offered = set()
    for service in SERVICES:
        paths = billing.as_operator("GET", f"/{service}/openapi.json")["paths"]
        offered |= {(service, method.upper(), path) for path, methods in paths.items() for method in methods}
    naming = {(route.service, route.method, route.path) for route in NAMING_AN_ORGANIZATION}
    groups = [
        naming,
        NAMING_ITS_ORGANIZATION_IN_THE_TOKEN,
        NAMING_A_THING_OF_AN_ORGANIZATION,
        NAMING_A_SOURCE,
        FOR_OPERATORS,
        FOR_ANYBODY,
    ]
    assert set().union(*groups) == offered
    assert sum(map(len, groups)) == len(offered)


@pytest.mark.parametrize("route", NAMING_AN_ORGANIZATION, ids=lambda route: f"{route.method} {route.path}")
def test_a_foreign_organization_and_none_at_all_are_refused_alike(billing, mine, others, route):
    refusals = {kind: ask(billing, mine, route, each) for kind, each in others.items()}
    for kind, refusal in refusals.items():
        assert refusal.status_code in REFUSALS, f"{kind}: {refusal.text}"
        assert set(refusal.json()) == {"type", "code", "detail", "attr"}
        assert "customer" not in refusal.json()
    bodies = [(each.status_code, each.json()) for each in refusals.values()]
    assert bodies[1:] == bodies[:-1], "a caller could tell which organizations exist"


@pytest.mark.parametrize("route", NAMING_AN_ORGANIZATION, ids=lambda route: f"{route.method} {route.path}")
def test_ones_own_organization_is_answered_or_left_to_operators(billing, mine, route):
    answer = ask(billing, mine, route, mine.organization_id)
    assert answer.status_code == route.own, answer.text
    if route.own == 401:
        foreign = ask(billing, mine, route, str(uuid.uuid4()))
        assert answer.json() == foreign.json()


@pytest.mark.parametrize("route", sorted(NAMING_ITS_ORGANIZATION_IN_THE_TOKEN))
def test_a_token_cannot_name_an_organization_of_another_license(billing, mine, others, route):
    _, method, path = route
    token = billing.token(mine, organization_id=others["foreign"])
    answer = billing.ask(method, path, token, json={} if method == "PATCH" else None)
    assert answer.status_code == 403
    assert "customer" not in answer.json()


@pytest.mark.parametrize(
    "route",
    [pytest.param(route, id=f"{route.method} {route.path}") for route in NAMING_AN_ORGANIZATION],
)
def test_a_license_must_own_what_its_token_names(billing, mine, others, route):
    """Anybody may sign up for a license and write any organization into a token signed with it."""
    token = billing.token(mine, organization_id=others["foreign"])
    answer = ask(billing, mine, route, others["foreign"], token=token)
    assert answer.status_code in REFUSALS, answer.text


def test_an_invoice_of_another_organization_does_not_exist_for_a_license(billing, mine):
    answers = [billing.ask("GET", f"/v1/invoices/{name}", billing.token(mine)) for name in ("nothing", uuid.uuid4())]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize("route", sorted(FOR_OPERATORS))
def test_operators_routes_refuse_a_license_and_nobody(billing, mine, route):
    service, method, path = route
    numbered = path.replace("{letter_id}", "1").replace("{version}", "1")
    address = f"/{service}" + numbered.replace("{", "").replace("}", "")
    if path in {"/v1/closings", "/v1/credits/entries"}:
        address += "?organization_id=somebody"
    body = BODIES.get(path, {"reason": "because"})
    for token in (billing.token(mine), None):
        answer = billing.ask(method, address, token, json=None if method == "GET" else body)
        assert answer.status_code == 401, answer.text
        assert set(answer.json()) == {"type", "code", "detail", "attr"}


@pytest.mark.parametrize("route", sorted(NAMING_A_SOURCE))
def test_a_license_speaks_for_its_own_source_and_no_other(billing, mine, route):
    _, method, path = route
    told = {"complete_through": "2026-09-30T00:00:00Z"} if method == "POST" else None
    for source in ("somebody-elses", "nobodys"):
        answer = billing.ask(method, path.replace("{source}", source), billing.token(mine), json=told)
        assert (answer.status_code, answer.json()["attr"]) == (403, "source")
    assert billing.ask(method, path.replace("{source}", "nobodys"), None, json=told).status_code == 401


def ask(billing, caller, route, organization_id, *, token=None):
    def filled(part):
        if isinstance(part, str):
            named = part.replace("{organization_id}", organization_id).replace("{usage_key}", "events")
            return named.replace("{report_id}", "9223372036854775807")
        if isinstance(part, list):
            return [filled(each) for each in part]
        return {name: filled(each) for name, each in part.items()} if isinstance(part, dict) else part

    address = f"/{route.service}{filled(route.path)}" + (f"?{filled(route.query)}" if route.query else "")
    return billing.ask(route.method, address, token or billing.token(caller), json=filled(route.body))
