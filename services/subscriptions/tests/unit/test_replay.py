"""Replaying the events gives the projection, always (L20, architecture 6)."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from quill_contracts.catalog_file import load_catalog
from quill_subscriptions.domain.commands import (
    AttachLicense,
    CancelSubscription,
    ChangeNeverDropData,
    ChangeQuantities,
    ChangeTrustScores,
    CustomerCommand,
    DetachLicense,
    IllegalMove,
    RegisterProjects,
    Rename,
    SetTrial,
    StartSubscription,
)
from quill_subscriptions.domain.customer import Project, RecordedEvent, SubscribedProduct, replay
from quill_subscriptions.store.memory import MemorySubscriptions
from quill_subscriptions.usecases.catalog import put_catalog_in_force
from quill_subscriptions.usecases.changes import change_customer, limits_command
from quill_subscriptions.usecases.registration import Tenant, find_or_register
from quill_subscriptions.wire.catalog import catalog_from_document

START = datetime(2026, 1, 31, 15, tzinfo=UTC)
CATALOG = catalog_from_document(load_catalog())
PRODUCTS = [product.key for product in CATALOG.in_force]
METERED = [product.key for product in CATALOG.in_force if product.is_metered]
TENANT = Tenant("org-1", None, "cloud-eu", "cloud", "license:cloud-eu")

instants = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
projects = st.lists(st.integers(1, 5), unique=True).map(lambda ids: tuple(Project(str(i), f"phc_{i}") for i in ids))
subscriptions = st.lists(st.sampled_from(PRODUCTS), min_size=1, max_size=3).map(
    lambda keys: StartSubscription("sub", tuple(SubscribedProduct(key, 1) for key in keys), "quill-rates")
)
commands = st.one_of(
    st.builds(Rename, st.text(max_size=5)),
    subscriptions,
    st.just(CancelSubscription()),
    st.dictionaries(st.sampled_from(METERED), st.sampled_from([0, 3, 7, 10, 15])).map(ChangeTrustScores),
    st.booleans().map(lambda value: ChangeNeverDropData(never_drop_data=value)),
    st.dictionaries(st.sampled_from(PRODUCTS), st.integers(0, 9), max_size=2).map(ChangeQuantities),
    projects.map(RegisterProjects),
    st.none().map(SetTrial),
    instants.map(SetTrial),
    st.sampled_from("ab").map(lambda license_id: AttachLicense(license_id, "another region")),
    st.sampled_from("ab").map(lambda license_id: DetachLicense(license_id, "closed")),
)
limits = st.tuples(st.dictionaries(st.sampled_from(METERED), st.none() | st.integers(0, 500)), st.booleans())
steps = st.lists(st.tuples(st.timedeltas(timedelta(0), timedelta(days=20)), commands | limits), max_size=12)


@given(steps)
@settings(max_examples=30, deadline=None)
async def test_replaying_the_events_gives_the_projection(
    history: Sequence[tuple[timedelta, CustomerCommand | tuple[dict[str, int | None], bool]]],
) -> None:
    store = MemorySubscriptions()
    await store.run(lambda tx: put_catalog_in_force(CATALOG, tx=tx, now=START))
    record = await store.run(lambda tx: find_or_register(TENANT, customer_id="c-1", tx=tx, now=START))
    now = START
    for wait, step in history:
        now += wait
        command = (
            limits_command(record.customer, CATALOG, step[0], reset_next_period=step[1], now=now)
            if isinstance(step, tuple)
            else step
        )
        try:
            record = await store.run(
                lambda tx, command=command, now=now: change_customer("org-1", [command], actor="anna", tx=tx, now=now)
            )
        except IllegalMove:
            continue
    events = await store.run(lambda tx: tx.history("org-1", after=0, count_max=1000))
    assert [event.version for event in events] == list(range(1, len(events) + 1))
    assert record.stream_version == len(events)
    recorded: list[RecordedEvent] = [event.recorded for event in events]
    assert replay(recorded) == record.customer
