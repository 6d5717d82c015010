"""Who may see which invoice (L18), who accepts a difference (L16), and what the webhook endpoint takes in (L19)."""

import asyncio
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import httpx
import jwt
import pytest
from quill_invoicing import api
from quill_invoicing.domain.collection import Attempt, RailCustomer
from quill_invoicing.domain.credits import CreditEntry
from quill_invoicing.domain.period_close import Grace
from quill_invoicing.domain.reconciliation import Difference, Reconciliation
from quill_invoicing.gateways import stripe_webhooks
from quill_invoicing.gateways.memory import MemoryRail
from quill_invoicing.store.memory import MemoryStore
from quill_invoicing.usecases.close_period import close_due_periods
from quill_invoicing.usecases.keep_terms import keep_terms
from quill_invoicing.usecases.receive_webhook import act_on_webhooks
from quill_invoicing.usecases.record_usage import record_usage
from quill_runtime.auth import ApiTokens, Key, Keyring
from quill_runtime.http import create_app

NOW = datetime(2026, 11, 2, 1, tzinfo=UTC)
SECRET = "whsec_test"
LICENSE_SECRET = b"s" * 32
API_VERSION = "2026-10-28.endive"


class FixedClock:
    def now(self):
        return NOW


class StoreThatIsDown:
    def begin(self):
        raise ConnectionError("the database is away")


def token(name, scope):
    return f"{name}:{scope}:{hashlib.sha256(name.encode()).hexdigest()}"


class Front:
    """The HTTP side over a store in memory."""

    def __init__(self, store, *, has_rail=True):
        self.store = store
        keyring = Keyring()
        keyring.put(Key("lic-1", LICENSE_SECRET, revoked=False), revision=1)
        keyring.put(Key("lic-2", LICENSE_SECRET, revoked=False), revision=1)
        tokens = ApiTokens.parse(f"{token('ops', 'operator')},{token('svc', 'service')},{token('x', 'other')}")
        callers = api.Callers(tokens=tokens, keyring=keyring, clock=FixedClock())
        routers = [
            api.invoices(store=store, callers=callers, tokens=tokens, clock=FixedClock(), has_rail=has_rail),
            api.owed_credits(store=store, tokens=tokens),
            api.operator_alerts(store=store, tokens=tokens, clock=FixedClock()),
            api.webhooks(store=store, read=stripe_webhooks.receive, secrets=[SECRET], clock=FixedClock()),
        ]
        transport = httpx.ASGITransport(create_app(title="invoicing", routers=routers), raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://invoicing")

    async def ask(self, method, path, *, caller="ops", **request):
        headers = {"Authorization": f"Bearer {caller}"} | request.pop("headers", {})
        return await self._client.request(method, path, headers=headers, **request)

    async def deliver(self, event, *, header=None):
        raw = event if isinstance(event, bytes) else json.dumps(event).encode()
        return await self.ask(
            "POST", "/webhooks/stripe", content=raw, headers={"Stripe-Signature": header or signed(raw)}
        )


def signed(raw, secret=SECRET, at=NOW):
    stamp = int(at.timestamp())
    return f"t={stamp},v1=" + hmac.new(secret.encode(), f"{stamp}.".encode() + raw, hashlib.sha256).hexdigest()


def license_token(organization="org-1", secret=LICENSE_SECRET, **changed):
    claims = {"id": "lic-1", "organization_id": organization, "aud": "posthog:license-key"}
    return jwt.encode({**claims, "exp": NOW + timedelta(minutes=5), **changed}, secret, algorithm="HS256")


def event(kind, reference, number=1, **changed):
    return {
        "id": f"evt_{number}",
        "object": "event",
        "type": kind,
        "api_version": API_VERSION,
        "created": int(NOW.timestamp()),
        "data": {"object": {"id": reference}},
        **changed,
    }


@pytest.fixture
async def store(make):
    made = MemoryStore()
    async with made.begin() as tx:
        await keep_terms(make.terms(), tx=tx, now=NOW)
        await record_usage("org-1", [make.used(1, 12_000_000)], tx=tx, now=NOW, report_every=timedelta(0))
    await close_due_periods(store=made, grace=Grace(timedelta(hours=24)), now=NOW, limit=10)
    return made


@pytest.fixture
def front(store):
    return Front(store)


def the_invoice(store):
    (invoice,) = store.state.invoices.values()
    return invoice


@pytest.mark.parametrize("caller", ["ops", "svc", license_token()])
async def test_operators_services_and_the_own_license_see_an_invoice_with_its_tiers(front, store, caller):
    listed = await front.ask("GET", "/v1/invoices/?organization_id=org-1", caller=caller)
    shown = await front.ask("GET", f"/v1/invoices/{the_invoice(store).invoice_id}", caller=caller)
    assert (listed.status_code, shown.status_code) == (200, 200)
    assert listed.json()["results"] == [shown.json()]
    assert shown.json()["total"] == "393.00"
    assert [(line["tier"], line["amount"]) for line in shown.json()["lines"]] == [
        (1, "0.00"),
        (2, "50.00"),
        (3, "343.00"),
    ]


@pytest.mark.parametrize(
    ("caller", "listed", "shown"),
    [
        ("nobody", 401, 401),
        ("x", 403, 403),  # a token without the scope
        (license_token("org-2"), 403, 404),  # another organization's invoice looks like none
        (license_token(id="lic-2"), 403, 404),  # a license of its own, naming somebody else's organization
        (license_token(secret=b"f" * 32), 401, 401),
        (license_token(exp=NOW - timedelta(seconds=121)), 401, 401),
        (license_token(aud="other"), 401, 401),
        (license_token(organization=None), 401, 401),
    ],
)
async def test_nobody_else_sees_it(front, store, caller, listed, shown):
    answers = [
        await front.ask("GET", path, caller=caller)
        for path in ("/v1/invoices?organization_id=org-1", f"/v1/invoices/{the_invoice(store).invoice_id}")
    ]
    assert [answer.status_code for answer in answers] == [listed, shown]
    assert all(set(answer.json()) == {"type", "code", "detail", "attr"} for answer in answers)


async def test_without_a_rail_the_invoice_says_that_collection_waits(store):
    path = f"/v1/invoices/{the_invoice(store).invoice_id}"
    assert (await Front(store, has_rail=False).ask("GET", path)).json()["collection"] == "awaiting rail"
    assert (await Front(store).ask("GET", path)).json()["collection"] == "in progress"


async def test_only_an_operator_accepts_a_difference_by_name_and_with_a_reason(front, store):
    invoice = the_invoice(store)
    differences = (Difference("total", None, "invoice total", 39_300, 39_301),)
    async with store.begin() as tx:
        await tx.save_reconciliation(
            Reconciliation(invoice.invoice_id, "org-1", invoice.invoice_id, NOW, 39_300, 39_301, differences)
        )
    listed = await front.ask("GET", "/v1/reconciliations?status=different")
    assert [each["result"] for each in listed.json()["results"]] == ["different"]
    path = f"/v1/reconciliations/{invoice.invoice_id}/accept"
    body = {"actor": "ada", "reason": "known rounding"}
    assert (await front.ask("POST", path, json=body, caller="svc")).status_code == 403
    assert (await front.ask("POST", path, json=body, caller=license_token())).status_code == 401
    assert (await front.ask("POST", path, json={"actor": "ada"})).json()["attr"] == "reason"
    accepted = await front.ask("POST", path, json=body)
    assert (accepted.status_code, accepted.json()["accepted_by"]) == (200, "ada")
    assert [(each.actor, each.after["reason"]) for each in store.state.changes] == [("ada", "known rounding")]
    again = await front.ask("POST", path, json=body | {"actor": "bob"})
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_accept")
    assert (await front.ask("POST", "/v1/reconciliations/none/accept", json=body)).status_code == 404


async def test_a_webhook_is_kept_once_and_repeats_are_answered_alike(front, store):
    first = await front.deliver(event("invoice.paid", "in_1"))
    repeat = await front.deliver(event("invoice.paid", "in_1"))
    assert (first.status_code, repeat.status_code) == (200, 200)
    assert (first.json()["repeat"], repeat.json()["repeat"]) == (False, True)
    assert len(store.state.webhooks) == 1


async def test_what_stripe_did_not_sign_now_is_refused_and_not_kept(front, store):
    raw = json.dumps(event("invoice.paid", "in_1")).encode()
    for header in (signed(raw, "whsec_other"), signed(raw, at=NOW - timedelta(seconds=301)), "garbage"):
        refused = await front.deliver(raw, header=header)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_webhook")
    assert (await front.deliver(b"not json")).status_code == 400
    assert (await front.deliver(b"x" * 10 * 1024 * 1024)).status_code == 413
    assert store.state.webhooks == {}


async def test_a_database_that_is_down_asks_stripe_to_come_again():
    answer = await Front(StoreThatIsDown()).deliver(event("invoice.paid", "in_1"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


async def test_webhooks_are_acted_on_by_the_objects_current_state_whatever_they_say(front, store, make):
    rail = MemoryRail()
    customer = (await rail.ensure_customer(RailCustomer("org-1", "", None), attempt=Attempt("c", 1))).reference
    invoice = the_invoice(store)
    made = await rail.create_invoice(
        customer=customer, currency="usd", quill_invoice_id=invoice.invoice_id, lines=[], attempt=Attempt("i", 1)
    )

    async def act():
        return await act_on_webhooks(store=store, rail=rail, expected_api_version=API_VERSION, now=NOW, limit=10)

    await front.deliver(event("invoice.paid", made.reference, 1))  # not true yet: it is a draft
    await act()
    assert the_invoice(store).status == "finalized"
    rail.invoices[made.reference].status = "paid"
    await front.deliver(event("invoice.payment_failed", made.reference, 2))  # late: it was paid since
    await front.deliver(event("invoice.created", "in_9", 3))
    await front.deliver(event("customer.updated", "cus_1", 4))
    await front.deliver(event("invoice.paid", made.reference, 5, api_version="2020-08-27"))
    await asyncio.gather(act(), act())
    assert the_invoice(store).status == "paid"
    assert {name: each.outcome for name, each in store.state.webhooks.items()} == {
        "evt_1": "now_finalized",  # its counterpart is known now, and nothing more
        "evt_2": "now_paid",
        "evt_3": "hold_planned",
        "evt_4": "recorded",
        "evt_5": "already_settled",
    }
    assert "hold_draft:in_9" in store.state.planned


async def test_a_webhook_that_cannot_be_acted_on_is_tried_again_later(front, store):
    class RailThatIsAway(MemoryRail):
        async def invoice(self, reference):
            raise ConnectionError("away")

    await front.deliver(event("invoice.paid", "in_1"))
    rail = RailThatIsAway()
    for later in (timedelta(0), timedelta(0), timedelta(seconds=5)):
        await act_on_webhooks(store=store, rail=rail, expected_api_version=API_VERSION, now=NOW + later, limit=10)
    (delivery,) = store.state.webhooks.values()
    assert (delivery.webhook.attempts, delivery.processed_at) == (2, None)


async def test_operators_see_who_is_owed_what_and_why(front, store):
    """K4: also a customer who left, whom no later invoice will give it back."""
    async with store.begin() as tx:
        for name, currency, amount in (("org-1", "usd", 4_300), ("org-1", "eur", 5), ("gone:1", "usd", 100)):
            entry = CreditEntry(f"{name}{currency}:kept", name, currency, "kept", amount, "i-1", NOW)
            await tx.add_credit_entry(entry)
    first = (await front.ask("GET", "/v1/credits?limit=2")).json()
    rest = (await front.ask("GET", "/v1/credits", params={"limit": 2, "after": first["next_after"]})).json()
    shown = [(each["organization_id"], each["balance"], each["currency"]) for each in first["results"]]
    assert shown == [("gone:1", "1.00", "usd"), ("org-1", "0.05", "eur")]
    assert [(each["balance"], each["is_subscribed"]) for each in rest["results"]] == [("43.00", True)]
    assert [each["is_subscribed"] for each in first["results"]] == [False, True]
    assert rest["next_after"] is None
    entries = (await front.ask("GET", "/v1/credits/entries?organization_id=org-1")).json()["results"]
    assert sorted(each["amount"] for each in entries) == ["0.05", "43.00"]
    assert (await front.ask("GET", "/v1/credits?organization_id=org-1")).json()["results"][1]["balance_minor"] == 4_300
    for path in ("/v1/credits", "/v1/credits/entries?organization_id=org-1"):
        assert (await front.ask("GET", path, caller=license_token())).status_code == 401
    assert (await front.ask("GET", "/v1/credits?after=nonsense")).json()["attr"] == "after"


@pytest.mark.parametrize("version", ["2020-08-27", "2027-03-31.fjord", ""])
async def test_a_webhook_in_another_version_is_acted_upon_by_fetching_the_object(front, store, version):
    """K9: it was consumed and nothing was done; its body's form does not matter, since the object is fetched (L19)."""
    rail = MemoryRail()
    customer = (await rail.ensure_customer(RailCustomer("org-1", "", None), attempt=Attempt("c", 1))).reference
    made = await rail.create_invoice(
        customer=customer,
        currency="usd",
        quill_invoice_id=the_invoice(store).invoice_id,
        lines=[],
        attempt=Attempt("i", 1),
    )
    rail.invoices[made.reference].status = "paid"
    for number in (1, 2):
        await front.deliver(event("invoice.paid", made.reference, number, api_version=version or API_VERSION))
    await act_on_webhooks(store=store, rail=rail, expected_api_version=API_VERSION, now=NOW, limit=10)
    assert the_invoice(store).status == "paid"
    open_alerts = (await front.ask("GET", "/v1/alerts")).json()["results"]
    if not version:
        assert open_alerts == []
        return
    (alert,) = open_alerts
    assert (alert["kind"], alert["subject"], alert["count"]) == ("other_api_version", version, 2)
    path = f"/v1/alerts/{alert['alert_id']}/resolve"
    assert (await front.ask("POST", path, caller="svc", json={"actor": "a", "reason": "b"})).status_code == 403
    resolved = await front.ask("POST", path, json={"actor": "ada", "reason": "the endpoint has our version now"})
    assert (resolved.json()["resolved_by"], resolved.json()["count"]) == ("ada", 2)
    assert (await front.ask("GET", "/v1/alerts")).json()["results"] == []
    assert len((await front.ask("GET", "/v1/alerts?include_resolved=true")).json()["results"]) == 1
    assert [change.actor for change in store.state.changes] == ["ada"]
    missing = await front.ask("POST", "/v1/alerts/x/resolve", json={"actor": "ada", "reason": "r"})
    assert (missing.status_code, missing.json()["attr"]) == (404, "alert_id")
