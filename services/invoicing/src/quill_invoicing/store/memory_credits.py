"""What customers are owed, in memory."""

from collections import defaultdict

from quill_invoicing.domain.credits import CreditBalance, CreditEntry


class MemoryCreditRows:
    """The credit part of a transaction in memory; ``_credits`` is the copy it changes."""

    _credits: dict[str, CreditEntry]

    async def add_credit_entry(self, entry: CreditEntry) -> bool:
        if entry.entry_id in self._credits:
            return False
        self._credits[entry.entry_id] = entry
        return True

    async def credit_balance(self, organization_id: str, currency: str) -> int:
        return sum(
            entry.amount_minor
            for entry in self._credits.values()
            if (entry.organization_id, entry.currency) == (organization_id, currency)
        )

    async def credit_entries_of(self, organization_id: str, *, limit: int) -> list[CreditEntry]:
        own = [entry for entry in self._credits.values() if entry.organization_id == organization_id]
        return sorted(own, key=lambda entry: (-entry.recorded_at.timestamp(), entry.entry_id))[:limit]

    async def credit_balances(
        self, *, organization_id: str | None = None, after: tuple[str, str] = ("", ""), limit: int
    ) -> list[CreditBalance]:
        sums: dict[tuple[str, str], int] = defaultdict(int)
        for entry in self._credits.values():
            sums[entry.organization_id, entry.currency] += entry.amount_minor
        found = [
            CreditBalance(name, currency, balance)
            for (name, currency), balance in sorted(sums.items())
            if ((name, currency) > after and balance != 0 if organization_id is None else name == organization_id)
        ]
        return found[:limit]
