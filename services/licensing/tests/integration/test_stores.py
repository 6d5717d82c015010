"""One behaviour, held by the memory store and by Postgres."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from quill_licensing.domain.activation import Activation
from quill_licensing.domain.license import BoundToAnotherOrganization, NoSuchLicense
from quill_licensing.domain.license_key import LicenseKey
from quill_licensing.domain.signup import Signup
from quill_licensing.domain.signup_pace import Pace, TooManySignups
from quill_licensing.ports import Claim, ClaimConflict, LicenseFilter, SourceTaken
from quill_licensing.store.memory import MemoryLicenseStore
from quill_licensing.store.postgres import PostgresLicenseStore
from quill_licensing.store.tables import metadata
from quill_licensing.usecases import (
    admit_signup,
    forget_full_buckets,
    issue_license,
    list_licenses,
    record_activations,
    revoke_license,
    show_license,
)
from quill_runtime.database import Database
from quill_runtime.outbox import Outbox
from quill_runtime.sealing import Sealer
from quill_runtime.tables import runtime_metadata

pytestmark = pytest.mark.integration

NOW = datetime(2026, 10, 1, 12, tzinfo=UTC)
SEALER = Sealer({"k": b"k" * 32}, "k")
CLAIM = Claim("public", "a-key-of-sixteen-characters")


@pytest.fixture(params=["memory", "postgres"])
async def store(request):
    if request.param == "memory":
        yield MemoryLicenseStore()
        return
    database = Database(request.getfixturevalue("migrated_url"), pool_size=10)
    yield PostgresLicenseStore(database, outbox=Outbox())
    await database.close()


@pytest.fixture(autouse=True)
def _database_before_the_loop_is_busy(request, migrated_url):
    """Asked for here because a fixture with its own loop cannot be asked for inside another."""


def a_key(number):
    return LicenseKey.from_random(id_bytes=number.to_bytes(12, "big"), secret_bytes=number.to_bytes(32, "big"))


async def issue(store, number, *, claim=None, kind="scale", source=None, email="ada@b.example", now=NOW):
    signup = Signup(email, "Hedgehogs", kind, source)
    issued = await issue_license(
        signup, key=a_key(number), actor=f"signup:{email}", claim=claim, store=store, sealer=SEALER, now=now
    )
    return issued.key.license_id


async def activate(store, license_id, organization_id, *, at=NOW):
    async def work(tx):
        await record_activations([Activation(license_id, organization_id, organization_id.title(), at)], tx=tx)

    await store.run(work)


async def test_a_license_can_be_followed_and_asked_for_as_it_was(store):
    license_id = await issue(store, 1)
    await activate(store, license_id, "org-1", at=NOW + timedelta(hours=1))
    await revoke_license(license_id, reason="stolen", actor="operator:kim", store=store, now=NOW + timedelta(hours=2))
    story = await show_license(license_id, as_of=None, store=store)
    assert (story.license.status, story.license.revision, story.license.organization_id) == ("revoked", 3, "org-1")
    assert [fact.actor for fact in story.history] == ["signup:ada@b.example", "subscriptions", "operator:kim"]
    assert (story.mail.status, story.mail.attempts) == ("planned", 0)
    then = await show_license(license_id, as_of=NOW + timedelta(minutes=90), store=store)
    assert (then.license.status, then.license.revision, len(then.history)) == ("active", 2, 2)
    with pytest.raises(NoSuchLicense):
        await show_license(license_id, as_of=NOW - timedelta(seconds=1), store=store)


async def test_the_listed_license_equals_the_one_its_facts_tell_of(store):
    """Architecture 6: a projection may save time and never change meaning."""
    license_id = await issue(store, 1)
    await activate(store, license_id, "org-1")
    await revoke_license(license_id, reason="stolen", actor="operator:kim", store=store, now=NOW)
    [listed] = await list_licenses(LicenseFilter(), after_id="", limit=10, store=store)
    assert listed == (await show_license(license_id, as_of=None, store=store)).license


async def test_revoking_again_changes_nothing(store):
    license_id = await issue(store, 1)
    revoke = {"actor": "operator:kim", "store": store, "now": NOW}
    first = await revoke_license(license_id, reason="stolen", **revoke)
    assert await revoke_license(license_id, reason="another", **revoke) == first
    with pytest.raises(NoSuchLicense):
        await revoke_license("lic_unknown_unknown", reason="stolen", **revoke)


async def test_a_self_hosted_license_has_one_customer_and_a_region_has_many(store):
    """L17."""
    home = await issue(store, 1)
    region = await issue(store, 2, kind="cloud")
    for _ in range(2):
        await activate(store, home, "org-1")
    with pytest.raises(BoundToAnotherOrganization):
        await activate(store, home, "org-2")
    for organization in ("org-1", "org-2", "org-3", "org-2"):
        await activate(store, region, organization)
    with pytest.raises(NoSuchLicense):
        await activate(store, "lic_unknown_unknown", "org-1")
    one = await show_license(home, as_of=None, store=store)
    many = await show_license(region, as_of=None, store=store)
    assert [a.organization_id for a in one.activations] == ["org-1"]
    assert [a.organization_id for a in many.activations] == ["org-1", "org-2", "org-3"]
    assert many.license.revision == 1


async def test_pages_follow_each_other_and_keep_to_the_filter(store):
    ids = sorted([await issue(store, n, email=f"{'ab'[n % 2]}@b.example") for n in range(1, 8)])
    await revoke_license(ids[3], reason="stolen", actor="operator:kim", store=store, now=NOW)
    pages, after = [], ""
    while page := await list_licenses(LicenseFilter(), after_id=after, limit=3, store=store):
        pages.append(len(page))
        after = page[-1].license_id
    assert pages == [3, 3, 1]
    assert len(await list_licenses(LicenseFilter(email="a@b.example"), after_id="", limit=10, store=store)) == 3
    [revoked] = await list_licenses(LicenseFilter(status="revoked"), after_id="", limit=10, store=store)
    assert revoked.license_id == ids[3]
    assert await list_licenses(LicenseFilter(type="cloud"), after_id="", limit=10, store=store) == []


async def test_an_idempotency_key_has_three_answers(store):
    first = await issue(store, 1, claim=CLAIM)
    assert await issue(store, 2, claim=CLAIM) == first
    with pytest.raises(ClaimConflict):
        await issue(store, 3, claim=CLAIM, email="eve@b.example")
    assert await issue(store, 4, claim=Claim("kim", CLAIM.idempotency_key)) == a_key(4).license_id
    assert len(await list_licenses(LicenseFilter(), after_id="", limit=10, store=store)) == 2


async def test_two_active_licenses_never_stand_for_one_source_and_a_refusal_leaves_nothing(store):
    """L1: reports of two instances would merge into one cell."""
    license_id = await issue(store, 1, source="home")
    with pytest.raises(SourceTaken):
        await issue(store, 2, source="home", claim=CLAIM)
    await revoke_license(license_id, reason="moved", actor="operator:kim", store=store, now=NOW)
    assert await issue(store, 3, source="home", claim=CLAIM) == a_key(3).license_id, "the refused claim was rolled back"


async def test_of_many_signups_at_once_with_one_idempotency_key_one_makes_a_license(store):
    made = await asyncio.gather(*(issue(store, n, claim=CLAIM) for n in range(1, 9)))
    assert len(set(made)) == 1
    assert len(await list_licenses(LicenseFilter(), after_id="", limit=10, store=store)) == 1


async def test_of_many_organizations_at_once_one_gets_the_license(store):
    license_id = await issue(store, 1)
    outcomes = await asyncio.gather(
        *(activate(store, license_id, f"org-{n}") for n in range(8)), return_exceptions=True
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    assert {type(outcome) for outcome in outcomes} == {type(None), BoundToAnotherOrganization}
    story = await show_license(license_id, as_of=None, store=store)
    assert [a.organization_id for a in story.activations] == [story.license.organization_id]


async def test_strangers_at_once_never_get_more_than_the_burst(store):
    pace = {"address:198.51.100.7": Pace(3, timedelta(minutes=1)), "email:a@b.example": Pace(100, timedelta(minutes=1))}
    outcomes = await asyncio.gather(
        *(admit_signup(pace, store=store, now=NOW) for _ in range(8)), return_exceptions=True
    )
    assert sum(outcome is None for outcome in outcomes) == 3
    assert {type(outcome) for outcome in outcomes} == {type(None), TooManySignups}
    await admit_signup(pace, store=store, now=NOW + timedelta(minutes=1))


async def test_full_buckets_are_forgotten_and_others_kept(store):
    async def admit(subject, minutes):
        await admit_signup({subject: Pace(3, timedelta(minutes=minutes))}, store=store, now=NOW)

    await admit("address:a", 1)
    await admit("address:b", 10)
    assert await forget_full_buckets(store=store, now=NOW + timedelta(minutes=1)) == 1
    assert await forget_full_buckets(store=store, now=NOW + timedelta(minutes=1)) == 0
    assert await forget_full_buckets(store=store, now=NOW + timedelta(minutes=10)) == 1


async def test_the_migrated_schema_is_the_one_in_the_tables_module(migrated_url):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import MetaData

    wanted = MetaData()
    for table in [*metadata.tables.values(), *runtime_metadata.tables.values()]:
        table.to_metadata(wanted)
    database = Database(migrated_url)

    def differences(connection):
        options = {
            "compare_type": True,
            "include_name": lambda name, kind, _: not (kind == "table" and name.startswith("alembic_version")),
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), wanted)

    async with database.begin() as transaction:
        assert await transaction.connection.run_sync(differences) == []
    await database.close()
