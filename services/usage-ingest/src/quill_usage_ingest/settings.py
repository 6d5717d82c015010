"""Settings of usage-ingest beside those of every service."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from quill_runtime.settings import ServiceSettings


class UsageIngestSettings(ServiceSettings):
    """Read from the environment; see `ServiceSettings`."""

    usage_work: Literal["all", "totals", "teams"] = "all"
    """What this replica consumes: ``totals`` is what limits wait for, ``teams`` the rows per team."""
    usage_queue_v1_url: str | None = None
    """Queue that PostHog's daily reports arrive on, one organization a message; unset: none is read."""
    usage_queue_source: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,100}$")] | None = None
    """Whose reports they are, e.g. ``us``."""
    aws_endpoint_url: Annotated[str, Field(pattern="^https?://")] | None = None
    aws_region: str = "us-east-1"

    @model_validator(mode="after")
    def _queue_has_a_source(self) -> Self:
        if self.usage_queue_v1_url is not None and self.usage_queue_source is None:
            raise ValueError("USAGE_QUEUE_SOURCE must name the region whose reports USAGE_QUEUE_V1_URL holds")
        return self
