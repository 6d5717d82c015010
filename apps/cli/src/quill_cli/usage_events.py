"""``quill usage events``: the meter events that were kept; and event meters in the other usage views (L4, L5)."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from quill_cli.gateway import AsJson, Connect, Token, Url, asking
from quill_cli.printing import instant, one_line, show_table


def add_to(group: typer.Typer, connect: Connect) -> None:
    """Add ``events`` to the group ``usage``."""

    @group.command("events")
    def events(
        organization: Annotated[str, typer.Argument(help="Organization id.")],
        *,
        event_type: Annotated[str | None, typer.Option("--type", help="Only events of this type.")] = None,
        start: Annotated[
            str | None, typer.Option("--from", help="First instant of their times; a month back if absent.")
        ] = None,
        end: Annotated[str | None, typer.Option("--to", help="First instant not included.")] = None,
        after: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=500, help="Events per page.")] = 100,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Show kept meter events by their times, page by page."""
        query = {"type": event_type, "from": start, "to": end, "after": after, "limit": limit}
        with asking(connect, url, token) as gateway:
            answer = gateway.get("/v1/meter-events", organization_id=organization, **query)
            answer.show(as_json=as_json, to_people=show_events)


def show_events(document: dict[str, Any]) -> None:
    """One line per event, and how to go on."""
    show_table(
        "Meter events",
        ("time", "type", "source", "id", "data", "arrived", "intake"),
        [
            (
                instant(event["time"]),
                event["type"],
                event["source"],
                event["id"],
                ", ".join(f"{name}={value}" for name, value in event["data"].items()),
                instant(event["received_at"]),
                event["intake"],
            )
            for event in document["results"]
        ],
        empty="No event was kept in this span.",
    )
    if document["next"] is not None:
        Console().print(Text(f"More: add --after {document['next']}"))


def show_event_windows(document: dict[str, Any]) -> None:
    """The hours of an event meter, each with its groups."""
    show_table(
        f"What {document['meter']} is made of ({document['event_type']}, {document['aggregation']})",
        ("hour", "group", "quantity", "events"),
        [
            (instant(window["window_start"]), group, held["quantity"], held["events"])
            for window in document["windows"]
            for group, held in (
                ("", window),
                *((_dimensions(held["dimensions"]), held) for held in window["groups"]),
            )
        ],
        numbers=("quantity", "events"),
        empty="No event counts for this meter in the period.",
    )


def show_event_explanation(document: dict[str, Any]) -> None:
    """A sentence, the hours with the events at their edges, and what waits."""
    Console().print(Text(one_line(document["sentence"])))
    show_table(
        f"What {document['meter']} is made of ({document['event_type']}, {document['aggregation']})",
        ("hour", "group", "quantity", "events", "first event", "last event"),
        [
            (
                instant(window["window_start"]),
                group,
                held["quantity"],
                held["events"],
                f"{held['first']['source']} {held['first']['id']}",
                f"{held['last']['source']} {held['last']['id']}",
            )
            for window in document["windows"]
            for group, held in (
                ("", window),
                *((_dimensions(held["dimensions"]), held) for held in window["groups"]),
            )
        ],
        numbers=("quantity", "events"),
        empty="No event counts for this meter in the period.",
    )


def _dimensions(dimensions: dict[str, str | None]) -> str:
    return ", ".join(f"{name}={'none' if value is None else value}" for name, value in dimensions.items())
