"""``quill limits``: why a meter is limited, or is not."""

from datetime import datetime
from typing import Annotated, Any

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import instant, show_facts


def commands(connect: Connect) -> typer.Typer:
    """``limits`` with ``explain``."""
    group = typer.Typer(help="Why a meter is limited, or is not; and by which rules.", no_args_is_help=True)
    group.callback()(_limits)

    @group.command("explain")
    def explain(
        organization: Annotated[str, typer.Argument(help="Organization id.")],
        meter: Annotated[str, typer.Argument(help="Meter, e.g. events.")],
        *,
        at: Annotated[
            str | None, typer.Option(help="An instant with its offset, e.g. 2026-10-01T00:00:00Z; now if absent.")
        ] = None,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Say in which state a meter is, or was at an instant, and every input of that decision (L7)."""
        moment = None if at is None else _aware(at).isoformat()
        with asking(connect, url, token) as gateway:
            answer = gateway.get(f"/v1/limits/{segment(organization)}/explain", meter=meter, at=moment)
            answer.show(as_json=as_json, to_people=show_explanation)

    return group


def _limits() -> None:
    """Why a meter is limited, or is not."""


def show_explanation(document: dict[str, Any]) -> None:
    """The state, the sentence, and the evidence."""
    show_facts(
        f"{document['usage_key']} of {document['organization_id']} at {instant(document['at'])}",
        [
            ("state", document["state"]),
            ("why", document["sentence"]),
            ("since", instant(document["since"])),
            ("limited until", instant(document["limited_until"])),
            ("suspended until", instant(document["suspended_until"])),
            ("rule", f"{document['rule']}, version {document['rule_version']}"),
            ("rule since", instant(document["rule_since"])),
            ("transition", f"number {document['transition']['sequence']} of this meter"),
        ],
    )
    show_facts(
        "Decided from",
        [(name.replace("_", " "), value) for name, value in document["evidence"].items()],
    )
    show_facts("Read on", [(name.replace("_", " "), path) for name, path in document.get("links", {}).items()])


def _aware(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"--at: {text!r} is not an instant like 2026-10-01T00:00:00Z") from error
    if moment.tzinfo is None:
        raise typer.BadParameter(f"--at: {text!r} needs its offset, e.g. {text}Z for UTC")
    return moment
