"""``python -m quill_licensing serve | migrate``."""

from quill_runtime.command_line import run

from quill_licensing.app import build
from quill_licensing.settings import LicensingSettings

if __name__ == "__main__":
    run(package="quill_licensing", settings_type=LicensingSettings, build=build)
