"""Messages and HTTP models to domain values and back."""

from datetime import datetime
from typing import Annotated, Any, Literal, assert_never

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from quill_contracts.licenses import License as PublishedLicense
from quill_contracts.subscriptions import CustomerSnapshot

from quill_licensing.domain.activation import Activation
from quill_licensing.domain.license import (
    License,
    LicenseActivated,
    LicenseEvent,
    LicenseIssued,
    LicenseRevoked,
    LicenseStatus,
    LicenseType,
)
from quill_licensing.domain.license_story import LicenseStory
from quill_licensing.domain.signup import EMAIL_PATTERN, IssuedLicense, Signup


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain control characters or line breaks")
    return text


OneLine = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_printable)
]
Email = Annotated[str, StringConstraints(strip_whitespace=True, max_length=254, pattern=EMAIL_PATTERN)]
Source = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$")]


class SignupBody(BaseModel):
    """``POST /v1/licenses``."""

    model_config = ConfigDict(extra="forbid")

    email: Email
    organization_name: OneLine
    type: LicenseType = "scale"
    source: Source | None = None

    def to_signup(self) -> Signup:
        return Signup(self.email, self.organization_name, self.type, self.source)


class RevokeBody(BaseModel):
    """``POST /v1/licenses/{id}/revoke``."""

    model_config = ConfigDict(extra="forbid")

    reason: OneLine


class LicenseAnswer(BaseModel):
    """A license as operators see it: everything but its secret."""

    license_id: str
    type: LicenseType
    status: LicenseStatus
    source: str
    email: str
    organization_name: str
    organization_id: str | None
    issued_at: datetime
    revoked_at: datetime | None
    revocation_reason: str | None
    revision: int


class IssuedAnswer(BaseModel):
    """The one answer that shows a license key."""

    license_id: str
    license_key: str
    type: LicenseType
    status: LicenseStatus
    source: str
    email: str
    organization_name: str
    issued_at: datetime


class LicensePage(BaseModel):
    """A page of licenses; ask on with ``after_id`` until it is null."""

    results: list[LicenseAnswer]
    next_after_id: str | None


class ActivationAnswer(BaseModel):
    """An organization the license is used for."""

    organization_id: str
    organization_name: str
    first_seen_at: datetime


class MailAnswer(BaseModel):
    """Whether the key was mailed."""

    status: Literal["waiting", "sent", "failed"]
    attempts: int
    error: str | None


class ChangeAnswer(BaseModel):
    """One fact of a license's life (L20)."""

    type: str
    actor: str
    at: datetime
    before: dict[str, Any] | None
    after: dict[str, Any]


class LicenseStoryAnswer(LicenseAnswer):
    """A license with everything known around it."""

    activations: list[ActivationAnswer]
    mail: MailAnswer | None
    history: list[ChangeAnswer]


def to_wire_license(license_: License) -> LicenseAnswer:
    """The license without its secret, sealed or not."""
    return LicenseAnswer.model_validate(license_, from_attributes=True)


def to_wire_issued(issued: IssuedLicense) -> IssuedAnswer:
    """The answer to the person who signed up."""
    license_ = issued.license
    return IssuedAnswer(
        license_id=license_.license_id,
        license_key=issued.key.text,
        type=license_.type,
        status=license_.status,
        source=license_.source,
        email=license_.email,
        organization_name=license_.organization_name,
        issued_at=license_.issued_at,
    )


def to_wire_story(story: LicenseStory) -> LicenseStoryAnswer:
    """The license with its facts, each with actor, instant, before and after (L20)."""
    mail = None
    if story.mail is not None:
        said: dict[str, Literal["waiting", "sent", "failed"]] = {"done": "sent", "failed": "failed"}
        mail = MailAnswer(
            status=said.get(story.mail.status, "waiting"), attempts=story.mail.attempts, error=story.mail.error
        )
    return LicenseStoryAnswer(
        **to_wire_license(story.license).model_dump(),
        activations=[ActivationAnswer.model_validate(a, from_attributes=True) for a in story.activations],
        mail=mail,
        history=[_change(event) for event in story.history],
    )


def _change(event: LicenseEvent) -> ChangeAnswer:
    name, content = to_stored_event(event)
    after = {field: value for field, value in content["after"].items() if field != "sealed_secret"}
    return ChangeAnswer(type=name, actor=event.actor, at=event.at, before=content["before"], after=after)


def to_wire_published(license_: License) -> PublishedLicense:
    """What verifiers get (``licensing.licenses.v1``): the secret stays sealed."""
    return PublishedLicense(
        license_id=license_.license_id,
        revision=license_.revision,
        type=license_.type,
        status=license_.status,
        sealed_secret=license_.sealed_secret,
        source=license_.source,
        issued_at=license_.issued_at,
    )


def from_wire_customer(snapshot: CustomerSnapshot) -> Activation:
    """The activation that a customer's snapshot tells of."""
    return Activation(
        license_id=snapshot.license_id,
        organization_id=snapshot.organization_id,
        organization_name=snapshot.organization_name,
        first_seen_at=snapshot.effective_at,
    )


# --- facts as they are stored -----------------------------------------------------------------------------------------


class UnknownFact(ValueError):
    """The stream of a license holds a fact this version does not know; it was written by a newer one."""


def to_stored_event(event: LicenseEvent) -> tuple[str, dict[str, Any]]:
    """A fact's name and its content as before and after (L20)."""
    match event:
        case LicenseIssued():
            after = {
                "license_id": event.license_id,
                "type": event.type,
                "email": event.email,
                "organization_name": event.organization_name,
                "source": event.source,
                "sealed_secret": event.sealed_secret,
            }
            return "license_issued", {"before": None, "after": after}
        case LicenseActivated():
            return "license_activated", {
                "before": {"organization_id": None},
                "after": {"organization_id": event.organization_id},
            }
        case LicenseRevoked():
            return "license_revoked", {
                "before": {"status": "active"},
                "after": {"status": "revoked", "reason": event.reason},
            }
        case _:
            assert_never(event)


def from_stored_event(name: str, content: Any, *, actor: str, at: datetime) -> LicenseEvent:
    """The fact that was stored.

    Raises:
        UnknownFact: with the name.
    """
    after = content["after"]
    match name:
        case "license_issued":
            return LicenseIssued(**after, actor=actor, at=at)
        case "license_activated":
            return LicenseActivated(after["organization_id"], actor, at)
        case "license_revoked":
            return LicenseRevoked(after["reason"], actor, at)
        case _:
            raise UnknownFact(f"a license cannot have the fact {name!r}")
