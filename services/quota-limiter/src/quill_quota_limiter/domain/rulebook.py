"""Which rule version decides, which one runs beside it, and whether everybody has been decided with them."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

RuleAction = Literal["shadow_started", "shadow_discarded", "activated"]
EVERYBODY: Final = ""
"""Where a walk through all organizations begins."""


class RulesConflict(ValueError):
    """The command does not fit where the rules stand; the text says what to do first."""


@dataclass(frozen=True, slots=True)
class RuleVersion:
    """One version as it was added; ``document`` is the table's wire form and never changes."""

    version: int
    document: dict[str, object]
    created_at: datetime
    created_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class RulesStanding:
    """Where the rules stand.

    Attributes:
        in_force: the version that decides.
        shadow: the version that runs beside it, if any.
        shadow_since: when it began.
        shadow_run: rises with each shadow run, so that what an earlier run left means nothing to a later one.
        last_shadow: the version of the newest run, also when it is over.
        walked_to: the last organization that was decided anew since the rules changed; ``None`` when all have been.
        retired: versions that were in force before; they may come back without a shadow run.
    """

    in_force: int
    shadow: int | None = None
    shadow_since: datetime | None = None
    shadow_run: int = 0
    last_shadow: int | None = None
    walked_to: str | None = None
    retired: tuple[int, ...] = ()

    def with_shadow(self, version: int, *, known: Collection[int], now: datetime) -> "RulesStanding":
        """Run ``version`` beside the one in force, for everybody from the beginning.

        Raises:
            RulesConflict: it does not exist, decides already, or another one runs in the shadow.
        """
        _check_known(version, known)
        if version == self.in_force:
            raise RulesConflict(f"rule version {version} is in force; a shadow is a version that is not")
        if self.shadow is not None:
            raise RulesConflict(f"rule version {self.shadow} runs in the shadow already; activate or discard it first")
        return replace(
            self,
            shadow=version,
            shadow_since=now,
            shadow_run=self.shadow_run + 1,
            last_shadow=version,
            walked_to=EVERYBODY,
        )

    def without_shadow(self, version: int) -> "RulesStanding":
        """Stop the shadow run of ``version``; nobody's limits change.

        Raises:
            RulesConflict: it does not run.
        """
        if version != self.shadow:
            raise RulesConflict(f"rule version {version} does not run in the shadow; {self._running()}")
        return replace(self, shadow=None, shadow_since=None)

    def activated(self, version: int, *, known: Collection[int]) -> "RulesStanding":
        """Let ``version`` decide from now on, for everybody.

        A version that was never in force must have run in the shadow: nobody is limited by numbers that were not seen
        at work. Another version's shadow run ends, since it was compared with rules that no longer hold.

        Raises:
            RulesConflict: it does not exist, is in force, or has neither run in the shadow nor been in force.
        """
        _check_known(version, known)
        if version == self.in_force:
            raise RulesConflict(f"rule version {version} is in force already")
        if version != self.shadow and version not in self.retired:
            raise RulesConflict(f"rule version {version} has not run in the shadow; {self._running()}")
        return RulesStanding(
            in_force=version,
            shadow_run=self.shadow_run,
            last_shadow=self.last_shadow,
            walked_to=EVERYBODY,
            retired=(*(each for each in self.retired if each != version), self.in_force),
        )

    def _running(self) -> str:
        return "none does: start it first" if self.shadow is None else f"version {self.shadow} does"


def _check_known(version: int, known: Collection[int]) -> None:
    if version not in known:
        raise RulesConflict(f"there is no rule version {version}; known: {', '.join(map(str, sorted(known)))}")
