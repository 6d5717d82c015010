"""``quill dead-letters``: records that could not be applied, and sending them again once the reason is gone (L4)."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from quill_cli.gateway import AsJson, Connect, Gateway, Refused, Token, Url, asking, stop
from quill_cli.printing import instant, many_lines, one_line, show_facts, show_table

PAGE: Final = 500
REPLAYED_MAX: Final = 100_000
SHOWN_CHARACTERS_MAX: Final = 20_000


class ServiceName(StrEnum):
    """Who parked a record."""

    USAGE_INGEST = "usage-ingest"
    QUOTA_LIMITER = "quota-limiter"
    SUBSCRIPTIONS = "subscriptions"
    INVOICING = "invoicing"
    LICENSING = "licensing"


AnyService = Annotated[ServiceName | None, typer.Option("--service", help="Only this service; all five if absent.")]
OneService = Annotated[ServiceName, typer.Option("--service", help="The service that parked the record.")]
Reason = Annotated[str | None, typer.Option("--reason-code", help="Only this reason, e.g. unknown_organization.")]
Subject = Annotated[str | None, typer.Option(help="Only records about this, e.g. an organization id.")]


def commands(connect: Connect) -> typer.Typer:
    """``dead-letters list``, ``show``, ``replay``."""
    group = typer.Typer(help="Records that could not be applied: look, and send again.", no_args_is_help=True)
    _add_list(group, connect)
    _add_show(group, connect)
    _add_replay(group, connect)
    return group


def _add_list(group: typer.Typer, connect: Connect) -> None:
    @group.command("list")
    def list_(
        *,
        service: AnyService = None,
        reason_code: Reason = None,
        subject: Subject = None,
        include_replayed: Annotated[bool, typer.Option(help="Also those that were sent again.")] = False,
        after_id: Annotated[int, typer.Option(min=0, help="Go on after this id; needs --service.")] = 0,
        limit: Annotated[int, typer.Option(min=1, max=PAGE)] = 100,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """List parked records in the order they were parked."""
        if after_id and service is None:
            raise typer.BadParameter("--after-id needs --service: each service counts its own ids")
        wanted = {
            "reason_code": reason_code,
            "subject": subject,
            "include_replayed": "true" if include_replayed else None,
            "after_id": after_id or None,
            "limit": limit,
        }
        with asking(connect, url, token) as gateway:
            if service is not None:
                answer = gateway.get(_path(service), **wanted)
                answer.show(as_json=as_json, to_people=partial(show_letters, service.value, limit=limit))
                return
            answers = {each.value: gateway.get(_path(each), **wanted) for each in ServiceName}
            if as_json:
                print(json.dumps({name: answer.document for name, answer in answers.items()}))
                return
            for name, answer in answers.items():
                answer.show(as_json=False, to_people=partial(show_letters, name, limit=limit))


def _add_show(group: typer.Typer, connect: Connect) -> None:
    @group.command("show")
    def show(
        letter_id: Annotated[int, typer.Argument(min=1, help="Id from `dead-letters list`.")],
        service: OneService,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Show a parked record with its reason and its bytes."""
        with asking(connect, url, token) as gateway:
            answer = gateway.get(f"{_path(service)}/{letter_id}")
            answer.show(as_json=as_json, to_people=show_letter)


def _add_replay(group: typer.Typer, connect: Connect) -> None:
    @group.command("replay")
    def replay(
        letter_ids: Annotated[list[int] | None, typer.Argument(min=1, help="Ids from `dead-letters list`.")] = None,
        *,
        service: OneService,
        everything: Annotated[bool, typer.Option("--all", help="All that wait (and match the filters).")] = False,
        reason_code: Reason = None,
        subject: Subject = None,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Send the exact bytes to their topic again; what was wrong may be right by now. Safe to repeat."""
        if bool(letter_ids) == everything:
            raise typer.BadParameter("name the ids to replay, or say --all (with --reason-code or --subject to choose)")
        if letter_ids and (reason_code or subject):
            raise typer.BadParameter("--reason-code and --subject choose among --all; leave them out when naming ids")
        with asking(connect, url, token) as gateway:
            # Which ones is settled first: a record that is parked again gets a new id, and must not be chased for ever.
            ids = letter_ids or _waiting(gateway, service, reason_code=reason_code, subject=subject)
            results, failed = _replay_each(gateway, service, ids)
        if as_json:
            print(json.dumps({"results": results, "failed": failed}))
        else:
            typer.echo(f"{len(results)} sent again to their topics, {len(failed)} failed.")
            for failure in failed:
                typer.echo(f"  {failure['id']}: {one_line(failure['error'])}", err=True)
        if failed:
            stop(f"{len(failed)} of {len(ids)} were not sent again", advice="the same command may be repeated")


def show_letters(service: str, document: dict[str, Any], *, limit: int) -> None:
    """A page of parked records of one service."""
    letters = document["results"]
    show_table(
        f"Parked by {service}",
        ("id", "reason", "field", "about", "detail", "record", "parked at", "sent again"),
        [
            (
                str(letter["id"]),
                letter["reason_code"],
                letter["attribute"],
                letter["subject"],
                letter["detail"],
                f"{letter['topic']}[{letter['partition']}]@{letter['offset']}",
                instant(letter["parked_at"]),
                instant(letter["replayed_at"]),
            )
            for letter in letters
        ],
        whole=("id", "reason"),
        empty=f"{service}: nothing is parked.",
    )
    if len(letters) == limit:
        typer.echo(
            f"There may be more: quill dead-letters list --service {service} --after-id {document['next_after_id']}"
        )


def show_letter(document: dict[str, Any]) -> None:
    """One parked record, and its value as readable as it is."""
    key = document["key_base64"]
    show_facts(
        f"Dead letter {document['id']}",
        [
            ("reason", document["reason_code"]),
            ("field", document["attribute"]),
            ("detail", document["detail"]),
            ("about", document["subject"]),
            ("record", f"{document['topic']}[{document['partition']}] at offset {document['offset']}"),
            ("consumer group", document["consumer_group"]),
            ("key", None if key is None else base64.b64decode(key).decode("utf-8", "backslashreplace")),
            ("parked at", instant(document["parked_at"])),
            ("sent again", f"{document['replays']} times, last {instant(document['replayed_at'])}"),
            *((f"header {name}", value) for name, value in document["headers"].items()),
        ],
    )
    typer.echo(readable(document["value_base64"]))


def readable(value_base64: str | None) -> str:
    """The value of a record for a terminal: JSON laid out, other text as it is, control codes made visible."""
    if value_base64 is None:
        return "(no value)"
    raw = base64.b64decode(value_base64)
    try:
        text = json.dumps(json.loads(raw), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = raw.decode("utf-8", "backslashreplace")
    if len(text) > SHOWN_CHARACTERS_MAX:
        text = text[:SHOWN_CHARACTERS_MAX] + f"\n… {len(text) - SHOWN_CHARACTERS_MAX:,} more; --json has all of it"
    return many_lines(text)


def _path(service: ServiceName) -> str:
    return f"/{service.value}/v1/dead-letters"


def _waiting(gateway: Gateway, service: ServiceName, *, reason_code: str | None, subject: str | None) -> list[int]:
    ids: list[int] = []
    after_id = 0
    while len(ids) < REPLAYED_MAX:
        page = gateway.get(
            _path(service), reason_code=reason_code, subject=subject, after_id=after_id, limit=PAGE
        ).document["results"]
        ids += [letter["id"] for letter in page]
        if len(page) < PAGE:
            break
        after_id = ids[-1]
    return ids[:REPLAYED_MAX]


def _replay_each(
    gateway: Gateway, service: ServiceName, ids: list[int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One request per record, so that one that cannot be sent again holds up no other."""
    results: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    with _progress(len(ids)) as advance:
        for letter_id in ids:
            try:
                results.append(gateway.post(f"{_path(service)}/{letter_id}/replay").document)
            except Refused as refused:
                failed.append({"id": letter_id, "error": str(refused)})
            advance()
    return results, failed


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr when a person is looking and there is something to wait for."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("sending again"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or total <= 1,
    )
    with bar:
        task = bar.add_task("replay", total=total)
        yield lambda: bar.advance(task)
