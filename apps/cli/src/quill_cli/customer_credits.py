"""``quill credits``: what customers are owed, also those who left (L13)."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking
from quill_cli.printing import instant, show_table

CREDITS_MAX = 200
Limit = Annotated[int, typer.Option(min=1, max=CREDITS_MAX, help="At most so many.")]


def commands(connect: Connect) -> typer.Typer:
    """``credits list`` and ``credits show``."""
    group = typer.Typer(help="What customers are owed, also those who left.", no_args_is_help=True)

    @group.command("list")
    def list_(
        *,
        organization: Annotated[str | None, typer.Option(help="Only this organization.")] = None,
        after: Annotated[str | None, typer.Option(help="Continue a list: its `next_after`.")] = None,
        limit: Limit = 50,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """List customers with a balance, by organization."""
        with asking(connect, url, token) as gateway:
            answer = gateway.get("/v1/credits", organization_id=organization, after=after, limit=limit)
            answer.show(as_json=as_json, to_people=show_balances)

    @group.command("show")
    def show(
        organization: Annotated[str, typer.Argument(help="Organization id.")],
        *,
        limit: Limit = 50,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """List what made an organization's balance, newest first."""
        with asking(connect, url, token) as gateway:
            answer = gateway.get("/v1/credits/entries", organization_id=organization, limit=limit)
            answer.show(as_json=as_json, to_people=partial(show_entries, organization))

    return group


def show_balances(document: Mapping[str, Any]) -> None:
    """One line per customer and currency."""
    show_table(
        "Credit balances",
        ("organization", "name", "owed", "currency", "subscribed"),
        [
            (
                balance["organization_id"],
                balance["organization_name"],
                balance["balance"],
                balance["currency"].upper(),
                balance["is_subscribed"],
            )
            for balance in document["results"]
        ],
        numbers=("owed",),
        whole=("organization",),
        empty="Nobody is owed anything.",
    )
    if document["next_after"] is not None:
        typer.echo(f"More: --after {document['next_after']}")


def show_entries(organization: str, document: Mapping[str, Any]) -> None:
    """One line per entry."""
    show_table(
        f"Credit of {organization}",
        ("recorded", "kind", "amount", "currency", "invoice"),
        [
            (
                instant(entry["recorded_at"]),
                entry["kind"],
                entry["amount"],
                entry["currency"].upper(),
                entry["invoice_id"],
            )
            for entry in document["results"]
        ],
        numbers=("amount",),
        whole=("invoice",),
        empty=f"No credit was ever kept for {organization}.",
    )
