"""Whether all usage of a period is in: the gate before a closing, and the named waivers that open it (L13, L20)."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from quill_pricing.period import BillingPeriod


@dataclass(frozen=True, slots=True)
class Waiver:
    """A named person's word that ``source`` need not be waited for up to ``through``; for one organization or all."""

    source: str
    waiver_id: str
    through: datetime
    actor: str
    reason: str
    at: datetime
    organization_id: str | None = None

    def covers(self, organization_id: str, period: BillingPeriod) -> bool:
        """Whether it stands in for this source at the end of this organization's period."""
        return period.end <= self.through and self.organization_id in (None, organization_id)


@dataclass(frozen=True, slots=True)
class SourceStanding:
    """What is known here of one source of usage; ``waivers`` are those in force."""

    source: str
    revision: int
    is_expected: bool
    state: str
    complete_through: datetime | None = None
    heard_at: datetime | None = None
    waivers: tuple[Waiver, ...] = ()

    def is_complete(self, period: BillingPeriod) -> bool:
        """Whether it has told everything up to the period's end."""
        return self.complete_through is not None and period.end <= self.complete_through


@dataclass(frozen=True, slots=True)
class Judgement:
    """Which sources a closing waits for, and which it goes on without, by whose word."""

    missing: tuple[str, ...] = ()
    waived: tuple[Waiver, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldClosing:
    """A closing whose time has come and that waits for sources."""

    organization_id: str
    period: BillingPeriod
    missing: tuple[str, ...]
    since: datetime


@dataclass(frozen=True, slots=True)
class ExpectedSources:
    """All sources as they are known, and under which name a license reports.

    Nobody is expected until an operator says so: until then every closing goes on as if there were no gate.
    """

    standings: Mapping[str, SourceStanding] = field(default_factory=dict)
    source_of_license: Callable[[str], str | None] = lambda _license_id: None

    @property
    def is_any_expected(self) -> bool:
        return any(standing.is_expected for standing in self.standings.values())

    def judge(
        self, organization_id: str, period: BillingPeriod, *, names: Collection[str], license_id: str | None
    ) -> Judgement:
        """Every expected source of the organization must be complete through the period's end, or be waived.

        Its sources are ``names``, which ever reported for it, and the one its license stands for.
        """
        own = None if license_id is None else self.source_of_license(license_id)
        missing, waived = [], []
        for name in sorted({*names, own} - {None}, key=str):
            standing = self.standings.get(str(name))
            if standing is None or not standing.is_expected or standing.is_complete(period):
                continue
            covering = [waiver for waiver in standing.waivers if waiver.covers(organization_id, period)]
            if covering:
                waived.append(min(covering, key=lambda waiver: (waiver.at, waiver.waiver_id)))
            else:
                missing.append(standing.source)
        return Judgement(tuple(missing), tuple(waived))


NOBODY_EXPECTED = ExpectedSources()
