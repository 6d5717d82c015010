"""``python -m quill_usage_ingest serve | migrate | partitions | archive | detach | attach | restore``."""

from quill_runtime.command_line import run

from quill_usage_ingest.app import build
from quill_usage_ingest.commands import MONTH_COMMANDS
from quill_usage_ingest.settings import UsageIngestSettings

if __name__ == "__main__":
    run(package="quill_usage_ingest", settings_type=UsageIngestSettings, build=build, commands=MONTH_COMMANDS)
