"""``quill usage series``: one meter over time, whole, by source or by team."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import show_table


class Interval(StrEnum):
    """How much one line covers."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def add_to(group: typer.Typer, connect: Connect) -> None:
    """Add ``series`` to the group ``usage``."""

    @group.command("series")
    def series(
        organization: Annotated[str, typer.Argument(help="Organization id.")],
        meter: Annotated[str, typer.Argument(help="Usage key, for example events.")],
        *,
        start: Annotated[
            str | None, typer.Option("--from", help="First day, UTC; that of the billing period if absent.")
        ] = None,
        end: Annotated[
            str | None, typer.Option("--to", help="First day not included, UTC; tomorrow if absent.")
        ] = None,
        interval: Annotated[Interval, typer.Option(help="How much one line covers.")] = Interval.DAY,
        by: Annotated[
            str | None, typer.Option(help="team, source, or a dimension of a meter that events feed.")
        ] = None,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Show what was used of a meter over time."""
        query = {"meter": meter, "from": start, "to": end, "interval": interval.value, "by": by}
        with asking(connect, url, token) as gateway:
            answer = gateway.get(f"/v1/usage/{segment(organization)}", **query)
            answer.show(as_json=as_json, to_people=show_series)


def show_series(document: dict[str, Any]) -> None:
    """One line per interval and team or source; what is still counted is marked."""
    found = document["series"]
    by = found["by"]
    lines = [
        (
            point["start"],
            *([line["key"]] if by else []),
            point["quantity"],
            "still counting" if point["is_partial"] else "complete",
        )
        for line in found["series"]
        for point in line["points"]
    ]
    show_table(
        f"{document['meter']} of {document['organization_id']}, {found['from']} up to {found['to']}",
        (found["interval"], *([by] if by else []), "quantity", "completeness"),
        lines,
        numbers=("quantity",),
        empty="Nothing was reported in these days.",
    )
