"""Keys, faults, webhooks and a kill: what a client of Stripe must survive."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise

import httpx
import pytest
import stripe
from quill_stripesim.engine.announcing import API_VERSION

pytestmark = pytest.mark.integration


def create(story, name="Acme", key="key-1"):
    return story.client.v1.customers.create(params={"name": name}, options={"idempotency_key": key})


def inject(story, kind, **more):
    story.control.post("/faults/requests", json={"kind": kind, **more}).raise_for_status()


def count(story):
    return len(story.client.v1.customers.list(params={"limit": 100}).data)


def test_a_repeated_key_gives_the_first_result(story):
    assert create(story).id == create(story).id
    assert count(story) == 1


def test_a_key_with_other_parameters_is_an_error(story):
    create(story)

    with pytest.raises(stripe.IdempotencyError):
        create(story, name="Other")


def test_a_refused_request_does_not_use_up_its_key(story):
    options = {"idempotency_key": "key-1"}
    with pytest.raises(stripe.InvalidRequestError):
        story.client.v1.customers.create(params={"nome": "Acme"}, options=options)

    assert create(story).name == "Acme"


def test_a_key_is_free_again_after_a_day_of_simulated_time(story):
    create(story)
    story.control.post("/clock", json={"advance_seconds": 86_400}).raise_for_status()

    create(story, name="Other")

    assert count(story) == 2


def test_a_500_is_replayed_and_says_not_to_retry(story):
    inject(story, "error_500")
    for _ in range(2):
        with pytest.raises(stripe.APIError) as failed:
            create(story)
    assert failed.value.headers["stripe-should-retry"] == "false"
    assert count(story) == 0


def test_a_500_after_the_commit_hides_what_was_done(story):
    inject(story, "error_500_after_commit")
    with pytest.raises(stripe.APIError):
        story.client.v1.customers.create(
            params={"name": "Acme", "metadata": {"operation_id": "op-1"}}, options={"idempotency_key": "key-1"}
        )

    found = story.client.v1.customers.search(params={"query": "metadata['operation_id']:'op-1'"})
    assert [each.name for each in found.data] == ["Acme"]


def test_a_lost_answer_is_found_by_the_sdk_trying_again(stubborn_story):
    inject(stubborn_story, "timeout_after_commit")

    assert create(stubborn_story).name == "Acme"
    assert count(stubborn_story) == 1


@pytest.mark.parametrize("kind", ["rate_limit", "lock_timeout"])
def test_a_429_is_told_apart_by_its_code_and_uses_up_no_key(stubborn_story, kind):
    inject(stubborn_story, kind)
    with pytest.raises(stripe.RateLimitError) as refused:
        create(stubborn_story)

    assert refused.value.error.code == kind
    assert create(stubborn_story).name == "Acme"


def test_faults_hit_only_the_requests_they_name(story):
    inject(story, "rate_limit", method="POST", path_prefix="/v1/invoices")

    create(story)

    with pytest.raises(stripe.RateLimitError):
        story.client.v1.invoices.create(params={"customer": "cus_any"})


def test_two_requests_with_one_key_at_once_conflict(story):
    inject(story, "slow", delay_seconds=0.6)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(create, story)
        time.sleep(0.2)
        with pytest.raises(stripe.APIError) as refused:
            create(story)
        assert refused.value.http_status == 409
        assert slow.result().name == "Acme"
    assert count(story) == 1


class Endpoint:
    """Takes webhooks; refuses the first few when told to."""

    def __init__(self, *, refuses=0):
        self.taken = []
        self.refused = 0
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if endpoint.refused < refuses:
                    endpoint.refused += 1
                    self.send_response(500)
                else:
                    endpoint.taken.append((body, self.headers["stripe-signature"]))
                    self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def ids(self):
        return [json.loads(body)["id"] for body, _ in self.taken]


def listen(story, endpoint, *events):
    params = {"url": endpoint.url, "enabled_events": list(events) or ["*"], "api_version": API_VERSION}
    return story.client.v1.webhook_endpoints.create(params=params).secret


def settle(story):
    state = story.control.post("/settle", json={"timeout_seconds": 8}, timeout=10).raise_for_status().json()
    assert state["pending_webhooks"] == 0


def test_a_webhook_is_signed_and_carries_the_object_of_the_pinned_version(story):
    with Endpoint() as endpoint:
        secret = listen(story, endpoint, "customer.created")
        customer = story.customer()
        settle(story)

    ((body, signature),) = endpoint.taken
    event = stripe.Webhook.construct_event(body, signature, secret, tolerance=300)
    assert (event.type, event.api_version, event.data.object["id"]) == ("customer.created", API_VERSION, customer)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body + b" ", signature, secret, tolerance=300)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body, signature, "whsec_other", tolerance=300)


def test_a_webhook_that_is_refused_is_sent_again_with_the_same_event(story):
    with Endpoint(refuses=2) as endpoint:
        listen(story, endpoint, "customer.created")
        story.customer()
        settle(story)

    assert (endpoint.refused, len(endpoint.taken)) == (2, 1)
    event = story.client.v1.events.retrieve(endpoint.ids()[0])
    assert event.pending_webhooks == 0


def test_webhooks_can_be_doubled_dropped_and_turned_around(story):
    with Endpoint() as endpoint:
        listen(story, endpoint, "product.created")
        faults = {"duplicate_every": 2, "drop_every": 3, "reorder": True, "delay_seconds": 2.0}
        story.control.post("/faults/webhooks", json=faults).raise_for_status()
        for number in range(4):
            story.client.v1.products.create(params={"name": str(number)})
        settle(story)

    newest_first = [event.id for event in story.client.v1.events.list(params={"type": "product.created"}).data]
    fourth, _third, second, first = newest_first
    assert endpoint.ids() == [fourth, fourth, second, second, first]


def test_a_subscription_invoice_waits_for_its_webhook_before_it_is_final(story):
    with Endpoint(refuses=1) as endpoint:
        listen(story, endpoint, "invoice.created")
        customer = story.customer()
        story.subscribe(customer, story.metered_price(story.meter()))
        story.control.post("/clock", json={"advance_seconds": 31 * 86_400}).raise_for_status()
        story.control.post("/clock", json={"advance_seconds": 3_600}).raise_for_status()
        assert story.invoices(customer)[0].status == "draft"
        settle(story)
        assert story.invoices(customer)[0].status == "paid"


def test_the_events_of_a_month_come_in_their_order(story):
    clock = story.clock(2026, 1, 31)
    customer = story.customer(clock)
    story.subscribe(customer, story.metered_price(story.meter()))
    story.report(customer, 2_000_000, story.at(2026, 1, 31))
    story.advance(clock, 2026, 3, 1)

    events = story.client.v1.events.list(
        params={"limit": 100, "types": ["invoice.created", "invoice.finalized", "invoice.paid"]}
    )
    assert [event.type for event in reversed(events.data)] == ["invoice.created", "invoice.finalized", "invoice.paid"]
    assert all(older.created <= newer.created for newer, older in pairwise(events.data))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(port, state):
    command = [sys.executable, "-m", "quill_stripesim", "serve", "--port", str(port), "--state", str(state)]
    process = subprocess.Popen(command)
    give_up_at = time.monotonic() + 15
    while time.monotonic() < give_up_at:
        assert process.poll() is None
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/_control/state", trust_env=False).raise_for_status()
            return process
        time.sleep(0.05)
    raise AssertionError("the simulator did not start")


def test_a_killed_simulator_comes_back_with_everything_it_answered_for(tmp_path):
    port, state = free_port(), tmp_path / "stripe.jsonl"
    client = stripe.StripeClient(
        "sk_test_killed",
        stripe_version=API_VERSION,
        base_addresses=dict.fromkeys(("api", "files", "connect", "meter_events"), f"http://127.0.0.1:{port}"),
        http_client=stripe.RequestsClient(timeout=10),
    )
    options = {"idempotency_key": "before-the-kill"}
    process = start(port, state)
    try:
        before = client.v1.customers.create(params={"name": "Acme"}, options=options)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    process = start(port, state)
    try:
        assert client.v1.customers.create(params={"name": "Acme"}, options=options).id == before.id
        assert client.v1.customers.create(params={"name": "Next"}).id > before.id
    finally:
        process.terminate()
        process.wait()
