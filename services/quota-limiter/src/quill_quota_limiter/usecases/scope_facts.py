"""What the scopes of locked organizations are decided from."""

from collections.abc import Collection

from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.organization_scopes import ScopeFacts
from quill_quota_limiter.ports import LimitsTransaction


async def read_scope_facts(locked: Collection[OrganizationLimits], *, tx: LimitsTransaction) -> dict[str, ScopeFacts]:
    """Usage and tokens by team, and prices where a cap is in money; nothing is read for who has no scopes."""
    scoped = {limits.organization_id: limits.scopes for limits in locked if limits.scopes is not None}
    if not scoped:
        return {}
    tokens = await tx.tokens(scoped.keys())
    return {
        name: ScopeFacts(
            usage=await tx.team_usages(name),
            tokens=tokens[name].teams,
            prices=await tx.prices(name) if scopes.settings.has_money else {},
        )
        for name, scopes in scoped.items()
    }
