"""What subscriptions needs beyond the settings of every service."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from quill_runtime.settings import ServiceSettings


class SubscriptionsSettings(ServiceSettings):
    """Field names in capitals are the environment variables."""

    catalog_file: Path | None = None
    """The reviewed catalog in TOML; the packaged example when not set."""
    catalog_check_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How often the file is read again, so that a reviewed change comes into force without a restart."""
    refresh_seconds: Annotated[float, Field(gt=0)] = 1.0
    """How often customers whose billing period or trial has ended are looked for."""
