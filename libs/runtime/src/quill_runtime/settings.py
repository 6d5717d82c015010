"""Typed settings from the environment; a wrong one stops the start with its name and the fix."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

EXIT_BAD_CONFIGURATION = 78
"""``EX_CONFIG`` of sysexits: a supervisor should not restart on it."""


def _postgres(url: str) -> str:
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("must look like postgresql://user:password@host:port/database")
    return url


PostgresUrl = Annotated[str, AfterValidator(_postgres)]
S = TypeVar("S", bound="ServiceSettings")


class ServiceSettings(BaseSettings):
    """What every service needs. Field names in capitals are the environment variables."""

    model_config = SettingsConfigDict(env_file=None, extra="ignore", frozen=True)

    database_url: PostgresUrl
    kafka_bootstrap_servers: Annotated[str, Field(min_length=1)]
    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    quill_sealing_keys: SecretStr
    """``<id>:<base64url of 32 bytes>``, comma-separated; the first seals, all open."""
    quill_api_tokens: SecretStr = SecretStr("")
    """``<name>:<scope>:<sha256 hex of the token>``, comma-separated."""
    quill_clock_file: Path | None = None
    quill_kafka_group_prefix: str = ""
    """Set apart consumer groups of two installations on one Kafka."""
    quill_instance_id: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    """Name of this replica, different from its siblings' and the same after a restart. With it a replica that comes
    back takes its partitions up at once (static membership); without it Kafka waits for the dead member's session."""
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    otlp_endpoint: Annotated[str, Field(pattern="^https?://")] | None = None
    """Where spans are sent, e.g. ``http://collector:4318/v1/traces``; unset keeps them here."""
    database_pool_size: Annotated[int, Field(ge=2, le=100)] = 8


def load(settings_type: type[S]) -> S:
    """Read settings from the environment, or stop the process naming every variable that is wrong."""
    try:
        return settings_type()
    except ValidationError as error:
        _stop(error)


def _stop(error: ValidationError) -> NoReturn:
    for problem in error.errors():
        name = "_".join(str(part) for part in problem["loc"]).upper()
        text = "is not set" if problem["type"] == "missing" else problem["msg"]
        sys.stderr.write(f"configuration: {name}: {text}\n")
    raise SystemExit(EXIT_BAD_CONFIGURATION)
