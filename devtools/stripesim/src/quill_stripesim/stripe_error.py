"""The one shape in which Stripe refuses a request."""

from typing import Any


class StripeError(Exception):
    """A refusal as Stripe words it.

    Attributes:
        status: HTTP status of the answer.
        keeps_changes: Whether the world keeps what the request changed before it was refused (a declined card is
            still an attempt).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        keeps_changes: bool = False,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.keeps_changes = keeps_changes
        self.details = details

    def body(self) -> dict[str, Any]:
        """Returns the JSON document of the answer."""
        error: dict[str, Any] = {"type": self.kind, "message": self.message, **self.details}
        if self.code is not None:
            error["code"] = self.code
        if self.param is not None:
            error["param"] = self.param
        return {"error": error}


def no_such(kind: str, identifier: str, *, param: str | None = None) -> StripeError:
    """Says that an object does not exist: 404 for the object in the path, 400 for one named by a parameter."""
    return StripeError(
        f"No such {kind}: '{identifier}'",
        status=404 if param is None else 400,
        code="resource_missing",
        param=param or "id",
    )


def not_simulated(param: str) -> StripeError:
    """Says that Stripe knows a parameter but the simulator would silently ignore it, which is worse than refusing."""
    return StripeError(
        f"quill-stripesim does not simulate '{param}'; it is refused so that no test rests on it.",
        code="not_simulated",
        param=param,
    )
