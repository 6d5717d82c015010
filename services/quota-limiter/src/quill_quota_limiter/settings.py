"""What the quota limiter is told by its environment, beyond what every service needs."""

from typing import Annotated

from pydantic import AfterValidator
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
