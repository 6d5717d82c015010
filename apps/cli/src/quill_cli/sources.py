"""``quill sources``: who reports, how far each has told everything, who is silent, and what need not be waited for."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import instant, show_facts, show_table

Source = Annotated[str, typer.Argument(help="Name of the source, e.g. `us`.")]
Actor = Annotated[str, typer.Option(help="Who you are, e.g. your mail address.")]
Reason = Annotated[str, typer.Option(help="Why; kept with your name.")]
Through = Annotated[str, typer.Argument(help="Instant in UTC, e.g. 2026-11-01 or 2026-11-01T00:00:00Z.")]
PATH = "/v1/sources"


def commands(connect: Connect) -> typer.Typer:
    """``sources`` itself lists them; its commands change one."""
    group = typer.Typer(help="Who reports usage, how far, and who is silent.", invoke_without_command=True)

    @group.callback()
    def list_sources(context: typer.Context, *, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
        """List every known source; a command changes one."""
        if context.invoked_subcommand is None:
            with asking(connect, url, token) as gateway:
                gateway.get(PATH).show(as_json=as_json, to_people=show_sources)

    _add_declaring(group, connect)
    _add_watermark(group, connect)
    _add_waiving(group, connect)
    return group


def _add_declaring(group: typer.Typer, connect: Connect) -> None:
    @group.command("show")
    def show(source: Source, *, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
        """Show one source with its waivers, its holes, and what it said that is not entered yet."""
        with asking(connect, url, token) as gateway:
            gateway.get(f"{PATH}/{segment(source)}").show(as_json=as_json, to_people=show_source)

    @group.command("expect")
    def expect(
        source: Source,
        *,
        actor: Actor,
        reason: Reason,
        silent_after: Annotated[
            int, typer.Option("--silent-after", min=1, help="Hours without a word before it counts as silent.")
        ] = 26,
        no: Annotated[bool, typer.Option("--no", help="It is not expected any more.")] = False,
        retired: Annotated[bool, typer.Option("--retired", help="It is gone for good: nobody waits for it.")] = False,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Expect a source: totals say whether it is in, its silence is an alert, and periods wait for it."""
        asked = {
            "is_expected": not (no or retired),
            "silent_after_hours": silent_after,
            "is_retired": retired,
            "actor": actor,
            "reason": reason,
        }
        with asking(connect, url, token) as gateway:
            gateway.put(f"{PATH}/{segment(source)}", asked).show(as_json=as_json, to_people=show_source)


def _add_watermark(group: typer.Typer, connect: Connect) -> None:
    @group.command("watermark")
    def watermark(
        source: Source,
        through: Through,
        *,
        actor: Actor,
        reason: Reason,
        reset: Annotated[bool, typer.Option("--reset", help="Take the watermark back to there.")] = False,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Say that a source has sent everything up to an instant. It counts once all of that has been entered."""
        asked = {"complete_through": utc(through), "reset": reset, "actor": actor, "reason": reason}
        with asking(connect, url, token) as gateway:
            answer = gateway.post(f"{PATH}/{segment(source)}/watermark", asked)
            answer.show(as_json=as_json, to_people=show_source)


def _add_waiving(group: typer.Typer, connect: Connect) -> None:
    @group.command("waive")
    def waive(
        source: Source,
        through: Through,
        *,
        waiver_id: Annotated[str, typer.Option("--id", help="Your name for it; the same again changes nothing.")],
        actor: Actor,
        reason: Reason,
        organization: Annotated[str | None, typer.Option(help="Only for this organization.")] = None,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Let periods that end by then close without this source. What comes later becomes an adjustment."""
        asked = {
            "waiver_id": waiver_id,
            "through": utc(through),
            "organization_id": organization,
            "actor": actor,
            "reason": reason,
        }
        with asking(connect, url, token) as gateway:
            answer = gateway.post(f"{PATH}/{segment(source)}/waivers", asked)
            answer.show(as_json=as_json, to_people=show_source)

    @group.command("take-back")
    def take_back(
        source: Source,
        waiver_id: Annotated[str, typer.Argument(help="Id of the waiver, from `quill sources show`.")],
        *,
        actor: Actor,
        reason: Reason,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Take a waiver back. What was closed by it stays closed."""
        with asking(connect, url, token) as gateway:
            answer = gateway.post(
                f"{PATH}/{segment(source)}/waivers/{segment(waiver_id)}/take-back", {"actor": actor, "reason": reason}
            )
            answer.show(as_json=as_json, to_people=show_source)


def utc(text: str) -> str:
    """An instant as the API takes it; one without an offset is meant in UTC.

    Raises:
        typer.BadParameter: it is no instant.
    """
    try:
        given = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no instant like 2026-11-01T00:00:00Z") from error
    return (given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)).isoformat()


def show_sources(document: Mapping[str, Any]) -> None:
    """One line a source; those that are silent say since when."""
    show_table(
        "Sources of usage",
        ("source", "state", "expected", "heard", "complete through", "parked", "waivers in force"),
        [
            (
                source["source"],
                _state(source),
                source["is_expected"],
                instant(source["heard_at"]),
                instant(source["complete_through"]),
                source["parked"],
                ", ".join(_in_force(source)),
            )
            for source in document["results"]
        ],
        numbers=("parked",),
        whole=("source",),
        empty="No source is known. One is when it reports, or by `quill sources expect`.",
    )


def show_source(source: Mapping[str, Any]) -> None:
    """One source and its waivers."""
    show_facts(
        f"Source {source['source']}",
        [
            ("state", _state(source)),
            ("expected", source["is_expected"]),
            ("silent after", f"{source['silent_after_hours']} hours"),
            ("heard", instant(source["heard_at"])),
            ("complete through", instant(source["complete_through"])),
            *(
                ("complete beyond a hole", f"{instant(span['start'])} to {instant(span['end'])}")
                for span in source["complete_later"]
            ),
            *(
                ("said, not all entered yet", f"{instant(claim['complete_through'])} ({claim['origin']})")
                for claim in source["waiting"]
            ),
            ("reports parked", source["parked"]),
        ],
    )
    if source["waivers"]:
        show_table(
            "Waivers",
            ("waiver", "through", "organization", "by", "why", "taken back by"),
            [
                (
                    waiver["waiver_id"],
                    instant(waiver["through"]),
                    waiver["organization_id"] or "all",
                    waiver["actor"],
                    waiver["reason"],
                    waiver["taken_back_by"],
                )
                for waiver in source["waivers"]
            ],
            whole=("waiver",),
            empty="",
        )


def _state(source: Mapping[str, Any]) -> str:
    return f"silent since {instant(source['silent_since'])}" if source["state"] == "silent" else str(source["state"])


def _in_force(source: Mapping[str, Any]) -> list[str]:
    return [str(waiver["waiver_id"]) for waiver in source["waivers"] if waiver["taken_back_by"] is None]
