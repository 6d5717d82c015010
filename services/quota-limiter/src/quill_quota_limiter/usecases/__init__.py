"""Load, decide, save: one use case, one transaction. Answers go up after the commit."""

from quill_quota_limiter.usecases.answers import (
    TokensReader,
    publish_answers,
    rebuild_answers,
    rebuild_if_lost,
)
from quill_quota_limiter.usecases.evaluate import (
    evaluate_due,
    take_in_credits,
    take_in_customers,
    take_in_usage,
    walk_everybody,
)

__all__ = [
    "TokensReader",
    "evaluate_due",
    "publish_answers",
    "rebuild_answers",
    "rebuild_if_lost",
    "take_in_credits",
    "take_in_customers",
    "take_in_usage",
    "walk_everybody",
]
