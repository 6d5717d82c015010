"""Settings of usage-ingest beside those of every service."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from quill_runtime.settings import ServiceSettings

from quill_usage_ingest.domain.generation import ShadowedGenerations


class UsageIngestSettings(ServiceSettings):
    """Read from the environment; see `ServiceSettings`."""

    usage_work: Literal["all", "totals", "teams"] = "all"
    """What this replica consumes: ``totals`` is what limits wait for, ``teams`` the rows per team."""
    usage_queue_v1_url: str | None = None
    """Queue that PostHog's daily reports arrive on, one organization a message; unset: none is read."""
    usage_queue_v2_url: str | None = None
    """Queue of pointers to runs of chunk files; unset: none is read."""
    usage_buckets: str = ""
    """Buckets that pointers may name, comma-separated."""
    usage_queue_source: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,100}$")] | None = None
    """Whose reports they are, e.g. ``us``."""
    usage_shadowed_generations: str = ""
    """Generations that are compared and do not count: ``v2``, or ``us=v2,eu=v1``. Empty: both count by rank."""
    aws_endpoint_url: Annotated[str, Field(pattern="^https?://")] | None = None
    aws_region: str = "us-east-1"

    @model_validator(mode="after")
    def _queue_has_a_source(self) -> Self:
        is_read = self.usage_queue_v1_url is not None or self.usage_queue_v2_url is not None
        if is_read and self.usage_queue_source is None:
            raise ValueError("USAGE_QUEUE_SOURCE must name the region whose reports the queue holds")
        if self.usage_queue_v2_url is not None and not self.buckets:
            raise ValueError("USAGE_BUCKETS must name the buckets that runs of USAGE_QUEUE_V2_URL may lie in")
        return self

    @model_validator(mode="after")
    def _shadows_are_generations(self) -> Self:
        ShadowedGenerations.parse(self.usage_shadowed_generations)
        return self

    @property
    def shadowed(self) -> ShadowedGenerations:
        """What ``usage_shadowed_generations`` says."""
        return ShadowedGenerations.parse(self.usage_shadowed_generations)

    @property
    def buckets(self) -> frozenset[str]:
        """Names in ``usage_buckets``."""
        return frozenset(name.strip() for name in self.usage_buckets.split(",") if name.strip())
