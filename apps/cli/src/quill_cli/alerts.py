"""``quill alerts``: what an operator must know of Stripe, until a named person resolves it (L20)."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import instant, show_table

ALERTS_MAX = 200


def commands(connect: Connect) -> typer.Typer:
    """``alerts list`` and ``alerts resolve``."""
    group = typer.Typer(help="What an operator must know of Stripe.", no_args_is_help=True)

    @group.command("list")
    def list_(
        *,
        include_resolved: Annotated[bool, typer.Option(help="Also those that somebody resolved.")] = False,
        limit: Annotated[int, typer.Option(min=1, max=ALERTS_MAX, help="At most so many.")] = 50,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """List alerts, the newest seen first."""
        with asking(connect, url, token) as gateway:
            wanted = "true" if include_resolved else None
            answer = gateway.get("/v1/alerts", include_resolved=wanted, limit=limit)
            answer.show(as_json=as_json, to_people=show_alerts)

    @group.command("resolve")
    def resolve(
        alert_id: Annotated[str, typer.Argument(help="Id from `alerts list`.")],
        *,
        actor: Annotated[str, typer.Option(help="Who resolves it.")],
        reason: Annotated[str, typer.Option(help="Why it needs nobody any more.")],
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Close an alert; it opens again when it is noticed again."""
        with asking(connect, url, token) as gateway:
            answer = gateway.post(f"/v1/alerts/{segment(alert_id)}/resolve", {"actor": actor, "reason": reason})
            answer.show(as_json=as_json, to_people=show_alerts)

    return group


def show_alerts(document: Mapping[str, Any]) -> None:
    """One line per alert; a single one is shown likewise."""
    show_table(
        "Alerts",
        ("alert", "times", "last seen", "detail", "resolved by"),
        [
            (each["alert_id"], each["count"], instant(each["last_seen_at"]), each["detail"], each["resolved_by"])
            for each in document.get("results", [document])
        ],
        numbers=("times",),
        whole=("alert",),
        empty="No alert is open.",
    )
