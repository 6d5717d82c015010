"""``python -m quill_<service> serve | migrate | …``: what a service's process can do."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import uvloop

from quill_runtime import telemetry
from quill_runtime.auth import InvalidApiTokens
from quill_runtime.lifecycle import Service, serve
from quill_runtime.migrations import migrate, runtime_history, service_history
from quill_runtime.sealing import InvalidSealingKeys
from quill_runtime.settings import EXIT_BAD_CONFIGURATION, ServiceSettings, load

S = TypeVar("S", bound=ServiceSettings)


def run(
    *,
    package: str,
    settings_type: type[S],
    build: Callable[[S], Service],
    commands: Mapping[str, Callable[[S], Coroutine[Any, Any, object]]] = MappingProxyType({}),
) -> None:
    """Parse the command line, read the settings, do what was asked.

    ``commands`` are further one-off commands of the service; what one returns is printed.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {package}")
    parser.add_argument(
        "command",
        choices=["serve", "migrate", *commands],
        help="run the service, update its tables, or do one of its own jobs once",
    )
    arguments = parser.parse_args()
    settings = load(settings_type)
    telemetry.configure(
        service=package.removeprefix("quill_").replace("_", "-"),
        level=settings.log_level,
        otlp_endpoint=settings.otlp_endpoint,
    )
    if arguments.command == "migrate":
        asyncio.run(migrate(settings.database_url, (runtime_history(), service_history(package))))
        return
    if arguments.command in commands:
        sys.stdout.write(f"{asyncio.run(commands[arguments.command](settings))}\n")
        return
    try:
        service = build(settings)
    except (InvalidSealingKeys, InvalidApiTokens) as error:
        parser.exit(EXIT_BAD_CONFIGURATION, f"configuration: {error}\n")
    uvloop.run(serve(service, host=settings.http_host, port=settings.http_port))
