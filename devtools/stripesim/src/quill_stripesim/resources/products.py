"""Products: what a price is for."""

from stripe.params import (
    ProductCreateParams,
    ProductDeleteParams,
    ProductListParams,
    ProductRetrieveParams,
    ProductSearchParams,
    ProductUpdateParams,
)

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.engine.announcing import announce
from quill_stripesim.listing import newest_first, page, search
from quill_stripesim.resources.customers import merged_metadata
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource

_OWN = ("active", "description", "name", "statement_descriptor", "unit_label", "url")
_FIELDS = honours(*_OWN, "metadata")


def create(call: Call) -> Resource:
    """Creates a product, under an id of the caller's choice if it gives one."""
    identifier = call.params.get("id") or call.world.new_id("prod")
    if call.world.get("product", identifier) is not None:
        raise StripeError(f"Product already exists: {identifier}", code="resource_already_exists", param="id")
    product = call.world.put(
        {
            "id": identifier,
            "object": "product",
            "active": True,
            "created": call.now,
            "default_price": None,
            "description": None,
            "images": [],
            "livemode": False,
            "marketing_features": [],
            "package_dimensions": None,
            "shippable": None,
            "statement_descriptor": None,
            "tax_code": None,
            "type": "service",
            "unit_label": None,
            "updated": call.now,
            "url": None,
            **{name: call.params[name] for name in _OWN if name in call.params},
            "metadata": call.params.get("metadata", {}),
        }
    )
    announce(call.world, "product.created", product, at=call.now)
    return product


def update(call: Call) -> Resource:
    """Changes a product."""
    before = call.world.require("product", call.ids["id"])
    after = call.world.put(
        {
            **before,
            **{name: call.params[name] for name in _OWN if name in call.params},
            "metadata": merged_metadata(before["metadata"], call.params.get("metadata", {})),
            "updated": call.now,
        }
    )
    previous = {name: before[name] for name in call.params if before.get(name) != after.get(name)}
    announce(call.world, "product.updated", after, at=call.now, previous=previous)
    return after


def retrieve(call: Call) -> Resource:
    """Returns a product."""
    return call.world.require("product", call.ids["id"])


def delete(call: Call) -> Resource:
    """Removes a product that no price uses."""
    product = call.world.require("product", call.ids["id"])
    if call.world.where("price", "product", product["id"]):
        raise StripeError("This product cannot be deleted because it has one or more user-created prices.")
    call.world.remove("product", product["id"])
    announce(call.world, "product.deleted", product, at=call.now)
    return {"id": product["id"], "object": "product", "deleted": True}


def list_(call: Call) -> Resource:
    """Lists products, newest first."""
    wanted_ids, active = call.params.get("ids"), call.params.get("active")
    found = [
        each
        for each in newest_first(call.world.all("product"))
        if (wanted_ids is None or each["id"] in wanted_ids) and active in {None, each["active"]}
    ]
    return page(found, call.params, url=call.path)


def search_(call: Call) -> Resource:
    """Searches products by metadata or name."""
    return search(call.world.all("product"), call.params, url=call.path)


ROUTES = [
    Route("POST", "/v1/products", create, ProductCreateParams, _FIELDS | honours("id", "type")),
    Route("GET", "/v1/products", list_, ProductListParams, LISTING | honours("ids", "active")),
    Route("GET", "/v1/products/search", search_, ProductSearchParams, honours("query", "limit", "page")),
    Route("GET", "/v1/products/{id}", retrieve, ProductRetrieveParams),
    Route("POST", "/v1/products/{id}", update, ProductUpdateParams, _FIELDS),
    Route("DELETE", "/v1/products/{id}", delete, ProductDeleteParams),
]
