"""``quill subscriptions``: change what a customer pays for."""

from typing import Annotated, Any

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import show_table


def commands(connect: Connect) -> typer.Typer:
    """The group ``subscriptions``."""
    group = typer.Typer(help="What customers pay for.", no_args_is_help=True)

    @group.command("set-quantities")
    def set_quantities(
        organization: Annotated[str, typer.Argument(help="Organization id.")],
        quantities: Annotated[list[str], typer.Argument(metavar="PRODUCT=QUANTITY...", help="For example seats=30.")],
        *,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Hold other licensed quantities (seats) from now on; the rest of the billing period is prorated."""
        asked = dict(_quantity(each) for each in quantities)
        if len(asked) != len(quantities):
            raise typer.BadParameter("name each product once", param_hint="PRODUCT=QUANTITY")
        with asking(connect, url, token) as gateway:
            path = f"/v1/customers/{segment(organization)}/subscription/quantities"
            gateway.post(path, {"quantities": asked}).show(as_json=as_json, to_people=show_licensed)

    return group


def show_licensed(document: dict[str, Any]) -> None:
    """The licensed products that the customer holds now."""
    show_table(
        f"Licensed products of {document['organization_id']}",
        ("product", "quantity", "price"),
        [
            (item["product_key"], item["quantity"], item["price_id"])
            for item in document["items"]
            if item["subscribed"] and item["quantity"] is not None
        ],
        numbers=("quantity",),
        empty="No licensed product is held.",
    )


def _quantity(text: str) -> tuple[str, int]:
    product, _, quantity = text.partition("=")
    if not product or not quantity.isascii() or not quantity.isdigit() or int(quantity) < 1:
        raise typer.BadParameter(
            f"{text!r} is not a product and a quantity of one or more, such as seats=30", param_hint="PRODUCT=QUANTITY"
        )
    return product, int(quantity)
