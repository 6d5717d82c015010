"""The life of a license as facts: issued, activated, revoked.

``decide`` turns a command into facts or refuses it, ``evolve`` applies one fact; both are pure (L21). A license says
who an instance is and enables nothing by itself (L17).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, assert_never

LicenseType = Literal["cloud", "scale", "enterprise"]
LicenseStatus = Literal["active", "revoked"]

CLOUD: LicenseType = "cloud"


@dataclass(frozen=True, slots=True)
class License:
    """A license as its facts so far leave it.

    ``organization_id`` is the one customer of a self-hosted license once it is known (L17); a ``cloud`` license stands
    for a region with many organizations and never has one. ``revision`` counts the facts.
    """

    license_id: str
    type: LicenseType
    status: LicenseStatus
    email: str
    organization_name: str
    source: str
    sealed_secret: str
    issued_at: datetime
    revision: int = 1
    organization_id: str | None = None
    revoked_at: datetime | None = None
    revocation_reason: str | None = None

    @property
    def is_exclusive(self) -> bool:
        """Whether at most one organization may use it (L17)."""
        return self.type != CLOUD


# --- facts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LicenseIssued:
    """A license came to be; its secret is here only as sealed text."""

    license_id: str
    type: LicenseType
    email: str
    organization_name: str
    source: str
    sealed_secret: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class LicenseActivated:
    """A self-hosted license was first used for an organization, and belongs to it from now on (L17)."""

    organization_id: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class LicenseRevoked:
    """A person withdrew the license: its tokens are refused from now on."""

    reason: str
    actor: str
    at: datetime


LicenseEvent = LicenseIssued | LicenseActivated | LicenseRevoked


# --- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Issue:
    """Make a license whose id and sealed secret were prepared at the entry point."""

    license_id: str
    type: LicenseType
    email: str
    organization_name: str
    source: str
    sealed_secret: str


@dataclass(frozen=True, slots=True)
class Activate:
    """Note that an organization uses the license."""

    organization_id: str


@dataclass(frozen=True, slots=True)
class Revoke:
    """Withdraw the license for a stated reason."""

    reason: str


Command = Issue | Activate | Revoke


class NoSuchLicense(LookupError):
    """No license has this id."""


class AlreadyIssued(Exception):
    """This id was issued before."""


class BoundToAnotherOrganization(Exception):
    """A self-hosted license has exactly one customer, and it is another one (L17)."""


def decide(license_: License | None, command: Command, *, actor: str, now: datetime) -> tuple[LicenseEvent, ...]:
    """The facts a command leads to; none when it asks for what already is.

    Args:
        license_: The license before, or None when its id is unknown.
        command: What is asked for.
        actor: Who asks (L20).
        now: The instant of the decision (L21).

    Raises:
        AlreadyIssued: `Issue` for a known id.
        NoSuchLicense: any other command for an unknown id.
        BoundToAnotherOrganization: `Activate` for a second organization of a self-hosted license.
    """
    if isinstance(command, Issue):
        if license_ is not None:
            raise AlreadyIssued(f"license {command.license_id} was issued at {license_.issued_at.isoformat()}")
        return (
            LicenseIssued(
                license_id=command.license_id,
                type=command.type,
                email=command.email,
                organization_name=command.organization_name,
                source=command.source,
                sealed_secret=command.sealed_secret,
                actor=actor,
                at=now,
            ),
        )
    if license_ is None:
        raise NoSuchLicense("this license was never issued")
    match command:
        case Activate():
            return _activate(license_, command, actor=actor, now=now)
        case Revoke():
            # A license is revoked once; the first reason stays the reason.
            return () if license_.status == "revoked" else (LicenseRevoked(command.reason, actor, now),)
        case _:
            assert_never(command)


def _activate(license_: License, command: Activate, *, actor: str, now: datetime) -> tuple[LicenseEvent, ...]:
    """A revoked license still notes its organization: that it was used is a fact, whatever became of it since."""
    if not license_.is_exclusive or license_.organization_id == command.organization_id:
        return ()
    if license_.organization_id is not None:
        raise BoundToAnotherOrganization(
            f"license {license_.license_id} belongs to organization {license_.organization_id}, "
            f"not to {command.organization_id} (L17)"
        )
    return (LicenseActivated(command.organization_id, actor, now),)


def evolve(license_: License | None, event: LicenseEvent) -> License:
    """The license after one more fact.

    Raises:
        NoSuchLicense: the stream does not begin with `LicenseIssued`.
    """
    if isinstance(event, LicenseIssued):
        return License(
            license_id=event.license_id,
            type=event.type,
            status="active",
            email=event.email,
            organization_name=event.organization_name,
            source=event.source,
            sealed_secret=event.sealed_secret,
            issued_at=event.at,
        )
    if license_ is None:
        raise NoSuchLicense("a license begins by being issued")
    revision = license_.revision + 1
    match event:
        case LicenseActivated():
            return replace(license_, revision=revision, organization_id=event.organization_id)
        case LicenseRevoked():
            return replace(
                license_, revision=revision, status="revoked", revoked_at=event.at, revocation_reason=event.reason
            )
        case _:
            assert_never(event)


def replay(events: Iterable[LicenseEvent], *, onto: License | None = None) -> License | None:
    """The license that a stream of facts tells of; None for an empty one."""
    license_ = onto
    for event in events:
        license_ = evolve(license_, event)
    return license_


def changes_what_is_published(events: Sequence[LicenseEvent]) -> bool:
    """Whether verifiers must hear of it: they need status and secret, not who uses the license."""
    return any(isinstance(event, LicenseIssued | LicenseRevoked) for event in events)
