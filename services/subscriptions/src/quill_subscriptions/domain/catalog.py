"""The catalog: products with the price of each of their revisions, and the rules for putting a new file in force."""

from dataclasses import dataclass, replace
from datetime import datetime

from quill_pricing.price import FlatPrice, Price


@dataclass(frozen=True, slots=True)
class Feature:
    """Something a customer may use; ``limit`` None means without a number."""

    key: str
    name: str
    description: str = ""
    unit: str | None = None
    limit: int | None = None
    note: str | None = None
    is_plan_default: bool = True


@dataclass(frozen=True, slots=True)
class EventMeter:
    """The events that feed a meter instead of a counter, as the catalog file says it; usage-ingest counts them."""

    type: str
    aggregation: str
    value: str | None
    group_by: tuple[str, ...]
    decimals: int
    carried: bool = False


@dataclass(frozen=True, slots=True)
class Product:
    """One revision of a product. A revision never changes; another price or allowance makes another revision."""

    key: str
    revision: int
    effective_at: datetime
    name: str
    description: str
    unit: str | None
    usage_key: str | None
    counter: str | None
    price_id: str
    price: Price
    allowance: int
    features: tuple[Feature, ...]
    event_meter: EventMeter | None = None
    counts_from: datetime | None = None
    """Windows that start earlier do not count for its meter; None: all that was ever received counts."""
    free_features: tuple[Feature, ...] = ()
    """What everybody has of the product, subscribed or not."""
    in_trial: bool = True
    """A free trial includes the product: its features are on, and its meter has no quota without a subscription."""

    @property
    def is_metered(self) -> bool:
        return self.usage_key is not None

    @property
    def is_billed_by_usage(self) -> bool:
        """Whether usage decides what it costs. A flat price costs the same for any usage, also with a meter."""
        return self.is_metered and not isinstance(self.price, FlatPrice)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Products in force, in the order of the file, and every earlier revision that a subscription may hold."""

    version: int
    effective_at: datetime
    in_force: tuple[Product, ...]
    earlier: tuple[Product, ...] = ()

    def product(self, key: str) -> Product | None:
        """The product in force with this key."""
        return next((product for product in self.in_force if product.key == key), None)

    def revision(self, key: str, revision: int) -> Product:
        """A revision that a subscription holds.

        Raises:
            LookupError: it was never stored; the history and the catalog do not belong together.
        """
        for product in (*self.in_force, *self.earlier):
            if product.key == key and product.revision == revision:
                return product
        raise LookupError(f"product {key} has no revision {revision}")

    def metered(self, name: str) -> Product | None:
        """The product with a meter that ``name`` means: PostHog's page says the product key or the usage key."""
        by_key = self.product(name)
        if by_key is not None:
            return by_key if by_key.is_metered else None
        return next((product for product in self.in_force if product.usage_key == name), None)


class CatalogRefused(ValueError):
    """The proposed catalog must not come into force; the one in force stays."""


def adopt(current: Catalog | None, proposed: Catalog, *, now: datetime) -> tuple[Catalog, tuple[Product, ...]]:
    """The catalog after putting ``proposed`` in force, and the products whose revision rose.

    A product's revision rises only when its content changed, so that readers see no change where there is none.

    Raises:
        CatalogRefused: naming the product and the fix.
    """
    if proposed.effective_at > now:
        raise CatalogRefused(f"version {proposed.version} takes effect at {proposed.effective_at.isoformat()}")
    if current is None:
        return proposed, proposed.in_force
    if proposed.version < current.version:
        raise CatalogRefused(f"version {proposed.version} is older than version {current.version}, which is in force")
    _check_continuity(current, proposed)
    products: list[Product] = []
    changed: list[Product] = []
    replaced: list[Product] = []
    for product in proposed.in_force:
        before = current.product(product.key)
        if before is not None and _same_content(before, product):
            products.append(before)
            continue
        after = replace(product, revision=1 if before is None else before.revision + 1)
        products.append(after)
        changed.append(after)
        if before is not None:
            replaced.append(before)
    if changed and proposed.version == current.version:
        names = ", ".join(product.key for product in changed)
        raise CatalogRefused(f"version {proposed.version} is in force with other content ({names}); raise the version")
    after_adoption = Catalog(proposed.version, proposed.effective_at, tuple(products), (*current.earlier, *replaced))
    return after_adoption, tuple(changed)


def _check_continuity(current: Catalog, proposed: Catalog) -> None:
    """Customers hold these products and prices: none may vanish, and a price id means one price for ever."""
    for product in current.in_force:
        if proposed.product(product.key) is None:
            raise CatalogRefused(f"product {product.key} is in force and missing from version {proposed.version}")
    published: dict[str, Product] = {product.price_id: product for product in (*current.in_force, *current.earlier)}
    for product in proposed.in_force:
        before = published.get(product.price_id)
        if before is not None and (before.key != product.key or before.price != product.price):
            raise CatalogRefused(
                f"product {product.key}: price_id {product.price_id} was published with another price; "
                "give the new price a new price_id"
            )


def _same_content(before: Product, after: Product) -> bool:
    return replace(after, revision=before.revision, effective_at=before.effective_at) == before
