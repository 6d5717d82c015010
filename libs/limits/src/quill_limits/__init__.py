"""Quill's limits in your own process."""

from quill_limits.book import Limit, LimitsBook, LimitsNotLoaded, Verdict
from quill_limits.follower import LimitsFollower, LimitsRefused
from quill_limits.thread import LimitsThread

__all__ = [
    "Limit",
    "LimitsBook",
    "LimitsFollower",
    "LimitsNotLoaded",
    "LimitsRefused",
    "LimitsThread",
    "Verdict",
]
