"""What an operator may set."""

from typing import Annotated

from pydantic import Field, SecretStr, model_validator
from quill_runtime.settings import ServiceSettings

TEST_KEY_PREFIX = "sk_test_"


class InvoicingSettings(ServiceSettings):
    """Settings of invoicing. Without ``STRIPE_API_KEY`` invoices are made and their collection waits."""

    stripe_api_key: SecretStr = SecretStr("")
    stripe_api_base: str | None = None
    """Address of a simulator, for sandboxes; every address of the SDK is set to it."""
    stripe_webhook_secrets: SecretStr = SecretStr("")
    """Signing secrets of the webhook endpoint, comma-separated: two while one is being replaced."""
    stripe_test_payment_method: str | None = None
    """A test card for every new customer (``pm_card_visa``); only with a test key."""
    stripe_report_hours: Annotated[int, Field(ge=0, le=24 * 31)] = 24
    """Running quantities are reported at most this often per product; the final one always is."""
    grace_hours: Annotated[int, Field(ge=0, le=24 * 14)] = 24
    """How long a period stays open after its end, for late reports."""
    close_batch: Annotated[int, Field(ge=1, le=10_000)] = 200
    operation_workers: Annotated[int, Field(ge=1, le=16)] = 4

    @model_validator(mode="after")
    def _test_card_needs_test_key(self) -> "InvoicingSettings":
        key = self.stripe_api_key.get_secret_value()
        if self.stripe_test_payment_method is not None and not key.startswith(TEST_KEY_PREFIX):
            raise ValueError(f"STRIPE_TEST_PAYMENT_METHOD needs a STRIPE_API_KEY that begins with {TEST_KEY_PREFIX}")
        return self

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets, one by one."""
        return tuple(filter(None, (part.strip() for part in self.stripe_webhook_secrets.get_secret_value().split(","))))
