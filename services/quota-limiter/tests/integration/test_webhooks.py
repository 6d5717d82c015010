"""Webhooks on real Postgres and a real HTTP receiver: retries, crashes, redirects, rotation, replicas (L15)."""

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from quill_limits.webhooks import NotFromQuill, verify
from quill_quota_limiter import wire
from quill_quota_limiter.api.webhooks import SecretMint
from quill_quota_limiter.domain.webhook_endpoint import WebhookEndpoint
from quill_quota_limiter.gateways import webhook_sender
from quill_quota_limiter.gateways.webhook_courier import WebhookCourier
from quill_quota_limiter.gateways.webhook_sender import HttpWebhookSender
from quill_quota_limiter.usecases.change_webhooks import (
    UnknownEndpoint,
    add_endpoint,
    change_endpoint,
    remove_endpoint,
    replay_delivery,
    replay_failed,
    rotate_secret,
    stream_of,
)
from quill_quota_limiter.usecases.deliver_webhooks import LEASE, lease_due, sweep_deliveries
from quill_quota_limiter.usecases.evaluate import take_in_customers, take_in_usage
from quill_runtime.sealing import Sealer

# ruff: noqa: PLR0917 - fixtures
pytestmark = pytest.mark.integration

START = datetime(2026, 10, 10, 12, tzinfo=UTC)
SEALER = Sealer.parse("k1:" + "A" * 43)
BY = {"actor": "ada@example.org", "reason": "a test"}


class SettableClock:
    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at


class Receiver:
    """An HTTP server on 127.0.0.1 that keeps every request and answers with what ``answers`` says next, then 200."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[bytes | str] = []
        self.at_once = self.most_at_once = 0
        self.url = ""
        self._over = asyncio.Event()

    @asynccontextmanager
    async def listening(self):
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?x=1"
        async with server:
            yield self
            self._over.set()
            while self.at_once:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)

    async def serve(self, reader, writer):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            headers = {name.lower(): value for name, value in headers.items()}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.requests.append((head[0], headers, body))
            answer = self.answers.pop(0) if self.answers else 200
            if answer == "hang":
                gone, over = asyncio.create_task(reader.read()), asyncio.create_task(self._over.wait())
                await asyncio.wait([gone, over], return_when=asyncio.FIRST_COMPLETED)
                for waiting in (gone, over):
                    waiting.cancel()
                await asyncio.gather(gone, over, return_exceptions=True)
            elif isinstance(answer, bytes):
                writer.write(answer)
            else:
                writer.write(f"HTTP/1.1 {answer} x\r\ncontent-length: 4\r\n\r\nsaid".encode())
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.at_once -= 1

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for _, headers, _ in self.requests]


@pytest.fixture
async def receiver():
    async with Receiver().listening() as found:
        yield found


@pytest.fixture
def clock():
    return SettableClock()


@pytest.fixture
def sender(monkeypatch):
    monkeypatch.setattr(webhook_sender, "TOTAL_SECONDS", 1.0)
    return HttpWebhookSender(allow_http=True, allow_private=True)


@pytest.fixture
def courier(store, sender, clock):
    return WebhookCourier(store=store, sender=sender, sealer=SEALER, clock=clock)


async def listen(store, url, endpoint_id="whe_1", organization=None, events=("limits.transition",)):
    secret, sealed = SecretMint(SEALER).mint(endpoint_id)
    endpoint = WebhookEndpoint(endpoint_id, url, "", events, organization, sealed, START)
    async with store.begin() as tx:
        await add_endpoint(endpoint, **BY, tx=tx)
    return secret


async def arrive(store, *snapshots, now=START):
    for snapshot in snapshots:
        async with store.begin() as tx:
            if hasattr(snapshot, "items"):
                await take_in_customers([wire.from_wire_customer(snapshot)], tx=tx, now=now)
            else:
                await take_in_usage([wire.from_wire_usage(snapshot)], tx=tx, now=now)


async def deliveries(store, **asked):
    async with store.begin() as tx:
        return await tx.webhooks.deliveries(**{"at_most": 1_000, **asked})


async def changes(store, endpoint_id="whe_1"):
    async with store.begin() as tx:
        return [(event.type, event.actor) for event in await tx.recorded(stream_of(endpoint_id))]


async def endpoint_of(store, endpoint_id="whe_1"):
    async with store.begin() as tx:
        return await tx.webhooks.find_endpoint(endpoint_id)


async def test_a_transition_arrives_signed_after_failures_under_one_id(
    store, courier, receiver, clock, customer_snapshot
):
    secret = await listen(store, receiver.url)
    await arrive(store, customer_snapshot(events=1_000))
    receiver.answers = [500, 503]
    for _ in range(10):
        await courier.deliver_due()
        clock.at += timedelta(seconds=40)
    (delivery,) = await deliveries(store)
    assert (delivery.status, delivery.attempts, delivery.last_status) == ("delivered", 3, 200)
    assert receiver.ids == [delivery.delivery_id] * 3
    assert len({body for *_, body in receiver.requests}) == 1
    line, headers, body = receiver.requests[-1]
    assert line == "POST /hook?x=1 HTTP/1.1"
    assert headers["content-type"] == "application/json"
    signed_at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    assert signed_at > START
    assert verify([secret], headers, body, signed_at) == delivery.delivery_id
    document = json.loads(body)
    assert (document["type"], document["revision"]) == ("limits.transition", 1)
    assert (document["data"]["usage_key"], document["data"]["sequence"]) == ("events", 1)
    assert (await endpoint_of(store)).failing_since is None


async def test_thresholds_and_transitions_go_to_whom_they_concern(
    store, courier, receiver, clock, customer_snapshot, usage_snapshot
):
    await listen(store, receiver.url, "whe_all", events=("limits.transition", "limits.threshold"))
    await listen(store, receiver.url, "whe_acme", "acme", events=("limits.threshold",))
    await listen(store, receiver.url, "whe_beta", "beta", events=("limits.transition", "limits.threshold"))
    for revision in (1, 2, 3):
        await arrive(
            store, customer_snapshot(revision=revision, events=1_000), usage_snapshot(revision=revision, events=600)
        )
    found = [(d.endpoint_id, d.event) for d in await deliveries(store)]
    assert sorted(found) == [
        ("whe_acme", "limits.threshold"),
        ("whe_all", "limits.threshold"),
        ("whe_all", "limits.transition"),
    ]
    assert await courier.deliver_due() == 3
    assert len(set(receiver.ids)) == 3
    assert len(await deliveries(store, status="delivered", endpoint_id="whe_all")) == 2


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        ("hang", None, "no answer within"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/secret\r\ncontent-length: 0\r\n\r\n", 302, None),
        (b"nonsense\r\n\r\n", None, "RemoteProtocolError"),
        (b"", None, "RemoteProtocolError"),
        (b"HTTP/1.1 500 x\r\n\r\n" + b"a\x00\xff" * 100_000, 500, None),
    ],
    ids=["no answer", "a redirect", "not HTTP", "hung up", "an endless answer"],
)
async def test_what_is_no_clear_yes_is_kept_and_tried_again(
    store, courier, receiver, clock, customer_snapshot, answer, status, error
):
    await listen(store, receiver.url)
    await arrive(store, customer_snapshot(events=1_000))
    receiver.answers = [answer]
    await courier.deliver_due()
    (delivery,) = await deliveries(store)
    assert (delivery.status, delivery.last_status) == ("pending", status)
    assert error is None or error in delivery.last_error
    assert len(delivery.last_response or "") <= 4_096
    assert len(receiver.requests) == 1
    clock.at += timedelta(seconds=7)
    assert await courier.deliver_due() == 1
    assert [d.status for d in await deliveries(store)] == ["delivered"]
    assert len(set(receiver.ids)) == 1


async def test_a_crash_between_sending_and_keeping_repeats_under_the_same_id(
    store, courier, receiver, clock, customer_snapshot
):
    await listen(store, receiver.url)
    await arrive(store, customer_snapshot(events=1_000))
    (leased,) = await lease_due(in_hand={}, room=10, store=store, now=clock.at)
    await courier._try(leased)  # sent, and the process is gone before it could keep that
    assert await courier.deliver_due() == 0, "another replica leaves it alone while the lease runs"
    clock.at += LEASE
    assert await courier.deliver_due() == 1
    assert receiver.ids == [leased.delivery.delivery_id] * 2
    await courier._settle(leased, await courier._try(leased))
    (delivery,) = await deliveries(store)
    assert (delivery.status, delivery.attempts) == ("delivered", 2), "who lost the lease changes nothing"


async def test_two_replicas_send_each_delivery_once_and_few_to_one_endpoint(
    store, sender, receiver, clock, customer_snapshot
):
    await listen(store, receiver.url)
    meters = {f"meter_{number}": 1_000 for number in range(30)}
    await arrive(store, customer_snapshot(**meters))
    couriers = [WebhookCourier(store=store, sender=sender, sealer=SEALER, clock=clock) for _ in range(2)]
    total = 0
    while tries := sum(await asyncio.gather(*(each.deliver_due() for each in couriers))):
        total += tries
    assert total == len(receiver.ids) == len(set(receiver.ids)) == 30
    assert receiver.most_at_once <= 2 * 4
    assert {d.status for d in await deliveries(store)} == {"delivered"}


async def test_an_endpoint_that_hangs_holds_up_no_other(store, courier, receiver, clock, customer_snapshot):
    slow = Receiver()
    slow.answers = ["hang"] * 100
    async with slow.listening():
        await listen(store, slow.url, "whe_slow")
        await listen(store, receiver.url, "whe_quick")
        await arrive(store, customer_snapshot(**{f"meter_{number}": 1_000 for number in range(20)}))
        await courier.start()
        async with asyncio.timeout(20):
            while len(receiver.ids) < 20:
                await asyncio.sleep(0.02)
        await courier.stop()
        assert slow.most_at_once <= 4
    assert {d.status for d in await deliveries(store, endpoint_id="whe_quick")} <= {"delivered", "pending"}
    assert {d.status for d in await deliveries(store, endpoint_id="whe_slow")} == {"pending"}


async def test_who_is_gone_is_disabled_at_once_and_told_again_when_enabled(
    store, courier, receiver, clock, customer_snapshot, usage_snapshot
):
    await listen(store, receiver.url)
    await arrive(store, customer_snapshot(events=1_000))
    receiver.answers = [410]
    await courier.deliver_due()
    assert [d.status for d in await deliveries(store)] == ["failed"]
    assert (await endpoint_of(store)).disabled_because == "gone"
    assert (await changes(store))[-1] == ("webhook_disabled", "quota-limiter")
    await arrive(store, usage_snapshot(events=5_000))
    assert len(await deliveries(store)) == 1, "nothing is planned for a disabled endpoint"
    async with store.begin() as tx:
        await change_endpoint("whe_1", url=None, description=None, events=None, enabled=True, **BY, tx=tx, now=clock.at)
        again = await replay_failed("whe_1", **BY, tx=tx, now=clock.at)
    assert len(again) == 1
    assert await courier.deliver_due() == 1
    assert [d.status for d in await deliveries(store)] == ["delivered"]
    assert len(set(receiver.ids)) == 1
    assert [kind for kind, _ in await changes(store)] == [
        "webhook_added",
        "webhook_disabled",
        "webhook_changed",
        "webhook_replayed",
    ]


async def test_what_waits_for_a_disabled_endpoint_is_sent_when_enabled_and_given_up_after_days(
    store, courier, receiver, clock, customer_snapshot
):
    await listen(store, receiver.url)
    await arrive(store, customer_snapshot(events=1_000, recordings=10))
    change = {"url": None, "description": None, "events": None, **BY}
    async with store.begin() as tx:
        await change_endpoint("whe_1", enabled=False, **change, tx=tx, now=clock.at)
    assert await courier.deliver_due() == 0
    assert await sweep_deliveries(store=store, now=clock.at + timedelta(days=2)) == (0, 0)
    assert await sweep_deliveries(store=store, now=clock.at + timedelta(days=3, seconds=1)) == (2, 0)
    failed = await deliveries(store, status="failed")
    assert {d.last_error for d in failed} == {"the endpoint stayed disabled"}
    async with store.begin() as tx:
        await change_endpoint("whe_1", enabled=True, **change, tx=tx, now=clock.at)
        await replay_delivery(failed[0].delivery_id, **BY, tx=tx, now=clock.at)
    assert await courier.deliver_due() == 1
    assert await sweep_deliveries(store=store, now=clock.at + timedelta(days=40)) == (0, 2)
    assert await deliveries(store) == []


async def test_failing_for_days_disables_with_an_event(
    store, courier, receiver, clock, customer_snapshot, usage_snapshot
):
    await listen(store, receiver.url)
    await arrive(store, customer_snapshot(events=1_000))
    receiver.answers = [500] * 200
    for day in range(7):
        await arrive(store, usage_snapshot(revision=1 + day, events=5_000 * (day % 2)), now=clock.at)
        for _ in range(6):
            await courier.deliver_due()
            clock.at += timedelta(hours=4)
    endpoint = await endpoint_of(store)
    assert endpoint.disabled_because == "failing"
    assert [kind for kind, _ in await changes(store)].count("webhook_disabled") == 1
    assert clock.at - endpoint.failing_since >= timedelta(days=5)


async def test_two_secrets_sign_during_a_rotation_and_one_afterwards(
    store, courier, receiver, clock, customer_snapshot, usage_snapshot
):
    old = await listen(store, receiver.url)
    new, sealed = SecretMint(SEALER).mint("whe_1")
    async with store.begin() as tx:
        await rotate_secret("whe_1", sealed, overlap=timedelta(hours=24), **BY, tx=tx, now=clock.at)
    await arrive(store, customer_snapshot(events=1_000))
    await courier.deliver_due()
    _, headers, body = receiver.requests[-1]
    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (old, new):
        assert verify([secret], headers, body, clock.at)
    clock.at += timedelta(hours=24)
    await arrive(store, usage_snapshot(events=5_000), now=clock.at)
    await courier.deliver_due()
    _, headers, body = receiver.requests[-1]
    assert headers["webhook-signature"].count("v1,") == 1
    assert verify([new], headers, body, clock.at)
    with pytest.raises(NotFromQuill):
        verify([old], headers, body, clock.at)


async def test_a_removed_endpoint_leaves_its_deliveries_failed(store, courier, receiver, clock, customer_snapshot):
    await listen(store, receiver.url)
    await arrive(store, customer_snapshot(events=1_000))
    async with store.begin() as tx:
        await remove_endpoint("whe_1", **BY, tx=tx, now=clock.at)
    (delivery,) = await deliveries(store)
    assert (delivery.status, delivery.last_error) == ("failed", "the endpoint was removed")
    assert await courier.deliver_due() == 0
    assert [kind for kind, _ in await changes(store)] == ["webhook_added", "webhook_removed"]
    async with store.begin() as tx:
        with pytest.raises(UnknownEndpoint):
            await replay_delivery(delivery.delivery_id, **BY, tx=tx, now=clock.at)


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"], ["8.8.8.8", "10.0.0.1"]]
)
async def test_a_name_that_leads_inside_is_refused_before_anything_is_sent(receiver, addresses):
    async def resolve(host, port):
        return addresses

    guarded = HttpWebhookSender(allow_http=True, allow_private=False, resolve=resolve)
    url = receiver.url.replace("127.0.0.1", "inside.example")
    outcome = await guarded.send(url, headers={}, body=b"{}")
    assert outcome.error.startswith("not sent: inside.example leads to")
    assert receiver.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "[::ffff:7f00:1]"])
async def test_no_spelling_of_this_machine_gets_through(receiver, host):
    guarded = HttpWebhookSender(allow_http=True, allow_private=False)
    outcome = await guarded.send(receiver.url.replace("127.0.0.1", host), headers={}, body=b"{}")
    assert outcome.error.startswith("not sent: ")
    assert receiver.requests == []


async def test_the_connection_goes_to_the_address_that_was_checked(receiver):
    asked = []

    async def resolve(host, port):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    sender = HttpWebhookSender(allow_http=True, allow_private=True, resolve=resolve)
    url = receiver.url.replace("127.0.0.1", "rebinding.example")
    outcome = await sender.send(url, headers={"webhook-id": "msg_1"}, body=b"{}")
    assert (outcome.status, outcome.response, asked) == (200, "said", ["rebinding.example"])
    _, headers, _ = receiver.requests[0]
    assert headers["host"] == url.split("/")[2]
