"""The reviewed catalog file: products and prices as TOML, kept in version control and loaded by `subscriptions`."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from quill_contracts.identifiers import CounterName, Instant, ProductKey, Quantity, UsageKey
from quill_contracts.meter_events import EventMeterDefinition
from quill_contracts.prices import PriceDocument, TierDocument
from quill_contracts.subscriptions import Feature

EXAMPLE_CATALOG = "posthog_2025.toml"


class InvalidCatalogFile(ValueError):
    """The file cannot be read as a catalog; the text names each field and what is wrong with it."""


class EventMeterDocument(EventMeterDefinition):
    """How events feed a meter, as the file says it: a member nobody knows is a mistake here."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileTier(TierDocument):
    """A tier, as the file says it: a member nobody knows is a mistake here."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FilePrice(PriceDocument):
    """A price, as the file says it: a member nobody knows is a mistake here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiers: Annotated[list[FileTier], Field(max_length=50)] | None = None  # type: ignore[assignment]


class ProductDocument(BaseModel):
    """One product of the file.

    ``features`` come with a subscription, ``free_features`` everybody has. A free trial includes the product unless
    ``in_trial`` is false: an enterprise plan, or a meter whose every unit costs money.
    A meter is a ``usage_key`` with what feeds it: a ``counter`` of reports or an ``event_meter``. ``counts_from`` is
    the instant from which windows count for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: ProductKey
    name: str
    description: str = ""
    unit: str | None = None
    usage_key: UsageKey | None = None
    counter: CounterName | None = None
    event_meter: EventMeterDocument | None = None
    counts_from: Instant | None = None
    price_id: str
    allowance: Quantity = 0
    features: list[Feature] = []
    free_features: list[Feature] = []
    in_trial: bool = True
    price: FilePrice

    @model_validator(mode="after")
    def _meter_is_whole(self) -> Self:
        if self.counter is not None and self.event_meter is not None:
            raise ValueError("counter and event_meter: a meter is fed by one of them; remove the other")
        if (self.usage_key is None) != (self.counter is None and self.event_meter is None):
            raise ValueError("usage_key and counter (or event_meter) must be given together, or neither")
        if self.counts_from is not None and self.usage_key is None:
            raise ValueError(
                "counts_from: says from when a meter counts; give usage_key and what feeds it, or remove it"
            )
        if self.usage_key is not None and self.price.model != "flat" and not self.price.prorated:
            raise ValueError("price.prorated: a metered quantity is never prorated; remove it, or remove usage_key")
        return self


class CatalogDocument(BaseModel):
    """A version of the catalog.

    No two products share a key, a usage key or a price id: a meter belongs to one product, so nothing is billed twice
    for it. Several products may name one counter. It feeds the meter of each, and each is billed by its own price.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Annotated[int, Field(ge=1)]
    effective_at: Instant
    products: Annotated[list[ProductDocument], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for attribute in ("key", "usage_key", "price_id"):
            seen: dict[str, str] = {}
            for product in self.products:
                value = getattr(product, attribute)
                if value is None:
                    continue
                if value in seen:
                    raise ValueError(f"{attribute} {value!r} is used by both {seen[value]!r} and {product.key!r}")
                seen[value] = product.key
        return self

    @model_validator(mode="after")
    def _free_plan_has_a_feature(self) -> Self:
        if any(product.features for product in self.products) and not any(p.free_features for p in self.products):
            raise ValueError(
                "free_features: give one product at least one; PostHog ignores an empty list of features, so whoever "
                "cancels or ends a trial would keep the paid ones"
            )
        return self

    def product(self, key: str) -> ProductDocument | None:
        return next((product for product in self.products if product.key == key), None)


def load_catalog(path: Path | None = None) -> CatalogDocument:
    """Read a catalog file, or the packaged example (PostHog's public prices of 2025) when no path is given.

    Raises:
        InvalidCatalogFile: naming the file, the field and the fix.
    """
    source = files("quill_contracts") / "catalogs" / EXAMPLE_CATALOG if path is None else path
    try:
        return CatalogDocument.model_validate(tomllib.loads(source.read_text("utf-8")))
    except FileNotFoundError as error:
        raise InvalidCatalogFile(f"{path}: no such file; give the path of a catalog in TOML") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidCatalogFile(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'catalog'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise InvalidCatalogFile(f"{path or EXAMPLE_CATALOG}: {problems}") from error
