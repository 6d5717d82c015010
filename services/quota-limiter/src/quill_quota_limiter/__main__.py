"""``python -m quill_quota_limiter serve | migrate | rebuild``."""

from quill_runtime.command_line import Command, run

from quill_quota_limiter.app import build, rebuild
from quill_quota_limiter.settings import QuotaLimiterSettings

if __name__ == "__main__":
    run(
        package="quill_quota_limiter",
        settings_type=QuotaLimiterSettings,
        build=build,
        commands={"rebuild": Command("fill Redis from Postgres", lambda settings, _: rebuild(settings))},
    )
