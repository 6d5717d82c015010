"""The whole service on real Kafka, Postgres and a mail server: from signup to a token that other services accept."""

import asyncio
import re
import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from quill_contracts import topics
from quill_contracts.licenses import License
from quill_contracts.subscriptions import CustomerSnapshot
from quill_licensing.domain.license_key import LicenseKey
from quill_licensing.domain.signup import Signup
from quill_licensing.gateways.memory import MemoryMailer
from quill_licensing.jobs import license_mail
from quill_licensing.store.postgres import MAIL_OPERATION, PostgresLicenseStore
from quill_licensing.usecases import issue_license
from quill_runtime.auth import Keyring, Unauthorized, verify_signed
from quill_runtime.clock import SystemClock
from quill_runtime.database import Database
from quill_runtime.keyring_table import keyring_table
from quill_runtime.operations import LEASE_SECONDS, OperationRunner
from quill_runtime.outbox import Outbox
from quill_runtime.publisher import KafkaPublisher, Outgoing
from quill_runtime.sealing import Sealer
from sqlalchemy import text

pytestmark = pytest.mark.integration

SIGNUP = {"email": "ada@b.example", "organization_name": "Hedgehogs"}
AUDIENCE = "posthog:license-key"


async def eventually(look, *, seconds=20.0):
    """The first true answer of ``look``; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        found = await found if asyncio.iscoroutine(found) else found
        if found:
            return found
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.05)


def sign(key, **changed):
    claims = {"id": key.license_id, "organization_id": "org-1", "aud": AUDIENCE}
    claims["exp"] = datetime.now(UTC) + timedelta(minutes=15)
    return jwt.encode({**claims, **changed}, key.secret, algorithm="HS256")


async def read_topic(bootstrap_servers, topic):
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        records = []
        while await consumer.position(partition) < end:
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records += batch
        return records
    finally:
        await consumer.stop()


@pytest.fixture
async def verifier(stores):
    """What every other service has: a keyring that fills itself from the topic."""
    keyring = Keyring()
    table = keyring_table(
        topic=topics.LICENSES.name,
        bootstrap_servers=stores.kafka_bootstrap_servers,
        keyring=keyring,
        sealer=Sealer({"k1": b"k" * 32}, "k1"),
        key_id_field="license_id",
        attributes=("type", "source"),
    )
    started = False

    async def verify(token):
        nonlocal started
        if not started:
            await table.start()
            started = True
        return verify_signed(token, keyring=keyring, audience=AUDIENCE, key_claim="id", now=datetime.now(UTC))

    yield verify
    await table.stop()


async def accepted(verify, token):
    try:
        return await verify(token)
    except Unauthorized:
        return None


async def refused_as(verify, token):
    try:
        await verify(token)
    except Unauthorized as refused:
        return refused.code
    return None


async def test_the_mailed_key_signs_tokens_that_every_service_accepts_until_it_is_revoked(
    run_licensing, mail_server, verifier
):
    """V15, L17, L20."""
    async with run_licensing() as licensing:
        answer = await licensing.client.post("/v1/licenses/", json={**SIGNUP, "source": "home-1"})
        assert answer.status_code == 201
        assert answer.headers["Cache-Control"] == "no-store"
        [mail] = await eventually(lambda: mail_server.mails)
        key = LicenseKey.parse(re.search(r"^ +(lic_\S+::\S+)\s*$", mail.get_content(), re.MULTILINE)[1])
        assert key.text == answer.json()["license_key"]
        assert mail["To"] == "ada@b.example"

        caller = await eventually(lambda: accepted(verifier, sign(key)))
        assert (caller.key_id, dict(caller.attributes)) == (key.license_id, {"type": "scale", "source": "home-1"})
        assert await refused_as(verifier, sign(LicenseKey(key.license_id, "x" * 43))) == "authentication_failed"

        revoked = await licensing.client.post(
            f"/v1/licenses/{key.license_id}/revoke", json={"reason": "stolen"}, headers=licensing.operator
        )
        assert (revoked.status_code, revoked.json()["status"]) == (200, "revoked")
        started = time.monotonic()
        await eventually(lambda: _is_revoked(verifier, key))
        assert time.monotonic() - started < 5, "verifiers hear of it within seconds"

        shown = await licensing.client.get(f"/v1/licenses/{key.license_id}", headers=licensing.operator)
        assert [(c["type"], c["actor"]) for c in shown.json()["history"]] == [
            ("license_issued", "signup:ada@b.example"),
            ("license_revoked", "operator:kim"),
        ]
        assert shown.json()["mail"] == {"status": "sent", "attempts": 1, "error": None}


async def _is_revoked(verify, key):
    return await refused_as(verify, sign(key)) == "key_revoked"


async def test_the_secret_is_nowhere_but_in_the_answer_and_the_mail(run_licensing, mail_server, stores, capfd, caplog):
    """Reliability 5: a canary in every place where a secret could end up."""
    caplog.set_level("DEBUG")
    caplog.set_level("WARNING", "mail.log")  # the mail server's own log, which is not ours to keep clean
    async with run_licensing(log_level="DEBUG") as licensing:
        headers = {"Idempotency-Key": "canary-canary-canary"}
        answer = await licensing.client.post("/v1/licenses", json=SIGNUP, headers=headers)
        license_id, _, secret = answer.json()["license_key"].partition("::")
        await eventually(lambda: mail_server.mails)
        revoke = {"json": {"reason": "canary"}, "headers": licensing.operator}
        assert (await licensing.client.post(f"/v1/licenses/{license_id}/revoke", **revoke)).status_code == 200
        shown = [
            (await licensing.client.get(path, headers=licensing.operator)).text
            for path in ("/v1/licenses", f"/v1/licenses/{license_id}", "/metrics", "/health/ready")
        ]
        records = await eventually(lambda: _records_of(stores, license_id, count=2))
        database = Database(licensing.settings.database_url)
        async with database.begin() as transaction:
            names = (
                await transaction.connection.scalars(
                    text("select table_name from information_schema.tables where table_schema = 'public'")
                )
            ).all()
            rows = {
                name: (await transaction.connection.scalars(text(f'select t::text from "{name}" t'))).all()
                for name in names
            }
        await database.close()
    output = capfd.readouterr()
    places = {
        "answers to operators": "".join(shown),
        "Kafka": "".join(f"{record.key} {record.value} {record.headers}" for record in records),
        "logs": output.out + output.err + caplog.text,
        **{f"table {name}": "\n".join(found) for name, found in rows.items()},
    }
    assert {"table events", "table licenses", "table operations", "table inbox", "table outbox"} <= set(places)
    assert license_id in places["table operations"]
    assert license_id in places["Kafka"]
    for place, found in places.items():
        assert secret not in found, place
    assert secret in mail_server.mails[0].get_content(), "the canary itself must be recognisable"
    for record in records:
        assert secret.encode() == Sealer({"k1": b"k" * 32}, "k1").open(
            License.from_bytes(record.value).sealed_secret, context=license_id
        )


async def _records_of(stores, license_id, *, count):
    records = await read_topic(stores.kafka_bootstrap_servers, topics.LICENSES.name)
    ours = [record for record in records if record.key == license_id.encode()]
    return ours if len(ours) >= count else None


async def test_a_mail_server_that_is_down_delays_the_mail_and_not_the_signup(run_licensing, mail_server):
    """L15: the operation is there first and is tried again until the server has taken the mail."""
    await mail_server.stop()
    async with run_licensing() as licensing:
        answer = await licensing.client.post("/v1/licenses", json=SIGNUP)
        assert answer.status_code == 201
        path = f"/v1/licenses/{answer.json()['license_id']}"

        async def mail():
            return (await licensing.client.get(path, headers=licensing.operator)).json()["mail"]

        async def tried_in_vain():
            state = await mail()
            return state if state["error"] else None

        assert (await eventually(tried_in_vain))["status"] == "waiting"
        await mail_server.start()
        await eventually(lambda: mail_server.mails)

        async def is_sent():
            return (await mail())["status"] == "sent"

        await eventually(is_sent)
        assert (await mail())["attempts"] >= 2
    assert len(mail_server.mails) == 1
    message_id = mail_server.mails[0]["Message-ID"]
    assert message_id == f"<license-mail.{answer.json()['license_id']}@quill.example>"


async def test_a_crash_between_the_mail_and_its_record_sends_the_same_mail_again_and_then_rests(migrated_url):
    """L15: identical to the byte, with the same Message-ID, so that readers see one mail."""
    database = Database(migrated_url)
    store = PostgresLicenseStore(database, outbox=Outbox())
    sealer, mailer, now = Sealer({"k1": b"k" * 32}, "k1"), MemoryMailer(), datetime(2026, 10, 1, tzinfo=UTC)
    key = LicenseKey.from_random(id_bytes=b"i" * 12, secret_bytes=b"s" * 32)
    signup = Signup("ada@b.example", "Hedgehogs", "scale", None)
    await issue_license(signup, key=key, actor="signup", claim=None, store=store, sealer=sealer, now=now)
    perform, conclude = license_mail(store=store, sealer=sealer, mailer=mailer)

    class ProcessDied(BaseException):
        """Nothing handles it: the row stays as the attempt left it."""

    async def crash(*_):
        raise ProcessDied

    def runner(conclusion):
        performers = {MAIL_OPERATION: (perform, conclusion)}
        return OperationRunner(name="mails", database=database, clock=SystemClock(), performers=performers)

    with pytest.raises(ProcessDied):
        await runner(crash).run_due(now)
    later = now + timedelta(seconds=LEASE_SECONDS)
    assert not await runner(conclude).run_due(later - timedelta(seconds=1)), "left alone while it may be in flight"
    assert await runner(conclude).run_due(later)
    assert not await runner(conclude).run_due(later + timedelta(days=1))
    first, second = mailer.sent
    assert first == second
    await database.close()


async def test_operators_page_filter_and_look_back(run_licensing):
    async with run_licensing() as licensing:

        async def get(path, **query):
            return await licensing.client.get(f"/v1/licenses{path}", params=query, headers=licensing.operator)

        for number in range(5):
            body = {**SIGNUP, "type": ["scale", "enterprise"][number % 2], "email": f"a{number}@b.example"}
            await licensing.client.post("/v1/licenses", json=body, headers=licensing.operator)
        first = (await get("", limit=3)).json()
        rest = (await get("", limit=3, after_id=first["next_after_id"])).json()
        assert (len(first["results"]), len(rest["results"]), rest["next_after_id"]) == (3, 2, None)
        assert len((await get("", type="enterprise")).json()["results"]) == 2
        assert len((await get("", email="a3@b.example", status="active")).json()["results"]) == 1
        license_id = first["results"][0]["license_id"]
        assert (await get(f"/{license_id}", as_of="2020-01-01T00:00:00Z")).status_code == 404
        for query, attr in [({"limit": 0}, "limit"), ({"limit": 201}, "limit"), ({"type": "free"}, "type")]:
            answer = await get("", **query)
            assert (answer.status_code, answer.json()["attr"]) == (400, attr)
        naive = await get(f"/{license_id}", as_of="2026-01-01T00:00:00")
        assert (naive.status_code, naive.json()["attr"]) == (400, "as_of")


@pytest.mark.parametrize(("refusal", "status"), [("550 no such mailbox", "failed"), ("450 busy", "waiting")])
async def test_a_refused_recipient_is_given_up_and_a_busy_server_is_asked_again(
    run_licensing, mail_server, refusal, status
):
    mail_server.refusal = refusal
    async with run_licensing() as licensing:
        answer = await licensing.client.post("/v1/licenses", json=SIGNUP)
        path = f"/v1/licenses/{answer.json()['license_id']}"

        async def outcome():
            mail = (await licensing.client.get(path, headers=licensing.operator)).json()["mail"]
            return mail if mail["error"] else None

        assert (await eventually(outcome))["status"] == status
    assert mail_server.mails == []


async def test_a_repeated_signup_gets_the_same_key_and_no_second_mail(run_licensing, mail_server):
    async with run_licensing() as licensing:
        headers = {"Idempotency-Key": "0123456789abcdef"}
        first = await licensing.client.post("/v1/licenses", json=SIGNUP, headers=headers)
        again = await licensing.client.post("/v1/licenses", json=SIGNUP, headers=headers)
        assert first.json() == again.json()
        assert (first.headers.get("Idempotent-Replayed"), again.headers["Idempotent-Replayed"]) == (None, "true")
        other = await licensing.client.post("/v1/licenses", json={**SIGNUP, "type": "enterprise"}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
        await eventually(lambda: mail_server.mails)
        await asyncio.sleep(0.7)
    assert len(mail_server.mails) == 1


async def test_customers_of_subscriptions_show_which_organization_uses_a_license(run_licensing, stores):
    """L17: the second organization of a self-hosted license is parked for a person to look at."""
    publisher = KafkaPublisher(stores.kafka_bootstrap_servers)
    await publisher.start()
    async with run_licensing() as licensing:
        license_id = (await licensing.client.post("/v1/licenses", json=SIGNUP)).json()["license_id"]

        async def announce(organization_id, *, of=license_id, revision=1):
            snapshot = CustomerSnapshot(
                organization_id=organization_id,
                organization_name=organization_id.title(),
                customer_id=f"cus-{organization_id}",
                revision=revision,
                effective_at=datetime(2026, 10, 1, tzinfo=UTC),
                license_id=of,
                license_type="scale",
                schedule={"anchor": "2026-10-01T00:00:00Z", "interval": "month"},
                period={"start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"},
                has_active_subscription=False,
                items=[],
            )
            await publisher.publish_all([Outgoing(topics.CUSTOMERS.name, organization_id, snapshot.to_bytes())])

        for revision in (1, 2, 2):
            await announce(f"org-a-{license_id}", revision=revision)
        await announce(f"org-b-{license_id}")
        await announce(f"org-c-{license_id}", of="lic_unknown_unknown")
        await publisher.publish_all([Outgoing(topics.CUSTOMERS.name, "x", b"not json")])

        async def letters():
            answer = await licensing.client.get("/v1/dead-letters", headers=licensing.operator)
            found = {letter["subject"] or letter["reason_code"]: letter for letter in answer.json()["results"]}
            return found if {f"org-b-{license_id}", f"org-c-{license_id}", "not_json"} <= set(found) else None

        found = await eventually(letters)
        assert found[f"org-b-{license_id}"]["reason_code"] == "license_bound_to_another_organization"
        assert found[f"org-c-{license_id}"]["reason_code"] == "unknown_license"
        shown = (await licensing.client.get(f"/v1/licenses/{license_id}", headers=licensing.operator)).json()
        assert shown["organization_id"] == f"org-a-{license_id}"
        assert [a["organization_id"] for a in shown["activations"]] == [f"org-a-{license_id}"]
        assert [c["type"] for c in shown["history"]] == ["license_issued", "license_activated"]
    await publisher.stop()


async def test_strangers_are_held_back_by_address_and_by_mail_and_operators_are_not(run_licensing):
    limits = {
        "signup_address_burst": 3,
        "signup_address_interval_seconds": 600,
        "signup_email_burst": 2,
        "signup_email_interval_seconds": 60,
        "signup_trusted_hops": 1,
    }
    async with run_licensing(**limits) as licensing:

        async def sign_up(email, address, **headers):
            return await licensing.client.post(
                "/v1/licenses",
                json={**SIGNUP, "email": email},
                headers={"X-Forwarded-For": f"203.0.113.1, {address}", **headers},
            )

        # e-mail, address, status: two a mail, three an address; what the client itself wrote in the header is ignored
        story = [
            ("a@b.example", "10.0.0.1", 201),
            ("A@b.example", "10.0.0.2", 201),
            ("a@b.example", "10.0.0.3", 429),
            ("b@b.example", "10.0.0.1", 201),
            ("c@b.example", "10.0.0.1", 201),
            ("d@b.example", "10.0.0.1", 429),
            ("d@b.example", "10.0.0.4", 201),
        ]
        for email, address, status in story:
            answer = await sign_up(email, address)
            assert answer.status_code == status, (email, address, answer.text)
            if status == 429:
                assert answer.json()["code"] == "throttled"
                assert 0 < int(answer.headers["Retry-After"]) <= 600
        assert (await sign_up("a@b.example", "10.0.0.1", **licensing.operator)).status_code == 201


async def test_only_an_operator_sees_lists_revokes_or_issues_for_a_region(run_licensing):
    """L18, and a cloud license speaks for every organization of its region."""
    async with run_licensing() as licensing:
        client = licensing.client
        cloud = {**SIGNUP, "type": "cloud", "source": "cloud-us"}
        assert (await client.post("/v1/licenses", json=cloud)).status_code == 403
        issued = await client.post("/v1/licenses", json=cloud, headers=licensing.operator)
        assert issued.status_code == 201
        key = LicenseKey.parse(issued.json()["license_key"])
        path = f"/v1/licenses/{key.license_id}"
        for token, status in [(None, 401), ("wrong", 401), ("service-token", 403), (sign(key), 401), (key.text, 401)]:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            refusals = [
                await client.get("/v1/licenses", headers=headers),
                await client.get(path, headers=headers),
                await client.post(f"{path}/revoke", json={"reason": "x"}, headers=headers),
                await client.get("/v1/dead-letters", headers=headers),
            ]
            if token:
                refusals.append(await client.post("/v1/licenses", json=SIGNUP, headers=headers))
            assert [refusal.status_code for refusal in refusals] == [status] * len(refusals)
            assert all(key.license_id not in refusal.text for refusal in refusals)
        listed = await client.get("/v1/licenses", headers=licensing.operator)
        assert [found["source"] for found in listed.json()["results"]] == ["cloud-us"]
        taken = await client.post("/v1/licenses", json=cloud, headers=licensing.operator)
        assert (taken.status_code, taken.json()["attr"]) == (409, "source")
        missing = await client.get("/v1/licenses/lic_unknown_unknown", headers=licensing.operator)
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "headers", "attr", "status"),
    [
        (b"", {}, None, 400),
        (b"not json", {}, None, 400),
        (b"\xff\xfe", {}, None, 400),
        (b"[]", {}, None, 400),
        (b'"x"', {}, None, 400),
        (b"{}", {}, "email", 400),
        (b'{"email": "ada@b.example"}', {}, "organization_name", 400),
        (b'{"email": 7, "organization_name": "x"}', {}, "email", 400),
        (b'{"email": "a@b.example", "organization_name": "x", "type": "free"}', {}, "type", 400),
        (b'{"email": "a@b.example", "organization_name": "x", "admin": true}', {}, "admin", 400),
        (b'{"email": "a@b.example", "organization_name": "a\\u0000b"}', {}, "organization_name", 400),
        (b'{"email": "a@b.example", "organization_name": "x"}', {"Idempotency-Key": "short"}, "Idempotency-Key", 400),
        (b"x" * (9 * 1024 * 1024), {}, None, 413),
        (b"not gzip", {"Content-Encoding": "gzip"}, None, 400),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_garbage_is_answered_with_the_field_that_is_wrong(run_licensing, body, headers, attr, status):
    async with run_licensing() as licensing:
        answer = await licensing.client.post(
            "/v1/licenses", content=body, headers={"Content-Type": "application/json", **headers}
        )
    assert (answer.status_code, answer.json()["attr"]) == (status, attr), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
