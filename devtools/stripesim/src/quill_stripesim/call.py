"""One request as a resource sees it, and how a resource says which requests it answers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from quill_stripesim.stripe_error import not_simulated
from quill_stripesim.world import Resource, World


@dataclass(frozen=True, slots=True)
class Call:
    """A checked request.

    Attributes:
        params: Typed parameters (`parameters.check`), without `expand`.
        ids: Ids from the path.
        now: The simulator's own instant, unix seconds; a customer on a test clock lives at another.
        path: The requested path, which lists repeat as their `url`.
    """

    world: World
    params: dict[str, Any]
    ids: dict[str, str]
    now: int
    path: str


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint.

    Attributes:
        spec: The SDK's TypedDict for the request's parameters.
        honours: Parameters that have an effect here; the others that Stripe knows are refused instead of ignored.
    """

    method: str
    path: str
    answer: Callable[[Call], Resource]
    spec: type
    honours: frozenset[str] = field(default=frozenset())

    def refuse_ignored(self, params: dict[str, Any]) -> None:
        """Refuses what Stripe would act on and the simulator would not.

        Raises:
            StripeError: 400 with code `not_simulated`.
        """
        for name in params:
            if name not in self.honours and name != "expand":
                raise not_simulated(name)


def honours(*names: str) -> frozenset[str]:
    """Names the parameters a route acts on."""
    return frozenset(names)


LISTING = honours("limit", "starting_after", "ending_before", "created")
"""What every list endpoint takes."""
