"""Operators add rule versions, run them in the shadow, activate or discard them; each is an event (L20)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from quill_runtime.event_store import NewEvent

from quill_quota_limiter.domain.rulebook import RuleAction, RulesConflict, RulesStanding, RuleVersion
from quill_quota_limiter.ports import LimitsTransaction

log = structlog.get_logger(__name__)

RULE_VERSIONS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Added:
    """The version a document has; ``is_repeat`` when an earlier one holds the same numbers."""

    version: RuleVersion
    is_repeat: bool


async def add_rules(
    document: dict[str, object], *, actor: str, reason: str, tx: LimitsTransaction, now: datetime
) -> Added:
    """Add a rule table as the next version. It decides nothing until it is activated.

    Raises:
        RulesConflict: there are as many versions as can be kept.
    """
    await tx.rulebook.lock_standing()
    versions = await tx.rulebook.versions()
    for known in versions:
        if known.document == document:
            return Added(known, is_repeat=True)
    if len(versions) >= RULE_VERSIONS_MAX:
        raise RulesConflict(f"there are {RULE_VERSIONS_MAX:,} rule versions already; use one of them")
    added = RuleVersion(versions[-1].version + 1, document, now, actor, reason)
    await tx.rulebook.add(added)
    data = {"version": added.version, "reason": reason, "before": None, "after": document}
    await tx.rulebook.record(NewEvent("version_added", data, actor, now))
    return Added(added, is_repeat=False)


async def start_shadow(version: int, *, actor: str, reason: str, tx: LimitsTransaction, now: datetime) -> RulesStanding:
    """Run a version beside the one in force.

    Raises:
        RulesConflict: see `RulesStanding.with_shadow`.
    """
    known = {each.version for each in await tx.rulebook.versions()}
    after = await _change(
        "shadow_started",
        version,
        lambda standing: standing.with_shadow(version, known=known, now=now),
        actor=actor,
        reason=reason,
        tx=tx,
        now=now,
    )
    await tx.rulebook.forget_shadow_runs(after.shadow_run)
    return after


async def discard_shadow(
    version: int, *, actor: str, reason: str, tx: LimitsTransaction, now: datetime
) -> RulesStanding:
    """Stop a shadow run; what it found stays to be read.

    Raises:
        RulesConflict: see `RulesStanding.without_shadow`.
    """
    return await _change(
        "shadow_discarded",
        version,
        lambda standing: standing.without_shadow(version),
        actor=actor,
        reason=reason,
        tx=tx,
        now=now,
    )


async def activate(version: int, *, actor: str, reason: str, tx: LimitsTransaction, now: datetime) -> RulesStanding:
    """Let a version decide from now on; `walk_everybody` decides everybody anew in pages.

    Raises:
        RulesConflict: see `RulesStanding.activated`.
    """
    known = {each.version for each in await tx.rulebook.versions()}
    return await _change(
        "activated",
        version,
        lambda standing: standing.activated(version, known=known),
        actor=actor,
        reason=reason,
        tx=tx,
        now=now,
    )


async def _change(
    action: RuleAction,
    version: int,
    change: Callable[[RulesStanding], RulesStanding],
    *,
    actor: str,
    reason: str,
    tx: LimitsTransaction,
    now: datetime,
) -> RulesStanding:
    before = await tx.rulebook.lock_standing()
    assert before is not None  # it waits for the row
    after = change(before)
    await tx.rulebook.save_standing(after)
    data = {
        "version": version,
        "reason": reason,
        "before": {"in_force": before.in_force, "shadow": before.shadow},
        "after": {"in_force": after.in_force, "shadow": after.shadow},
    }
    await tx.rulebook.record(NewEvent(action, data, actor, now))
    log.info("rules.changed", action=action, version=version, actor=actor)
    return after
