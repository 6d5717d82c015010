"""What a quota check may be asked with: bodies, bounds, and what is refused by field. No framework model here."""

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from quill_runtime.problems import Problem

CHECKS_MAX: Final = 10_000
NAME_LENGTH_MAX: Final = 200

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH_MAX)]


class Check(msgspec.Struct, frozen=True, gc=False):
    """One check: an organization, or one of its teams; or a project token."""

    usage_key: Name
    organization_id: Name | None = None
    token: Name | None = None
    team: Name | None = None


class Checks(msgspec.Struct, frozen=True):
    """The body of ``POST /v1/quota``."""

    checks: list[Check]


class PackedChecks(msgspec.Struct, frozen=True):
    """The body of ``POST /v1/quota/packed``: one of both lists."""

    usage_key: Name
    organization_ids: list[Name] | None = None
    tokens: list[Name] | None = None


_decode_checks: Final = msgspec.json.Decoder(Checks).decode
_decode_packed: Final = msgspec.json.Decoder(PackedChecks).decode


def read_checks(body: bytes) -> list[Check]:
    """The checks of a batch.

    Raises:
        Problem: 400 naming the field.
    """
    checks: list[Check] = _read(body, _decode_checks, field_name="checks").checks
    _check_count(len(checks), attr="checks", what="checks")
    for number, check in enumerate(checks):
        if (check.organization_id is None) == (check.token is None):
            raise Problem(
                400,
                "invalid_input",
                f"checks[{number}]: give either organization_id or token",
                attr=f"checks__{number}",
            )
        if check.team is not None and check.organization_id is None:
            raise Problem(
                400,
                "invalid_input",
                f"checks[{number}]: a team is one of an organization: give organization_id",
                attr=f"checks__{number}__team",
            )
    return checks


def read_packed(body: bytes) -> PackedChecks:
    """One meter and whom it is asked for.

    Raises:
        Problem: 400 naming the field.
    """
    asked: PackedChecks = _read(body, _decode_packed, field_name="organization_ids")
    if (asked.organization_ids is None) == (asked.tokens is None):
        raise Problem(400, "invalid_input", "give either organization_ids or tokens", attr="organization_ids")
    attr = "organization_ids" if asked.tokens is None else "tokens"
    _check_count(len(asked.organization_ids or asked.tokens or ()), attr=attr, what="names")
    return asked


def _check_count(count: int, *, attr: str, what: str) -> None:
    if count > CHECKS_MAX:
        raise Problem(400, "too_many_checks", f"at most {CHECKS_MAX:,} {what} at once, not {count:,}", attr=attr)


def _read(body: bytes, decode: Callable[[bytes], Any], *, field_name: str) -> Any:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise Problem(400, "invalid_input", str(error), attr=_attribute(error) or field_name) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, "not_json", f"the body is not JSON: {error}") from error


def _attribute(error: msgspec.ValidationError) -> str:
    """Msgspec ends its messages with a path such as ``$.checks[3].usage_key``."""
    _, _, path = str(error).partition("at `$")
    return path.rstrip("`").replace("[", "__").replace("]", "").replace(".", "__").strip("_")
