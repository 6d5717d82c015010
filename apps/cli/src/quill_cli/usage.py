"""``quill usage``: how much was used, and from which sources (L5)."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import instant, one_line, show_table
from quill_cli.usage_events import show_event_windows


def commands(connect: Connect) -> typer.Typer:
    """``usage show``."""
    group = typer.Typer(help="How much was used, and from which reports.", no_args_is_help=True)
    group.callback()(_usage)

    @group.command("show")
    def show(
        organization: Annotated[str, typer.Argument(help="Organization id.")],
        *,
        meter: Annotated[str | None, typer.Option(help="Only this meter, with its cells by day and source.")] = None,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Show the usage of an organization, newest period first."""
        with asking(connect, url, token) as gateway:
            answer = gateway.get(f"/v1/usage/{segment(organization)}", meter=meter)
            answer.show(as_json=as_json, to_people=show_usage)

    return group


def _usage() -> None:
    """How much was used, and from which reports."""


def show_usage(document: dict[str, Any]) -> None:
    """Periods and meters; with a meter, also what its number is made of."""
    organization = document["organization_id"]
    for period in document["periods"]:
        show_table(
            f"Usage of {organization}, {instant(period['period_start'])} to {instant(period['period_end'])}, "
            f"as of {instant(period['as_of'])}",
            ("meter", "complete days", "days still counting", "maximum"),
            [(key, used["complete"], used["partial"], used["maximum"]) for key, used in period["meters"].items()],
            numbers=("complete days", "days still counting", "maximum"),
            empty="No meter of the catalog was used in this period.",
        )
        Console().print(Text(one_line(period["freshness"]["sentence"])))
    if not document["periods"]:
        show_table("", (), (), empty=f"Nothing was reported for {organization} yet.")
    if "windows" in document:
        show_event_windows(document)
    if "cells" in document:
        show_table(
            f"What {document['meter']} is made of",
            ("from", "to", "source", "quantity", "completeness", "as of"),
            [
                (
                    instant(cell["window_start"]),
                    instant(cell["window_end"]),
                    cell["source"],
                    cell["quantity"],
                    cell["completeness"],
                    instant(cell["as_of"]),
                )
                for cell in document["cells"]
            ],
            numbers=("quantity",),
            empty="No source reported this meter in the newest period.",
        )
