"""What licensing reads from the environment beside what every service does."""

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator
from quill_runtime.settings import ServiceSettings

from quill_licensing.domain.signup import EMAIL_PATTERN

SmtpSecurity = Literal["opportunistic", "starttls", "tls"]
"""``opportunistic`` encrypts when the server offers it; the others refuse a server that does not."""


class LicensingSettings(ServiceSettings):
    """Mail server and the pace of public signup."""

    smtp_host: Annotated[str, Field(min_length=1)]
    smtp_port: Annotated[int, Field(ge=1, le=65_535)] = 25
    smtp_from: Annotated[str, Field(pattern=EMAIL_PATTERN)]
    """Sender of license mails; its domain also ends their Message-IDs."""
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    smtp_security: SmtpSecurity = "opportunistic"
    smtp_timeout_seconds: Annotated[float, Field(gt=0, le=30)] = 10.0
    """Below the time an operation in flight is left alone, so that no second try begins meanwhile."""

    signup_address_burst: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Public signups one client address may make at once."""
    signup_address_interval_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    """Time until it may make one more."""
    signup_email_burst: Annotated[int, Field(ge=1, le=10_000)] = 3
    """Public signups, and so mails, for one e-mail address at once."""
    signup_email_interval_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    signup_trusted_hops: Annotated[int, Field(ge=0, le=10)] = 0
    """Reverse proxies of ours in front: the client is that many entries from the right of X-Forwarded-For. With 0 the
    header, which anybody can write, is not read."""

    @model_validator(mode="after")
    def _password_needs_encryption(self) -> Self:
        if (self.smtp_user is None) != (self.smtp_password is None):
            raise ValueError("SMTP_USER and SMTP_PASSWORD are set together or not at all")
        if self.smtp_user is not None and self.smtp_security == "opportunistic":
            raise ValueError("SMTP_USER needs SMTP_SECURITY=starttls or tls: a password never travels in the clear")
        return self
