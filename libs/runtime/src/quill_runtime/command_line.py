"""``python -m quill_<service> serve | migrate | …``: what a service's process can do."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import uvloop

from quill_runtime import telemetry
from quill_runtime.auth import InvalidApiTokens
from quill_runtime.lifecycle import Service, calm_garbage_collector, serve
from quill_runtime.migrations import migrate, runtime_history, service_history
from quill_runtime.sealing import InvalidSealingKeys
from quill_runtime.settings import EXIT_BAD_CONFIGURATION, ServiceSettings, load

S = TypeVar("S", bound=ServiceSettings)
EXIT_REFUSED = 1


class CommandRefused(Exception):
    """What was asked cannot be done; says why and what to do instead. Printed without a traceback, exit status 1."""


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


@dataclass(frozen=True, slots=True)
class Command(Generic[S]):
    """A one-off command of a service. What ``run`` returns is printed.

    ``run`` may raise `CommandRefused`; ``declare`` adds the command's own arguments.
    """

    explanation: str
    run: Callable[[S, argparse.Namespace], Coroutine[Any, Any, object]]
    declare: Callable[[argparse.ArgumentParser], None] = _no_arguments


def run(
    *,
    package: str,
    settings_type: type[S],
    build: Callable[[S], Service],
    commands: Mapping[str, Command[S]] = MappingProxyType({}),
    arguments: Sequence[str] | None = None,
) -> None:
    """Parse the command line, read the settings, do what was asked; ``arguments`` are the process's unless given."""
    parser = argparse.ArgumentParser(prog=f"python -m {package}")
    choices = parser.add_subparsers(dest="command", required=True, metavar="command")
    choices.add_parser("serve", help="run the service")
    choices.add_parser("migrate", help="bring its tables up to date")
    for name, command in commands.items():
        command.declare(choices.add_parser(name, help=command.explanation, description=command.explanation))
    asked = parser.parse_args(arguments)
    settings = load(settings_type)
    telemetry.configure(
        service=package.removeprefix("quill_").replace("_", "-"),
        level=settings.log_level,
        otlp_endpoint=settings.otlp_endpoint,
    )
    if asked.command == "migrate":
        asyncio.run(migrate(settings.database_url, (runtime_history(), service_history(package))))
        return
    if asked.command in commands:
        try:
            calm_garbage_collector()
            sys.stdout.write(f"{uvloop.run(commands[asked.command].run(settings, asked))}\n")
        except CommandRefused as error:
            parser.exit(EXIT_REFUSED, f"{asked.command}: {error}\n")
        return
    try:
        service = build(settings)
    except (InvalidSealingKeys, InvalidApiTokens) as error:
        parser.exit(EXIT_BAD_CONFIGURATION, f"configuration: {error}\n")
    uvloop.run(serve(service, host=settings.http_host, port=settings.http_port))
