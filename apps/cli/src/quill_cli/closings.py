"""``quill closings``: which periods wait for a source, and which were closed by whose word (L13, L20)."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking
from quill_cli.printing import instant, show_table

CLOSINGS_MAX = 200
Limit = Annotated[int, typer.Option(min=1, max=CLOSINGS_MAX, help="At most so many.")]


def commands(connect: Connect) -> typer.Typer:
    """``closings held`` and ``closings show``."""
    group = typer.Typer(help="Periods that wait for a source, and periods that were closed.", no_args_is_help=True)

    @group.command("held")
    def held(*, limit: Limit = 50, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
        """List periods whose grace has passed and that wait for a source, the longest waiting first."""
        with asking(connect, url, token) as gateway:
            gateway.get("/v1/closings/held", limit=limit).show(as_json=as_json, to_people=show_held)

    @group.command("show")
    def show(
        organization: Annotated[str, typer.Argument(help="Organization id.")],
        *,
        limit: Limit = 12,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """List an organization's closed periods, newest first, with the waivers they were closed by."""
        with asking(connect, url, token) as gateway:
            answer = gateway.get("/v1/closings", organization_id=organization, limit=limit)
            answer.show(as_json=as_json, to_people=partial(show_closings, organization))

    return group


def show_held(document: Mapping[str, Any]) -> None:
    """One line per period and missing source."""
    results = document["results"]
    more = document["total"] - len(results)
    show_table(
        f"Periods that wait{f' ({more} more)' if more else ''}",
        ("organization", "from", "to", "waits for", "which is", "complete through", "since"),
        [
            (
                held["organization_id"],
                instant(held["period_start"]),
                instant(held["period_end"]),
                source["source"],
                source["state"],
                instant(source["complete_through"]),
                instant(held["since"]),
            )
            for held in results
            for source in held["missing"]
        ],
        whole=("organization", "waits for"),
        empty="No period waits for a source.",
    )


def show_closings(organization: str, document: Mapping[str, Any]) -> None:
    """One line a period."""
    show_table(
        f"Closed periods of {organization}",
        ("from", "to", "closed", "usage revision", "invoice", "closed without", "by"),
        [
            (
                instant(closed["period_start"]),
                instant(closed["period_end"]),
                instant(closed["closed_at"]),
                closed["usage_revision"],
                closed["invoice_id"],
                ", ".join(waiver["source"] for waiver in closed["waivers"]),
                "; ".join(f"{waiver['actor']}: {waiver['reason']}" for waiver in closed["waivers"]),
            )
            for closed in document["results"]
        ],
        numbers=("usage revision",),
        empty=f"No period of {organization} is closed yet.",
    )
