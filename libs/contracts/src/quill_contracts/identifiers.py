"""Wire forms of ids, instants and quantities shared by every message. No arithmetic here."""

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

QUANTITY_MAX = 10**15 - 1
"""Fifteen digits: the most a Stripe meter event carries, and far above any honest counter of one window."""


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None or instant.utcoffset() != timedelta(0):
        raise ValueError("must be an instant in UTC with an explicit offset, e.g. 2026-10-01T00:00:00Z (L21)")
    return instant


Instant = Annotated[datetime, AfterValidator(_utc)]
"""An aware UTC instant (L21)."""

OrganizationId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.:-]+$")]
TeamId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
"""PostHog's id of a team (project), as the source spells it."""
LicenseId = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_-]+$")]
SourceName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$")]
"""Who counted: a region, an instance, or a product that sends meter events."""
UsageKey = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[a-z0-9_]+$")]
"""A meter's key, e.g. ``events``: what PostHog calls the usage key."""
ProductKey = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[a-z0-9_]+$")]
CounterName = Annotated[str, Field(min_length=1, max_length=200)]
"""A number in a usage report, e.g. ``event_count_in_period``; the catalog says which meter it feeds."""
Quantity = Annotated[int, Field(ge=0, le=QUANTITY_MAX, strict=True)]
PeriodTotal = Annotated[int, Field(ge=0, le=2**63 - 1, strict=True)]
"""A sum of quantities over a period: many windows at their maximum must still fit."""
Revision = Annotated[int, Field(ge=1, strict=True)]
"""Rising number on each version of a derived fact; readers keep the highest and ignore the rest."""
Currency = Annotated[str, Field(pattern=r"^[a-z]{3}$")]
DecimalString = Annotated[str, Field(pattern=r"^-?\d+(\.\d+)?$")]
"""Money or a unit price in major units as an exact decimal string, e.g. ``"393.00"``; never a float (L11)."""
