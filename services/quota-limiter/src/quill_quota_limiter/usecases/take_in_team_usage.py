"""Take in what teams used, and decide the scopes that it concerns."""

from collections.abc import Sequence
from datetime import datetime

from quill_quota_limiter.domain.team_usage import TeamUsage
from quill_quota_limiter.ports import LimitsTransaction
from quill_quota_limiter.usecases.evaluate import Decided, evaluate_organizations


async def take_in_team_usage(usages: Sequence[TeamUsage], *, tx: LimitsTransaction, now: datetime) -> Decided:
    """Keep newer usage of teams and decide the organizations that have scopes; for the others it waits for a scope.

    The organization's row is locked for those too: who sets the first scope must not miss what is kept meanwhile (L9).

    Returns:
        The limits decided: what is to be put up after the commit.
    """
    newest: dict[tuple[str, str], TeamUsage] = {}
    for usage in usages:
        known = newest.get((usage.organization_id, usage.team_id))
        if known is None or usage.revision > known.revision:
            newest[usage.organization_id, usage.team_id] = usage
    locked = await tx.lock_organizations({name for name, _ in newest})
    await tx.keep_team_usage(newest.values())
    scoped = {name: limits for name, limits in locked.items() if limits.scopes is not None}
    return await evaluate_organizations(scoped, tokens_changed=frozenset(), tx=tx, now=now) if scoped else []
