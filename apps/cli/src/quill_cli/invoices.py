"""``quill invoices``: what an organization owes, line by line."""

from functools import partial
from typing import Annotated, Any

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking
from quill_cli.printing import instant, show_table

INVOICES_MAX = 200


def commands(connect: Connect) -> typer.Typer:
    """``invoices show``."""
    group = typer.Typer(help="What an organization owes, line by line.", no_args_is_help=True)
    group.callback()(_invoices)

    @group.command("show")
    def show(
        organization: Annotated[str, typer.Argument(help="Organization id.")],
        *,
        limit: Annotated[int, typer.Option(min=1, max=INVOICES_MAX, help="At most so many, newest first.")] = 12,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Show the invoices of an organization with every line."""
        with asking(connect, url, token) as gateway:
            answer = gateway.get("/v1/invoices", organization_id=organization, limit=limit)
            answer.show(as_json=as_json, to_people=partial(show_invoices, organization))

    return group


def _invoices() -> None:
    """What an organization owes, line by line."""


def show_invoices(organization: str, document: dict[str, Any]) -> None:
    """One table per invoice; the last row is the total, which is the sum of the lines (L11)."""
    for invoice in document["results"]:
        lines = [
            (line["description"], line["quantity"], line["unit_amount"], line["amount"]) for line in invoice["lines"]
        ]
        total = f"{invoice['total']} {invoice['currency'].upper()}"
        show_table(
            f"Invoice {invoice['number']} ({invoice['status']}), {instant(invoice['period_start'])} to "
            f"{instant(invoice['period_end'])}; compared with Stripe's: {invoice['reconciliation']}",
            ("line", "quantity", "price each", "amount"),
            [*lines, ("total", "", "", total)],
            numbers=("quantity", "price each", "amount"),
            empty="",
        )
    if not document["results"]:
        show_table("", (), (), empty=f"No invoice for {organization} yet; one is made when its billing period closes.")
