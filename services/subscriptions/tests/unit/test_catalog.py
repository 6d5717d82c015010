"""Which catalog may come into force, and which products change by it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from quill_contracts.catalog_file import CatalogDocument, load_catalog
from quill_pricing.price import Price, price_from_document
from quill_pricing.rating import amount_minor
from quill_subscriptions.domain.catalog import Catalog, CatalogRefused, EventMeter, Product, adopt
from quill_subscriptions.jobs import CatalogFile, CatalogNotInForce
from quill_subscriptions.store.memory import MemorySubscriptions
from quill_subscriptions.wire.catalog import UnusablePrice, catalog_from_document, product_from_wire, product_to_wire

NOW = datetime(2026, 3, 17, tzinfo=UTC)


def per_unit(amount: str) -> Price:
    return price_from_document({"model": "per_unit", "unit_amount": amount})


def product(key: str, price_id: str | None = None, amount: str = "0.1", **changes: object) -> Product:
    base = Product(
        key=key,
        revision=1,
        effective_at=NOW,
        name=key,
        description="",
        unit=None,
        usage_key=f"{key}_used",
        counter=f"{key}_count",
        price_id=price_id or f"{key}-1",
        price=per_unit(amount),
        allowance=0,
        features=(),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def catalog(version: int, *products: Product, effective_at: datetime = NOW) -> Catalog:
    return Catalog(version, effective_at, products)


A, B = product("a"), product("b")
FIRST = catalog(1, A, B)


def test_the_first_catalog_is_all_new() -> None:
    assert adopt(None, FIRST, now=NOW) == (FIRST, (A, B))


def test_only_what_changed_gets_another_revision() -> None:
    dearer = product("a", "a-2", "0.2", effective_at=NOW + timedelta(days=1))
    after, changed = adopt(FIRST, catalog(2, B, dearer), now=NOW)
    assert changed == (replace(dearer, revision=2),)
    assert after.in_force == (B, replace(dearer, revision=2))
    assert after.revision("a", 1) == A, "subscriptions hold on to the earlier revision"
    assert after.revision("a", 2).price == dearer.price
    with pytest.raises(LookupError):
        after.revision("a", 3)


def test_going_back_to_an_earlier_price_is_a_new_revision() -> None:
    second, _ = adopt(FIRST, catalog(2, product("a", "a-2", "0.2"), B), now=NOW)
    third, changed = adopt(second, catalog(3, A, B), now=NOW)
    assert [p.revision for p in changed] == [3]
    assert third.revision("a", 2).price_id == "a-2"


def test_a_new_product_starts_at_revision_one() -> None:
    _, changed = adopt(FIRST, catalog(2, A, B, product("c")), now=NOW)
    assert [(p.key, p.revision) for p in changed] == [("c", 1)]


def test_the_same_catalog_again_changes_nothing() -> None:
    assert adopt(FIRST, FIRST, now=NOW) == (FIRST, ())


@pytest.mark.parametrize(
    ("proposed", "reason"),
    [
        (catalog(2, A), "product b is in force and missing"),
        (catalog(2, product("a", amount="0.2"), B), "price_id a-1 was published with another price"),
        (catalog(2, A, product("b", "a-1")), "price_id a-1"),
        (catalog(1, product("a", name="Other"), B), "raise the version"),
        (catalog(2, A, B, effective_at=NOW + timedelta(seconds=1)), "takes effect at"),
    ],
)
def test_a_catalog_that_would_break_customers_is_refused(proposed: Catalog, reason: str) -> None:
    with pytest.raises(CatalogRefused, match=reason):
        adopt(FIRST, proposed, now=NOW)


def test_an_older_file_does_not_turn_the_catalog_back() -> None:
    second, _ = adopt(FIRST, catalog(2, product("a", "a-2", "0.2"), B), now=NOW)
    with pytest.raises(CatalogRefused, match="older"):
        adopt(second, FIRST, now=NOW)


@pytest.mark.parametrize(("name", "key"), [("a", "a"), ("a_used", "a"), ("seats", None), ("nothing", None)])
def test_a_meter_is_named_by_product_key_or_usage_key(name: str, key: str | None) -> None:
    seats = product("seats", usage_key=None, counter=None)
    found = catalog(1, A, seats).metered(name)
    assert (found.key if found else None) == key


def test_the_example_catalog_is_what_posthog_published() -> None:
    loaded = catalog_from_document(load_catalog())
    analytics = loaded.product("product_analytics")
    assert analytics is not None
    assert amount_minor(analytics.price, 12_000_000) == 39_300


def test_every_product_survives_its_wire_form() -> None:
    for loaded in catalog_from_document(load_catalog()).in_force:
        assert product_from_wire(product_to_wire(loaded)) == loaded


def test_another_way_of_counting_is_another_revision() -> None:
    gateway = replace(product("gateway", counter=None), event_meter=EventMeter("call", "sum", "seconds", ("model",), 3))
    assert product_from_wire(product_to_wire(gateway)) == gateway
    dated = replace(gateway, counts_from=NOW)
    assert product_from_wire(product_to_wire(dated)) == dated
    _, raised = adopt(catalog(1, gateway), catalog(2, dated), now=NOW)
    assert [(held.revision, held.counts_from) for held in raised] == [(2, NOW)]


@pytest.mark.parametrize(
    ("price", "allowance", "reason"),
    [
        ({"model": "per_unit", "unit_amount": "0.1", "currency": "eur"}, 0, "currency"),
        ({"model": "per_unit", "unit_amount": "0.1"}, 100, "allowance"),
        ({"model": "flat"}, 0, "amount"),
        ({"model": "graduated", "tiers": [{"up_to": 5, "unit_amount": "1"}]}, 0, "tiers"),
    ],
)
def test_a_price_that_cannot_be_billed_is_refused_with_its_product(
    price: dict[str, object], allowance: int, reason: str
) -> None:
    document = CatalogDocument.model_validate(
        {
            "version": 1,
            "effective_at": NOW,
            "products": [{"key": "x", "name": "X", "price_id": "x-1", "allowance": allowance, "price": price}],
        }
    )
    with pytest.raises(UnusablePrice, match=f"product x: .*{reason}"):
        catalog_from_document(document)


FREE_500_THEN_ONE_CENT = [{"up_to": 500, "unit_amount": "0"}, {"unit_amount": "0.01"}]


def one_product(price: dict[str, object], allowance: int) -> CatalogDocument:
    product = {"key": "x", "name": "X", "price_id": "x-1", "usage_key": "x", "counter": "x", "allowance": allowance}
    return CatalogDocument.model_validate(
        {"version": 1, "effective_at": NOW, "products": [{**product, "price": price}]}
    )


@pytest.mark.parametrize(
    ("price", "allowance", "free"),
    [
        ({"model": "per_unit", "unit_amount": "0.00001"}, 499, 0),  # rounds to $0.00 alone, charged with the 500th
        ({"model": "per_unit", "unit_amount": "0.00001"}, 1, 0),
        ({"model": "graduated", "tiers": FREE_500_THEN_ONE_CENT}, 501, 500),
        ({"model": "volume", "tiers": FREE_500_THEN_ONE_CENT}, 501, 500),
        ({"model": "graduated", "tiers": [{"up_to": 500, "unit_amount": "0"}, {"unit_amount": "0.000001"}]}, 501, 500),
        ({"model": "package", "package_size": 1_000, "package_amount": "10.00"}, 1_000, 0),
    ],
)
def test_an_allowance_that_is_not_exactly_free_is_refused(price: dict[str, object], allowance: int, free: int) -> None:
    """K17: what only rounds to nothing is charged later."""
    with pytest.raises(UnusablePrice, match=f"product x: allowance: .*lower the allowance to {free},"):
        catalog_from_document(one_product(price, allowance))


@pytest.mark.parametrize(
    "price",
    [
        {"model": "graduated", "tiers": FREE_500_THEN_ONE_CENT},
        {"model": "volume", "tiers": FREE_500_THEN_ONE_CENT},
        {"model": "per_unit", "unit_amount": "0"},
        # A base fee is owed without usage: it is not the price of the 500 units that it includes.
        {"model": "graduated", "tiers": [{"up_to": 500, "flat_amount": "49.00"}, {"unit_amount": "0.01"}]},
        {"model": "flat", "amount": "49.00"},
    ],
)
def test_an_allowance_of_exactly_free_units_comes_into_force(price: dict[str, object]) -> None:
    assert catalog_from_document(one_product(price, 500)).in_force[0].allowance == 500


def test_one_counter_may_feed_several_meters() -> None:
    """K16: each meter has its own product, allowance and price (D7)."""
    price = {"model": "per_unit", "unit_amount": "0.01"}
    products = [
        {"key": key, "name": key, "price_id": f"{key}-1", "usage_key": key, "counter": "event_count", "price": price}
        for key in ("events", "events_archive")
    ]
    loaded = catalog_from_document(
        CatalogDocument.model_validate({"version": 1, "effective_at": NOW, "products": products})
    )
    assert [(held.usage_key, held.counter) for held in loaded.in_force] == [
        ("events", "event_count"),
        ("events_archive", "event_count"),
    ]


class TestTheFile:
    @pytest.fixture
    def store(self) -> MemorySubscriptions:
        return MemorySubscriptions()

    async def test_a_good_file_comes_into_force(self, store: MemorySubscriptions, clock: object) -> None:
        file = CatalogFile(None, store, clock)  # type: ignore[arg-type]
        await file.start()
        await file.check()
        assert len(store.contents.published) == 11

    @pytest.mark.parametrize(
        ("content", "reason"),
        [(None, "no such file"), ("version = ", "not TOML"), ("version = 1", "effective_at")],
    )
    async def test_a_bad_file_does_not_stop_the_start_and_says_why(
        self, store: MemorySubscriptions, clock: object, tmp_path: Path, content: str | None, reason: str
    ) -> None:
        path = tmp_path / "catalog.toml"
        if content is not None:
            path.write_text(content, "utf-8")
        await CatalogFile(None, store, clock).start()  # type: ignore[arg-type]
        file = CatalogFile(path, store, clock)  # type: ignore[arg-type]
        await file.start()
        with pytest.raises(CatalogNotInForce, match=reason):
            await file.check()
        in_force = await store.run(lambda tx: tx.catalog())
        assert in_force is not None
        assert in_force.version == 1
