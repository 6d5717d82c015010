"""Names in Redis, in one place for those who write and those who read.

Answers live in a **generation**: a rebuild fills a new one beside the one that is read; one script moves the pointer
(invariant 13). What guards the sorted sets of PostHog lives outside generations, as those sets do.
"""

from typing import Final

POINTER: Final = "quill:limits-board:generation"
"""The generation that is read; absent when the board was emptied."""
BUILDING: Final = "quill:limits-board:rebuilding"
"""The generation that a rebuild is filling; writers write to both."""
SEQUENCE: Final = "quill:limits-board:sequence"
EPOCH: Final = "quill:limits-board:epoch"
"""Drawn anew when the board was emptied: sequences of another epoch mean nothing."""
CHANGED: Final = "quill:limits-board:changed"
"""Sorted set of organizations by the sequence of their newest change: what a reader missed since."""
METERS: Final = "quill:limits-board:meters"
CHANNEL: Final = "quill:limits-board:changes"
GUARD_PREFIX: Final = "quill:limits-marks:"
"""``<revision> <digest of the marks> <tokens revision>`` of each organization."""

ANSWER_PREFIX: Final = "quill:limits:"
REVISIONS_PREFIX: Final = "quill:limits-revisions:"
TOKENS_PREFIX: Final = "quill:limits-tokens:"

LIMITED_PREFIX: Final = "@posthog/quota-limits/"
SUSPENDED_PREFIX: Final = "@posthog/quota-limiting-suspended/"


def answer_key(generation: str, organization_id: str) -> str:
    """The answer to every check of one organization."""
    return f"{ANSWER_PREFIX}{generation}:{organization_id}"


def revisions_key(generation: str) -> str:
    """A hash: the revision of each answer, so that a reader who has it need not fetch it."""
    return REVISIONS_PREFIX + generation


def tokens_key(generation: str) -> str:
    """A hash: the organization of each project token that is in use."""
    return TOKENS_PREFIX + generation
