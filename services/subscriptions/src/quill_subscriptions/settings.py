"""What subscriptions needs beyond the settings of every service."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from quill_runtime.settings import ServiceSettings

from quill_subscriptions.domain.billing_update import UpdatePolicy


class SubscriptionsSettings(ServiceSettings):
    """Field names in capitals are the environment variables."""

    catalog_file: Path | None = None
    """The reviewed catalog in TOML; the packaged example when not set."""
    catalog_check_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How often the file is read again, so that a reviewed change comes into force without a restart."""
    refresh_seconds: Annotated[float, Field(gt=0)] = 1.0
    """How often customers whose billing period or trial has ended are looked for."""
    billing_updates_queues: str = ""
    """Queues that regions hear of their customers by: ``<license id>=<queue URL>``, comma-separated. A license of type
    ``cloud`` is a whole region; customers of a license that is not named here are told to nobody. Empty: none is."""
    billing_updates_spacing_seconds: Annotated[float, Field(ge=0)] = 60.0
    """How seldom a region is told of one customer for new usage alone; every other change goes out at once."""
    billing_updates_check_seconds: Annotated[float, Field(gt=0)] = 0.2
    """How often due updates are looked for."""
    billing_updates_gzip: bool = False
    """Pack every update (base64 of gzip); otherwise only what would not fit into a message."""
    aws_endpoint_url: Annotated[str, Field(pattern="^https?://")] | None = None
    aws_region: str = "us-east-1"

    @model_validator(mode="after")
    def _queues_are_readable(self) -> Self:
        self.update_queues  # noqa: B018 - refuses what cannot be read
        return self

    @property
    def update_queues(self) -> Mapping[str, str]:
        """License id → address of its region's queue.

        Raises:
            ValueError: naming the entry.
        """
        found: dict[str, str] = {}
        for entry in filter(None, (each.strip() for each in self.billing_updates_queues.split(","))):
            license_id, _, url = entry.partition("=")
            if not license_id or not url.startswith(("http://", "https://")):
                raise ValueError(f"BILLING_UPDATES_QUEUES: {entry!r} must look like <license id>=https://queue-address")
            if license_id in found:
                raise ValueError(f"BILLING_UPDATES_QUEUES: license {license_id!r} is named twice")
            found[license_id] = url
        return found

    @property
    def update_policy(self) -> UpdatePolicy:
        """Which customers' changes are marked."""
        return UpdatePolicy(
            license_ids=frozenset(self.update_queues), spacing=timedelta(seconds=self.billing_updates_spacing_seconds)
        )
