"""On whose account a license reports (O3): the one that names it, and no other (L17, L18)."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.usecases.accounts import find_account
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.record_reports import CurrentUsage, NotYours, OrganizationUnknown, record_daily_report

NOW = datetime(2026, 10, 20, tzinfo=UTC)


@pytest.fixture
async def store(organization) -> MemoryUsage:
    """``acme`` owns ``license-1`` and names ``further``; ``globex`` owns ``license-2``."""
    acme = organization()
    acme = replace(acme, customer=replace(acme.customer, further_license_ids=("further",)))
    memory = MemoryUsage()
    async with memory.begin() as tx:
        await project_customers([acme, organization("globex", license_id="license-2")], tx=tx)
    return memory


@pytest.mark.parametrize(
    ("license_id", "named", "account"),
    [
        ("license-1", "acme", "acme"),
        ("further", "acme", "acme"),
        ("further", "its-own", "acme"),
        ("further", "globex", None),
        ("license-1", "globex", None),
        ("license-1", "its-own", None),
        ("license-2", "acme", None),
        ("nobody", "acme", None),
        ("nobody", "its-own", None),
    ],
)
async def test_a_license_acts_for_its_own_account_and_a_further_one_for_the_account_that_names_it(
    store, license_id, named, account
):
    found = await find_account(license_id=license_id, organization_id=named, tx=store)
    assert (found and found.organization_id) == account


async def test_what_instances_report_adds_up_on_the_account(store, arrived):
    async with store.begin() as tx:
        await record_daily_report(
            arrived(events=40, source="one"), license_id="license-1", is_of_region=False, tx=tx, now=NOW
        )
        further = arrived("its-own", events=2, source="two")
        answer = await record_daily_report(further, license_id="further", is_of_region=False, tx=tx, now=NOW)
    assert isinstance(answer, CurrentUsage)
    assert answer.organization.organization_id == "acme"
    assert answer.usage is not None
    assert answer.usage.counters["events"].to_date == 42
    async with store.begin() as tx:
        *_, newest = await tx.kept_reports("acme", window_start=None, after_id=0, limit=10)
    assert newest.note == {"named_organization_id": "its-own"}


async def test_a_license_that_was_let_go_reports_no_more(store, arrived, organization):
    async with store.begin() as tx:
        await project_customers([organization(revision=2)], tx=tx)
        reporting = {"license_id": "further", "is_of_region": False, "tx": tx, "now": NOW}
        with pytest.raises(NotYours):
            await record_daily_report(arrived("acme", events=2), **reporting)
        with pytest.raises(OrganizationUnknown):  # kept like that of a license no account ever named; nothing enters
            await record_daily_report(arrived("its-own", events=2), **reporting)
