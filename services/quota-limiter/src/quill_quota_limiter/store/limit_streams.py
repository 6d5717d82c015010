"""Where the transitions of a limit are kept in the event store."""


def stream_of(organization_id: str, usage_key: str, scope: str | None = None) -> str:
    """The event stream of one limit; a team's id may hold anything, so it comes last."""
    if scope is None:
        return f"limit/{organization_id}/{usage_key}"
    return f"limit-of-scope/{organization_id}/{usage_key}/{scope}"
