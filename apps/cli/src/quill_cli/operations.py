"""``quill operations``: effects outside that were given up or still wait, and another try (L15)."""

from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer

from quill_cli.dead_letters import ServiceName
from quill_cli.gateway import AsJson, Connect, Token, Url, asking, segment
from quill_cli.printing import show_table

OPERATIONS_MAX = 500
Service = Annotated[ServiceName, typer.Option("--service", help="The service that owns the operation.")]


class OperationStatus(StrEnum):
    """Where an operation stands."""

    PLANNED = "planned"
    SENT = "sent"
    DONE = "done"
    FAILED = "failed"


def commands(connect: Connect) -> typer.Typer:
    """``operations list`` and ``operations retry``."""
    group = typer.Typer(help="Calls to Stripe and mails that were given up: look, and try again.", no_args_is_help=True)

    @group.command("list")
    def list_(
        *,
        service: Service = ServiceName.INVOICING,
        status: Annotated[OperationStatus, typer.Option(help="Only these.")] = OperationStatus.FAILED,
        subject: Annotated[str | None, typer.Option(help="Only those about this, e.g. an organization id.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=OPERATIONS_MAX, help="At most so many.")] = 100,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """List operations with a status, oldest first; by default those that were given up."""
        with asking(connect, url, token) as gateway:
            answer = gateway.get(_path(service), status=status.value, subject=subject, limit=limit)
            answer.show(as_json=as_json, to_people=partial(show_operations, service.value, status.value))

    @group.command("retry")
    def retry(
        operation_id: Annotated[str, typer.Argument(help="Id from `operations list`.")],
        *,
        service: Service = ServiceName.INVOICING,
        url: Url = None,
        token: Token = None,
        as_json: AsJson = False,
    ) -> None:
        """Try an operation that was given up once more; it is due at once."""
        with asking(connect, url, token) as gateway:
            answer = gateway.post(f"{_path(service)}/{segment(operation_id)}/retry")
            answer.show(as_json=as_json, to_people=partial(show_operations, service.value, "planned"))

    return group


def show_operations(service: str, status: str, document: Mapping[str, Any]) -> None:
    """One line per operation; a single one is shown likewise."""
    show_table(
        f"Operations of {service}: {status}",
        ("operation", "kind", "about", "attempts", "error"),
        [
            (each["operation_id"], each["kind"], each["subject"], each["attempts"], each["error"])
            for each in document.get("results", [document])
        ],
        numbers=("attempts",),
        whole=("operation",),
        empty=f"No operation of {service} is {status}.",
    )


def _path(service: ServiceName) -> str:
    return f"/{service.value}/v1/operations"
