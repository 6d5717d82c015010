"""``python -m quill_invoicing serve | migrate``."""

from quill_runtime.command_line import run

from quill_invoicing.app import build
from quill_invoicing.settings import InvoicingSettings

if __name__ == "__main__":
    run(package="quill_invoicing", settings_type=InvoicingSettings, build=build)
