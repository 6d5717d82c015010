"""Lists and searches: pages of at most 100, newest first, and Stripe's search language as far as we use it."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource

DEFAULT_PAGE = 10
LARGEST_PAGE = 100

_CLAUSE = re.compile(
    r"""(?P<negated>-?)(?P<field>[a-z_]+)(?:\[(?P<quote>['"])(?P<key>[^'"]*)(?P=quote)\])?"""
    r"""(?P<operator>:|>=|<=|>|<)(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)"|(?P<number>-?[0-9]+))"""
)
_BETWEEN = re.compile(r"\s+(?:AND\s+)?")
MAX_CLAUSES = 10


def newest_first(resources: Iterable[Resource]) -> list[Resource]:
    """Orders as Stripe lists: the last created comes first."""
    return sorted(resources, key=lambda resource: -int(resource["_seq"]))


def page(resources: list[Resource], params: dict[str, Any], *, url: str) -> Resource:
    """Cuts one page out of an ordered list.

    Args:
        resources: Everything that matches, in the order shown.
        params: `limit` (default 10, at most 100), `starting_after` or `ending_before`, `created`.
        url: Path repeated in the answer.

    Raises:
        StripeError: 400 for a limit out of range or a cursor that is not in the list.
    """
    matching = [resource for resource in resources if _is_within(_created(resource), params.get("created"))]
    limit = _limit(params)
    first = 0
    if "starting_after" in params:
        first = _position(matching, params["starting_after"], "starting_after") + 1
    if "ending_before" in params:
        stop = _position(matching, params["ending_before"], "ending_before")
        first = max(0, stop - limit)
        return _list(matching[first:stop], has_more=first > 0, url=url)
    shown = matching[first : first + limit]
    return _list(shown, has_more=first + limit < len(matching), url=url)


def search(resources: Iterable[Resource], params: dict[str, Any], *, url: str) -> Resource:
    """Answers a search, such as `metadata['operation_id']:'close-7' AND status:'draft'`.

    Raises:
        StripeError: 400 for a clause outside the part of the language that is simulated.
    """
    clauses = list(_clauses(params["query"].strip()))
    found = [each for each in newest_first(resources) if all(_matches(each, clause) for clause in clauses)]
    limit = _limit(params)
    first = _position(found, params["page"], "page") + 1 if "page" in params else 0
    shown = found[first : first + limit]
    has_more = first + limit < len(found)
    next_page = shown[-1]["id"] if has_more else None
    return {"object": "search_result", "data": shown, "has_more": has_more, "next_page": next_page, "url": url}


def _list(shown: list[Resource], *, has_more: bool, url: str) -> Resource:
    return {"object": "list", "data": shown, "has_more": has_more, "url": url}


def _limit(params: dict[str, Any]) -> int:
    limit = int(params.get("limit", DEFAULT_PAGE))
    if not 1 <= limit <= LARGEST_PAGE:
        raise StripeError(f"Invalid limit: must be between 1 and {LARGEST_PAGE}", param="limit")
    return limit


def _position(resources: list[Resource], cursor: str, param: str) -> int:
    for position, resource in enumerate(resources):
        if resource["id"] == cursor:
            return position
    raise StripeError(f"No such object in this list: '{cursor}'", code="resource_missing", param=param)


def _created(resource: Resource) -> int | None:
    """Invoice items call it `date`."""
    created: int | None = resource.get("created", resource.get("date"))
    return created


def _is_within(value: int | None, wanted: int | dict[str, int] | None) -> bool:
    if wanted is None:
        return True
    if value is None:
        return False
    if isinstance(wanted, int):
        return value == wanted
    return (
        value > wanted.get("gt", value - 1)
        and value >= wanted.get("gte", value)
        and value < wanted.get("lt", value + 1)
        and value <= wanted.get("lte", value)
    )


def _clauses(query: str) -> Iterator[re.Match[str]]:
    """Reads clause after clause, so that a quoted value may hold anything."""
    at = 0
    for _ in range(MAX_CLAUSES):
        clause = _CLAUSE.match(query, at)
        if clause is None:
            raise StripeError(f"We were unable to parse your search query: {query[at:]}", param="query")
        yield clause
        between = _BETWEEN.match(query, clause.end())
        if clause.end() == len(query):
            return
        if between is None:
            raise StripeError(f"We were unable to parse your search query: {query[clause.end() :]}", param="query")
        at = between.end()
    raise StripeError(f"A search query can have at most {MAX_CLAUSES} clauses.", param="query")


def _matches(resource: Resource, clause: re.Match[str]) -> bool:
    value = resource.get(clause["field"])
    if clause["key"] is not None:
        value = (value or {}).get(clause["key"])
    if clause["number"] is not None:
        found = _compares(value, clause["operator"], int(clause["number"]))
    else:
        wanted = clause["single"] if clause["single"] is not None else clause["double"]
        found = value is not None and str(value).casefold() == wanted.casefold()
    return found != bool(clause["negated"])


def _compares(value: Any, operator: str, wanted: int) -> bool:
    if not isinstance(value, int):
        return False
    return {
        ":": value == wanted,
        ">": value > wanted,
        ">=": value >= wanted,
        "<": value < wanted,
        "<=": value <= wanted,
    }[operator]
