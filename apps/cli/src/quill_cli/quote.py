"""``quill quote``: what a quantity of a product costs, tier by tier. Local arithmetic, no service is asked."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from quill_contracts.catalog_file import CatalogDocument, InvalidCatalogFile, ProductDocument, load_catalog
from quill_pricing.price import InvalidPrice, Price, price_from_document
from quill_pricing.quantity import QUANTITY_MAX
from quill_pricing.rating import RatedLine, Rating, rate
from rich.console import Console
from rich.table import Table
from rich.text import Text


def quote(
    product: Annotated[str, typer.Argument(help="Key of a product of the catalog, e.g. product_analytics.")],
    quantity: Annotated[
        int, typer.Argument(min=0, max=QUANTITY_MAX, help="Whole units in one billing period; 12_000_000 is fine too.")
    ],
    catalog: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="A catalog file; the example catalog if absent."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")] = False,
) -> None:
    """Say what a quantity of a product costs."""
    offered, price = _offer(_catalog(catalog), product)
    rating = rate(price=price, quantity=quantity)
    if as_json:
        print(json.dumps(quote_document(offered.key, rating), indent=2))
    else:
        Console().print(_table(offered, rating))


def quote_document(product_key: str, rating: Rating) -> dict[str, Any]:
    """The quote for machines: amounts are decimal strings in major units, under a name that says the currency.

    The ``amount`` of the lines, each rounded on its own, sums to the amount of the quote (L11).
    """
    amount_name = f"amount_{rating.currency}"
    return {
        "product": product_key,
        "quantity": rating.quantity,
        "currency": rating.currency,
        amount_name: rating.total.to_decimal_string(),
        "lines": [
            {
                "kind": line.kind,
                "tier_index": line.tier_index,
                "first_unit": line.first_unit,
                "last_unit": line.last_unit,
                "quantity": line.quantity,
                "unit_amount": line.unit_amount,
                "exact_amount": line.exact_amount,
                amount_name: line.amount.to_decimal_string(),
            }
            for line in rating.lines
        ],
    }


def _catalog(path: Path | None) -> CatalogDocument:
    try:
        return load_catalog(path)
    except InvalidCatalogFile as error:
        raise typer.BadParameter(str(error), param_hint="'--catalog'") from error


def _offer(catalog: CatalogDocument, product_key: str) -> tuple[ProductDocument, Price]:
    offered = catalog.product(product_key)
    if offered is None:
        known = ", ".join(sorted(product.key for product in catalog.products))
        raise typer.BadParameter(f"unknown product {product_key!r}; the catalog has {known}", param_hint="'product'")
    try:
        return offered, price_from_document(offered.price.model_dump())
    except InvalidPrice as error:
        raise typer.BadParameter(f"product {product_key}: price.{error}", param_hint="'--catalog'") from error


def _table(offered: ProductDocument, rating: Rating) -> Table:
    unit = offered.unit or "unit"
    table = Table(
        title=Text(f"{offered.name}: {rating.quantity:,} x {unit} in one billing period"),
        caption="each line is rounded half up to the minor unit; the total is their sum",
        show_footer=True,
    )
    table.add_column("line", footer="total")
    table.add_column("units", justify="right")
    table.add_column("quantity", justify="right")
    table.add_column("price each", justify="right")
    table.add_column("amount", justify="right", footer=f"{rating.total.to_decimal_string()} {rating.currency.upper()}")
    for line in rating.lines:
        table.add_row(
            _line_name(line), _units(line), f"{line.quantity:,}", line.unit_amount, line.amount.to_decimal_string()
        )
    return table


def _line_name(line: RatedLine) -> str:
    match line.kind:
        case "tier" if line.tier_index is not None:
            return f"tier {line.tier_index + 1}"
        case "flat_fee" if line.tier_index is not None:
            return f"tier {line.tier_index + 1} fee"
        case _:
            return line.kind


def _units(line: RatedLine) -> str:
    if line.first_unit is None or line.last_unit is None:
        return ""
    return f"{line.first_unit:,} to {line.last_unit:,}"
