"""``python -m quill_subscriptions serve | migrate``."""

from quill_runtime.command_line import run

from quill_subscriptions.app import build
from quill_subscriptions.settings import SubscriptionsSettings

if __name__ == "__main__":
    run(package="quill_subscriptions", settings_type=SubscriptionsSettings, build=build)
