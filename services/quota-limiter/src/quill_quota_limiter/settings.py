"""What the quota limiter is told by its environment, beyond what every service needs."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from quill_runtime.settings import ServiceSettings

from quill_quota_limiter.domain.quota_answer import UnknownOrganizationPolicy


def _redis(url: str) -> str:
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must look like redis://host:port/database")
    return url


class QuotaLimiterSettings(ServiceSettings):
    """Settings of the quota limiter."""

    redis_url: Annotated[str, AfterValidator(_redis)]
    unknown_organization_policy: UnknownOrganizationPolicy = "allow"
    """What a check is told of an organization or meter nobody has heard of; the answer says ``known: false``."""
    mirror_organizations_max: Annotated[int, Field(ge=1)] = 1_000_000
    """Organizations whose standings this process holds, some 3 kB each; checks of others ask Redis."""
    mirror_stale_seconds: Annotated[float, Field(gt=0, le=3_600)] = 5.0
    """A mirror that could not be confirmed for so long is asked only when neither Redis nor Postgres answers."""
    redis_read_seconds: Annotated[float, Field(gt=0, le=10)] = 0.5
    """How long a quota check waits for Redis."""
    webhook_plain_http: Literal["refuse", "allow"] = "refuse"
    """Whether a webhook may go to an ``http://`` address; for tests and machines of one's own."""
    webhook_private_networks: Literal["refuse", "allow"] = "refuse"
    """Whether a webhook may go to loopback, private and link-local addresses: whoever sets one up then reaches
    everything this process reaches."""
