"""The catalog file and the catalog topic on one side, `Product` on the other."""

from pydantic import TypeAdapter
from quill_contracts.catalog_file import CatalogDocument, ProductDocument
from quill_contracts.meter_events import EventMeterDefinition
from quill_contracts.prices import PriceDocument
from quill_contracts.subscriptions import CatalogProduct
from quill_contracts.subscriptions import Feature as WireFeature
from quill_pricing.free_quantity import free_quantity
from quill_pricing.price import InvalidPrice, Price, price_from_document, price_to_document

from quill_subscriptions.domain.catalog import Catalog, EventMeter, Feature, Product
from quill_subscriptions.domain.standing import CURRENCY

_FEATURE = TypeAdapter(Feature)
_EVENT_METER = TypeAdapter(EventMeter)


class UnusablePrice(ValueError):
    """A price of the file has the right shape and makes no sense; the text names the product."""


def catalog_from_document(document: CatalogDocument) -> Catalog:
    """The catalog that a file proposes, every product at revision 1; `domain.catalog.adopt` gives the real revisions.

    Raises:
        UnusablePrice: naming the product and what is wrong with its price, or that its allowance is not exactly free.
    """
    return Catalog(
        version=document.version,
        effective_at=document.effective_at,
        in_force=tuple(_product_from_file(product, document) for product in document.products),
    )


def _product_from_file(file_product: ProductDocument, document: CatalogDocument) -> Product:
    product = product_from_wire(
        CatalogProduct(
            product_key=file_product.key,
            revision=1,
            effective_at=document.effective_at,
            **file_product.model_dump(exclude={"key"}),
        )
    )
    if product.price.currency != CURRENCY:
        raise UnusablePrice(f"product {product.key}: price.currency: billing limits and totals are in {CURRENCY}")
    free = free_quantity(product.price)
    if free is not None and product.allowance > free:
        raise UnusablePrice(
            f"product {product.key}: allowance: the price charges for {product.allowance:,} units, of which the first "
            f"{free:,} are exactly free; lower the allowance to {free:,}, or give a first tier up to "
            f"{product.allowance:,} the unit_amount 0"
        )
    return product


def product_from_wire(wire: CatalogProduct) -> Product:
    """A revision of a product as published and as stored.

    Raises:
        UnusablePrice: naming the product and what is wrong with its price.
    """
    try:
        price = price_from_document(wire.price.model_dump(mode="json", exclude_none=True))
    except InvalidPrice as error:
        raise UnusablePrice(f"product {wire.product_key}: price.{error}") from error
    return Product(
        key=wire.product_key,
        revision=wire.revision,
        effective_at=wire.effective_at,
        name=wire.name,
        description=wire.description,
        unit=wire.unit,
        usage_key=wire.usage_key,
        counter=wire.counter,
        price_id=wire.price_id,
        price=price,
        allowance=wire.allowance,
        features=tuple(_FEATURE.validate_python(feature.model_dump()) for feature in wire.features),
        event_meter=None if wire.event_meter is None else _EVENT_METER.validate_python(wire.event_meter.model_dump()),
        counts_from=wire.counts_from,
        free_features=tuple(_FEATURE.validate_python(feature.model_dump()) for feature in wire.free_features),
        in_trial=wire.in_trial,
    )


def product_to_wire(product: Product) -> CatalogProduct:
    """The message of ``subscriptions.catalog.v1``, which is also what the store keeps."""
    return CatalogProduct(
        product_key=product.key,
        revision=product.revision,
        effective_at=product.effective_at,
        name=product.name,
        description=product.description,
        unit=product.unit,
        usage_key=product.usage_key,
        counter=product.counter,
        price_id=product.price_id,
        price=price_document(product.price),
        allowance=product.allowance,
        features=[feature_to_wire(feature) for feature in product.features],
        event_meter=None if product.event_meter is None else _event_meter_to_wire(product.event_meter),
        counts_from=product.counts_from,
        free_features=[feature_to_wire(feature) for feature in product.free_features],
        in_trial=product.in_trial,
    )


def _event_meter_to_wire(meter: EventMeter) -> EventMeterDefinition:
    return EventMeterDefinition.model_validate(_EVENT_METER.dump_python(meter))


def feature_to_wire(feature: Feature) -> WireFeature:
    """A feature as it travels and as PostHog's client stores it."""
    return WireFeature.model_validate(_FEATURE.dump_python(feature))


def price_document(price: Price) -> PriceDocument:
    """A price as it travels, with the fields its model uses and no others."""
    return PriceDocument.model_validate(price_to_document(price))
