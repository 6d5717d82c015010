"""``quill updates``: which customers their region is still to hear of, and which it could not be told of."""

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Final

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking
from quill_cli.printing import instant, show_table

PAGE_MAX: Final = 500


class Which(StrEnum):
    """What to look for."""

    FAILED = "failed"
    DUE = "due"


def command(connect: Connect) -> Callable[..., None]:
    """``quill updates``."""

    def updates(
        *,
        status: Annotated[Which, typer.Option(help="What could not be sent, or what still waits.")] = Which.FAILED,
        after: Annotated[str | None, typer.Option(help="Go on after this organization id.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=PAGE_MAX)] = 100,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """List billing updates to regions' queues: those that failed, or those that are due."""
        with asking(connect, url, token) as gateway:
            answer = gateway.get("/subscriptions/v1/billing-updates", status=status.value, after=after, limit=limit)
            answer.show(as_json=as_json, to_people=partial(show_updates, status.value, limit=limit))

    return updates


def show_updates(status: str, document: dict[str, Any], *, limit: int) -> None:
    """A page of updates, one per customer."""
    found = document["results"]
    show_table(
        f"Billing updates, {status}",
        ("organization", "license", "due", "last sent", "failed", "attempts", "error"),
        [
            (
                each["organization_id"],
                each["license_id"],
                instant(each["due_at"]),
                instant(each["sent_at"]),
                instant(each["failed_at"]),
                str(each["attempts"]),
                each["error"],
            )
            for each in found
        ],
        whole=("organization",),
        empty=f"No update is {status}.",
    )
    if len(found) == limit:
        typer.echo(f"There may be more: quill updates --status {status} --after {found[-1]['organization_id']}")
