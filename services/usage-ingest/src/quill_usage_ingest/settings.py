"""Settings of usage-ingest beside those of every service."""

from typing import Literal

from quill_runtime.settings import ServiceSettings


class UsageIngestSettings(ServiceSettings):
    """Read from the environment; see `ServiceSettings`."""

    usage_work: Literal["all", "totals", "teams"] = "all"
    """What this replica consumes: ``totals`` is what limits wait for, ``teams`` the rows per team."""
