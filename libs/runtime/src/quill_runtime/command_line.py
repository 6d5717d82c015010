"""``python -m quill_<service> serve | migrate``: the two things a service's process can do."""

import argparse
import asyncio
from collections.abc import Callable
from typing import TypeVar

from quill_runtime import telemetry
from quill_runtime.auth import InvalidApiTokens
from quill_runtime.lifecycle import Service, serve
from quill_runtime.migrations import migrate, runtime_history, service_history
from quill_runtime.sealing import InvalidSealingKeys
from quill_runtime.settings import EXIT_BAD_CONFIGURATION, ServiceSettings, load

S = TypeVar("S", bound=ServiceSettings)


def run(*, package: str, settings_type: type[S], build: Callable[[S], Service]) -> None:
    """Parse the command line, read the settings, do what was asked."""
    parser = argparse.ArgumentParser(prog=f"python -m {package}")
    parser.add_argument("command", choices=["serve", "migrate"], help="run the service, or update its tables")
    arguments = parser.parse_args()
    settings = load(settings_type)
    telemetry.configure(service=package.removeprefix("quill_").replace("_", "-"), level=settings.log_level)
    if arguments.command == "migrate":
        asyncio.run(migrate(settings.database_url, (runtime_history(), service_history(package))))
        return
    try:
        service = build(settings)
    except (InvalidSealingKeys, InvalidApiTokens) as error:
        parser.exit(EXIT_BAD_CONFIGURATION, f"configuration: {error}\n")
    asyncio.run(serve(service, host=settings.http_host, port=settings.http_port))
