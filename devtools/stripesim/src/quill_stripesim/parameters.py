"""Requests held to the SDK's own parameter types.

The pinned SDK carries a TypedDict per request, so the check follows exactly the API version under test and needs no
copy of Stripe's specification. Enumerations that the SDK leaves open (`Literal[...] | str`) are closed here: an open
one passes a type checker and fails only at the real API.
"""

import re
import sys
import types
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints

from stripe import RequestOptions
from stripe._stripe_object import UntypedStripeObject
from typing_extensions import is_typeddict

from quill_stripesim.stripe_error import StripeError

MAX_DECIMAL_PLACES = 12
MAX_METADATA_KEYS = 50
MAX_METADATA_KEY_LENGTH = 40
MAX_METADATA_VALUE_LENGTH = 500

_INTEGER = re.compile(r"^-?[0-9]{1,18}$")
_DECIMAL = re.compile(r"^-?[0-9]{1,18}(\.[0-9]+)?$")
_OPTION_NAMES = frozenset(RequestOptions.__annotations__)


class _NotThisKind(Exception):
    """One member of a union does not fit; another may."""


@cache
def fields_of(spec: type) -> Mapping[str, tuple[Any, bool]]:
    """Resolves a parameter TypedDict into `{name: (type, is required)}`, without the SDK's own request options."""
    bare = types.new_class("Resolved")
    # Parameter types inherit the SDK's client options (key, retries …): those never travel in a body.
    bare.__annotations__ = {
        name: annotation for name, annotation in spec.__annotations__.items() if name not in _OPTION_NAMES
    }
    hints = get_type_hints(bare, globalns=vars(sys.modules[spec.__module__]), include_extras=True)
    return {
        name: (get_args(hint)[0], False) if get_origin(hint) is NotRequired else (hint, True)
        for name, hint in hints.items()
    }


def check(received: Mapping[str, Any], spec: type, *, at: str = "") -> dict[str, Any]:
    """Turns decoded form fields into typed parameters.

    Args:
        received: Nested mappings of strings, from `decode_form`.
        spec: The SDK's TypedDict for the request.
        at: Name of the parameter that holds `received`, for the answer's `param`.

    Returns:
        The parameters with integers, booleans, exact decimals, lists and mappings in place of strings.

    Raises:
        StripeError: 400 with code `parameter_unknown`, `parameter_missing` or `parameter_invalid_…`, naming `param`.
    """
    fields = fields_of(spec)
    for name in received:
        if name not in fields:
            param = _inside(at, name)
            raise StripeError(f"Received unknown parameter: {param}", code="parameter_unknown", param=param)
    for name, (_, is_required) in fields.items():
        if is_required and name not in received:
            param = _inside(at, name)
            raise StripeError(f"Missing required param: {param}.", code="parameter_missing", param=param)
    return {name: _typed(value, fields[name][0], _inside(at, name)) for name, value in received.items()}


def _inside(at: str, name: str) -> str:
    return f"{at}[{name}]" if at else name


def _typed(value: Any, kind: Any, param: str) -> Any:
    try:
        converted = _convert(value, kind, param)
    except _NotThisKind as mismatch:
        raise StripeError(f"Invalid {param}: {mismatch}", code=_code_for(kind, value=value), param=param) from mismatch
    if param == "metadata" or param.endswith("[metadata]"):
        _check_metadata(converted, param)
    return converted


def _convert(value: Any, kind: Any, param: str) -> Any:
    origin = get_origin(kind)
    if origin in {Union, types.UnionType}:
        return _convert_union(value, get_args(kind), param)
    if origin is Literal:
        if value in get_args(kind):
            return value
        raise _NotThisKind(f"must be one of {', '.join(repr(option) for option in get_args(kind))}")
    if origin in {list, dict} or is_typeddict(kind):
        return _convert_nested(value, kind, param)
    if not isinstance(value, str):
        raise _NotThisKind("must be a value, not a mapping or a list")
    return _SCALARS[kind](value)


def _convert_bool(value: str) -> bool:
    if value in {"true", "false"}:
        return value == "true"
    raise _NotThisKind("must be true or false")


def _convert_int(value: str) -> int:
    if _INTEGER.match(value):
        return int(value)
    raise _NotThisKind("must be an integer")


def _convert_decimal(value: str) -> Decimal:
    """Reads a decimal exactly.

    Scientific notation is refused: whether Stripe takes it is not known, so nothing may rest on it.
    """
    if not _DECIMAL.match(value):
        raise _NotThisKind("must be a plain decimal")
    if len(value.partition(".")[2]) > MAX_DECIMAL_PLACES:
        raise _NotThisKind(f"must have at most {MAX_DECIMAL_PLACES} decimal places")
    return Decimal(value)


def _convert_nested(value: Any, kind: Any, param: str) -> Any:
    if not isinstance(value, dict):
        raise _NotThisKind("must be a list" if get_origin(kind) is list else "must be an object")
    if is_typeddict(kind):
        return check(value, kind, at=param)
    if get_origin(kind) is dict:
        return {name: _typed(member, get_args(kind)[1], _inside(param, name)) for name, member in value.items()}
    if any(not index.isdigit() for index in value):
        raise _NotThisKind("must be a list")
    element = get_args(kind)[0]
    ordered = sorted(value.items(), key=lambda entry: int(entry[0]))
    return [_typed(member, element, _inside(param, index)) for index, member in ordered]


def _convert_union(value: Any, members: tuple[Any, ...], param: str) -> Any:
    closed = _closed(members)
    if len(closed) == 1:
        return _convert(value, closed[0], param)
    # Text is the last resort: "7" in `int | str` is a number.
    reasons = []
    for member in sorted(closed, key=lambda kind: kind is str):
        is_nested = is_typeddict(member) or get_origin(member) in {list, dict}
        if is_nested and not isinstance(value, dict):
            continue
        try:
            return _convert(value, member, param)
        except _NotThisKind as mismatch:
            reasons.append(str(mismatch))
    raise _NotThisKind("; ".join(reasons) or "must be an object")


def _closed(members: tuple[Any, ...]) -> list[Any]:
    """Drops `str` beside an enumeration, and the SDK's own object type, which never travels."""
    has_enumeration = any(get_origin(member) is Literal and get_args(member) != ("",) for member in members)
    return [
        member
        for member in members
        if get_origin(member) is not UntypedStripeObject and not (member is str and has_enumeration)
    ]


def _code_for(kind: Any, *, value: Any) -> str | None:
    if value == "":
        return "parameter_invalid_empty"
    if kind is int:
        return "parameter_invalid_integer"
    if kind is str:
        return "parameter_invalid_string_blank"
    return None


def _check_metadata(metadata: Any, param: str) -> None:
    if not isinstance(metadata, dict):
        return
    if len(metadata) > MAX_METADATA_KEYS:
        raise StripeError(f"You can set at most {MAX_METADATA_KEYS} metadata keys.", param=param)
    for key, value in metadata.items():
        if len(key) > MAX_METADATA_KEY_LENGTH:
            raise StripeError(f"Metadata keys can be at most {MAX_METADATA_KEY_LENGTH} characters.", param=param)
        if len(value) > MAX_METADATA_VALUE_LENGTH:
            raise StripeError(f"Metadata values can be at most {MAX_METADATA_VALUE_LENGTH} characters.", param=param)


# The SDK calls percentages float; they are read exactly like every other decimal (L11).
_SCALARS: Mapping[Any, Callable[[str], Any]] = {
    str: str,
    bool: _convert_bool,
    int: _convert_int,
    Decimal: _convert_decimal,
    float: _convert_decimal,
}
