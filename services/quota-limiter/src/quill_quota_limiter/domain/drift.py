"""Differences between what is decided and what the board shows. Pure: both sides are arguments."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from quill_quota_limiter.domain.project_marks import ProjectMarks, ProjectTokens
from quill_quota_limiter.domain.quota_answer import OrganizationStanding

DriftKind = Literal[
    "missing_answer", "stale_answer", "wrong_answer", "unknown_organization", "wrong_mark", "foreign_mark"
]


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference; ``detail`` says what is there and what should be."""

    kind: DriftKind
    subject: str
    detail: str


def answer_drift(
    organization_id: str, decided: OrganizationStanding, shown: OrganizationStanding | None
) -> Drift | None:
    """How the board's answer differs from what is decided. A newer one is no drift: it was decided since."""
    if shown is None:
        return Drift("missing_answer", organization_id, f"revision {decided.revision} is not on the board")
    if shown.revision < decided.revision:
        return Drift(
            "stale_answer", organization_id, f"the board shows revision {shown.revision}, not {decided.revision}"
        )
    if shown.revision == decided.revision and shown != decided:
        return Drift("wrong_answer", organization_id, f"revision {decided.revision} reads otherwise on the board")
    return None


def mark_drifts(
    organization_id: str,
    marks: ProjectMarks,
    tokens: ProjectTokens,
    shown: Mapping[tuple[str, str], Mapping[str, int]],
    *,
    usage_keys: Collection[str],
) -> list[Drift]:
    """Wrong marks of an organization's project tokens.

    ``shown``: for ("limited" or "suspended", meter), the score of each token that has one.
    """
    drifts = []
    active, scoped = frozenset(tokens.active), marks.limited_tokens(tokens)
    for kind, ends in (("limited", marks.limited), ("suspended", marks.suspended)):
        for usage_key in usage_keys:
            scores, end = shown.get((kind, usage_key), {}), ends.get(usage_key)
            of_scopes = scoped.get(usage_key, {}) if kind == "limited" else {}
            for token in (*tokens.active, *tokens.retired):
                should = of_scopes.get(token, end) if token in active else None
                if scores.get(token) != should:
                    drifts.append(
                        Drift(
                            "wrong_mark",
                            token,
                            f"{organization_id}, {kind} on {usage_key}: {scores.get(token)}, should be {should}",
                        )
                    )
    return drifts
