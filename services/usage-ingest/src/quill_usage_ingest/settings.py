"""Settings of usage-ingest: those of every service suffice."""

from quill_runtime.settings import ServiceSettings


class UsageIngestSettings(ServiceSettings):
    """Read from the environment; see `ServiceSettings`."""
