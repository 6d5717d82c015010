"""``quill usage correct``: void reports or events, replace windows, revert; each with a preview (L3, L20)."""

import json
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer
from quill_pricing.money import Money

from quill_cli.gateway import AsJson, Connect, Gateway, Token, Url, asking, segment
from quill_cli.printing import instant, show_table

Organization = Annotated[str, typer.Argument(help="Organization id.")]
Actor = Annotated[str, typer.Option(help="Who you are, e.g. your mail address.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the correction.")]
CorrectionId = Annotated[
    str | None, typer.Option("--id", help="Id of the correction; the same id and content is a repeat.")
]
PreviewOnly = Annotated[bool, typer.Option("--preview", help="Only say what it would change.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def add_to(group: typer.Typer, connect: Connect) -> None:
    """Add ``usage correct`` with its commands."""
    correct = typer.Typer(help="Void reports and events, replace windows, take corrections back.", no_args_is_help=True)
    _add_void(correct, connect)
    _add_void_events(correct, connect)
    _add_replace(correct, connect)
    _add_revert(correct, connect)
    _add_list(correct, connect)
    group.add_typer(correct, name="correct")


def _add_void(group: typer.Typer, connect: Connect) -> None:
    @group.command("void")
    def void(
        organization: Organization,
        report_ids: Annotated[list[int], typer.Argument(min=1, help="Ids from `usage explain`.")],
        *,
        actor: Actor,
        reason: Reason,
        correction_id: CorrectionId = None,
        preview: PreviewOnly = False,
        yes: Yes = False,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Take reports out of count."""
        asked = {"kind": "void", "report_ids": report_ids, "actor": actor, "reason": reason}
        with asking(connect, url, token) as gateway:
            _do(gateway, organization, asked, correction_id, preview=preview, yes=yes, as_json=as_json)


def _add_void_events(group: typer.Typer, connect: Connect) -> None:
    @group.command("void-events")
    def void_events(
        organization: Organization,
        file: Annotated[
            Path,
            typer.Argument(
                exists=True,
                dir_okay=False,
                help='JSON: [{"source", "id", "time"}, ...], or what GET /v1/meter-events answered.',
            ),
        ],
        *,
        actor: Actor,
        reason: Reason,
        correction_id: CorrectionId = None,
        preview: PreviewOnly = False,
        yes: Yes = False,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Take meter events out of count."""
        asked = {"kind": "void-events", "events": _events_in(file), "actor": actor, "reason": reason}
        with asking(connect, url, token) as gateway:
            _do(gateway, organization, asked, correction_id, preview=preview, yes=yes, as_json=as_json)


def _events_in(file: Path) -> list[dict[str, Any]]:
    content = _json_in(file)
    listed = content.get("results") if isinstance(content, dict) else content
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise typer.BadParameter(f"{file}: must hold a list of events")
    return [{name: each.get(name) for name in ("source", "id", "time")} for each in listed]


def _json_in(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise typer.BadParameter(f"{file}: not JSON: {error}") from error


def _add_replace(group: typer.Typer, connect: Connect) -> None:
    @group.command("replace")
    def replace(
        organization: Organization,
        file: Annotated[
            Path,
            typer.Argument(
                exists=True, dir_okay=False, help='JSON: {"source", "start", "end", "windows": [...], "counters"}.'
            ),
        ],
        *,
        actor: Actor,
        reason: Reason,
        correction_id: CorrectionId = None,
        preview: PreviewOnly = False,
        yes: Yes = False,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Say what windows of a source really held."""
        content = _json_in(file)
        if not isinstance(content, dict):
            raise typer.BadParameter(f"{file}: must hold a JSON object")
        asked = {**content, "kind": "replace", "actor": actor, "reason": reason}
        with asking(connect, url, token) as gateway:
            _do(gateway, organization, asked, correction_id, preview=preview, yes=yes, as_json=as_json)


def _add_revert(group: typer.Typer, connect: Connect) -> None:
    @group.command("revert")
    def revert(
        organization: Organization,
        correction_id: Annotated[str, typer.Argument(help="Id from `usage correct list`.")],
        *,
        actor: Actor,
        reason: Reason,
        preview: PreviewOnly = False,
        yes: Yes = False,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Take a correction back: what the sources said counts again."""
        path = f"{_path(organization)}/{segment(correction_id)}/revert"
        asked = {"actor": actor, "reason": reason}
        with asking(connect, url, token) as gateway:
            _preview_and_do(gateway, path, asked, preview=preview, yes=yes, as_json=as_json)


def _add_list(group: typer.Typer, connect: Connect) -> None:
    @group.command("list")
    def list_(organization: Organization, *, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
        """List the corrections of an organization, newest first."""
        with asking(connect, url, token) as gateway:
            gateway.get(_path(organization)).show(as_json=as_json, to_people=show_corrections)


def _do(
    gateway: Gateway,
    organization: str,
    asked: dict[str, Any],
    correction_id: str | None,
    *,
    preview: bool,
    yes: bool,
    as_json: bool,
) -> None:
    named = {**asked, "correction_id": correction_id or f"c-{uuid.uuid4().hex[:12]}"}
    _preview_and_do(gateway, _path(organization), named, preview=preview, yes=yes, as_json=as_json)


def _preview_and_do(
    gateway: Gateway, path: str, asked: dict[str, Any], *, preview: bool, yes: bool, as_json: bool
) -> None:
    """Show what it would change, ask, do it. Without a question asked, the preview is left out."""
    if preview or not yes:
        answer = gateway.post(path, {**asked, "preview": True})
        answer.show(as_json=as_json and preview, to_people=show_changes)
        if preview:
            return
        typer.confirm("Do this?", abort=True)
    gateway.post(path, {**asked, "preview": False}).show(as_json=as_json, to_people=show_changes)


def show_changes(document: dict[str, Any]) -> None:
    """Totals, limits and amounts before and after."""
    reversion = document["reverted"]
    changes = (reversion or document)["changes"]
    verb = "would change" if document["is_preview"] else "changed"
    title = f"What {'taking back ' if reversion else ''}{document['correction_id']} {verb}"
    if document["is_repeat"]:
        title += " when it was done before; nothing was done now"
    show_table(
        title,
        ("period", "counter", "meters", "total before", "total after", "maximum before", "maximum after"),
        [
            (
                instant(period["period_start"]),
                change["counter"],
                ", ".join(change["meters"]),
                change["before"]["to_date"],
                change["after"]["to_date"],
                change["before"]["maximum"],
                change["after"]["maximum"],
            )
            for period in changes
            for change in period["counters"]
        ],
        numbers=("total before", "total after", "maximum before", "maximum after"),
        empty=f"{title}: no total and no maximum.",
    )
    limits = [limit for period in changes for limit in period["limits"]]
    if limits:
        show_table(
            "Limits",
            ("meter", "quota", "over before", "over after"),
            [
                (
                    limit["meter"],
                    "unlimited" if limit["quota"] is None else limit["quota"],
                    limit["is_over_before"],
                    limit["is_over_after"],
                )
                for limit in limits
            ],
            numbers=("quota",),
            empty="",
        )
    amounts = [(period, amount) for period in changes for amount in period["amounts"]]
    if amounts:
        show_table(
            "Amounts",
            ("period", "meter", "before", "after", "difference becomes"),
            [
                (
                    instant(period["period_start"]),
                    amount["meter"],
                    _money(amount["before_minor"], amount["currency"]),
                    _money(amount["after_minor"], amount["currency"]),
                    f"part of the open {amount['becomes']}" if amount["becomes"] == "invoice" else "an adjustment",
                )
                for period, amount in amounts
            ],
            numbers=("before", "after"),
            empty="",
        )


def show_corrections(document: dict[str, Any]) -> None:
    """One line per correction."""
    show_table(
        "Corrections",
        ("id", "kind", "at", "by", "why", "in force", "taken back"),
        [
            (
                each["correction_id"],
                each["kind"],
                instant(each["applied_at"]),
                each["actor"],
                each["reason"],
                each["is_in_force"],
                f"{each['reverted']['actor']}: {each['reverted']['reason']}" if each["reverted"] else None,
            )
            for each in document["results"]
        ],
        whole=("id",),
        empty="Nothing was ever corrected for this organization.",
    )


def _path(organization: str) -> str:
    return f"/v1/usage/{segment(organization)}/corrections"


def _money(minor: int, currency: str) -> str:
    return f"{Money(minor, currency).to_decimal_string()} {currency}"
