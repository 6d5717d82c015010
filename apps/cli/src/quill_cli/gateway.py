"""Talking to Quill's one base address: where it is, who asks, and what a refusal means for the person who asked."""

import ipaddress
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn
from urllib.parse import quote, urlsplit

import httpx
import typer

from quill_cli.printing import one_line

TIMEOUT_SECONDS: Final = 20.0
LOCAL_STACK_FILE: Final = Path(".local/stack/env.json")
EXIT_REFUSED: Final = 1

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="QUILL_URL", help="Base address of Quill; that of a running `make up` if absent."),
]
Token = Annotated[
    str | None,
    typer.Option("--token", envvar="QUILL_TOKEN", help="Bearer token of an operator.", show_envvar=True),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's JSON for machines.")]


class Unanswered(Exception):
    """Nothing answered in time; whether a change was made is unknown."""


class Refused(Exception):
    """The API answered with an error; ``advice`` says what to do next, ``status`` is None if the answer was odd."""

    def __init__(self, text: str, *, advice: str, status: int | None = None) -> None:
        super().__init__(text)
        self.advice = advice
        self.status = status


@dataclass(frozen=True, slots=True)
class Address:
    """Where Quill answers and with which token it is asked."""

    url: str
    token: str | None = field(repr=False)


def choose_address(url: str | None, token: str | None, *, folder: Path) -> Address:
    """What was given, else what the nearest running `make up` wrote.

    The local stack's token goes to the local stack alone: with another address a token must be given too.

    Raises:
        typer.BadParameter: no address, or one that is not http(s).
    """
    local = _local_stack(folder)
    chosen = url or local.get("base_url")
    if chosen is None:
        raise typer.BadParameter("where is Quill? Set QUILL_URL (and QUILL_TOKEN), or run `make up` here first")
    if urlsplit(chosen).scheme not in ("http", "https") or not urlsplit(chosen).hostname:
        raise typer.BadParameter(f"--url: {chosen!r} is not an address like https://billing.example")
    is_local = chosen.rstrip("/") == str(local.get("base_url", "")).rstrip("/")
    return Address(chosen.rstrip("/"), token or (local.get("operator_token") if is_local else None))


def _local_stack(folder: Path) -> Mapping[str, str]:
    for place in (folder, *folder.parents):
        path = place / LOCAL_STACK_FILE
        if path.is_file():
            try:
                found = json.loads(path.read_bytes())
            except (OSError, ValueError):
                return {}
            return found if isinstance(found, dict) else {}
    return {}


class Gateway:
    """Asks Quill. Every answer is JSON; everything else is an error with a next step."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def get(self, path: str, **query: object) -> "Answer":
        """Read.

        Raises:
            Refused | Unanswered: see there.
        """
        given = {name: str(value) for name, value in query.items() if value is not None}
        return self._ask("GET", path, params=given)

    def post(self, path: str, body: Mapping[str, object] | None = None, **headers: str) -> "Answer":
        """Change.

        Raises:
            Refused | Unanswered: see there.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._ask("POST", path, json=body, headers=named)

    def put(self, path: str, body: Mapping[str, object]) -> "Answer":
        """Say how something is to be; the same again changes nothing.

        Raises:
            Refused | Unanswered: see there.
        """
        return self._ask("PUT", path, json=body)

    def patch(self, path: str, body: Mapping[str, object]) -> "Answer":
        """Change what is named, leave the rest.

        Raises:
            Refused | Unanswered: see there.
        """
        return self._ask("PATCH", path, json=body)

    def delete(self, path: str, **query: str) -> "Answer":
        """Remove.

        Raises:
            Refused | Unanswered: see there.
        """
        return self._ask("DELETE", path, params=query)

    def post_bytes(self, path: str, content: bytes) -> "Answer":
        """Change, with JSON that must arrive byte for byte.

        Raises:
            Refused | Unanswered: see there.
        """
        return self._ask("POST", path, content=content, headers={"Content-Type": "application/json"})

    def _ask(self, method: str, path: str, **request: Any) -> "Answer":
        try:
            response = self._client.request(method, path, **request)
        except httpx.HTTPError as error:
            raise Unanswered(f"{self._client.base_url} does not answer: {error or type(error).__name__}") from error
        try:
            document = response.json()
        except ValueError:
            document = None
        if not response.is_success or document is None:
            raise _refusal(response, document, method=method)
        return Answer(response.text, document)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API said: the exact text for machines, the document for tables."""

    text: str
    document: Any

    def show(self, *, as_json: bool, to_people: Callable[[Any], None]) -> None:
        """Print the exact JSON, or what ``to_people`` makes of it.

        Raises:
            Refused: the document lacks what people should see.
        """
        if as_json:
            print(self.text)
            return
        try:
            to_people(self.document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Refused(
                f"the answer has another form than this quill knows: {error!r}",
                advice="add --json, or use the quill that came with the services",
            ) from error


def segment(text: str) -> str:
    """One part of a path, whatever characters an id has."""
    return quote(text, safe="")


def _refusal(response: httpx.Response, document: Any, *, method: str) -> Refused:
    said = document if isinstance(document, dict) else {}
    detail = said.get("detail") or response.text.strip()[:200] or response.reason_phrase
    advice = {
        401: "set QUILL_TOKEN or --token to an operator's token",
        403: "this token may not do that; use an operator's token",
        404: "check the id; `quill --help` shows where ids come from",
        429: f"wait {response.headers.get('Retry-After', 'a few')} seconds, or use an operator's token",
        503: "a store or a service is away; try again shortly",
    }.get(response.status_code)
    if advice is None and response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        advice = f"look at {response.request.url.host}'s logs; " + (
            "nothing was changed" if method == "GET" else "the same command may be repeated"
        )
    code = said.get("code") or response.status_code
    return Refused(
        f"{detail} ({code})",
        advice=advice or "correct the command and try again",
        status=response.status_code,
    )


Connect = Callable[[Address], httpx.Client]
"""Makes the HTTP client; tests put a transport of their own in."""


def connect_over_http(address: Address) -> httpx.Client:
    """A client with a timeout on everything, and no proxy between a machine and itself."""
    return client_for(address, transport=None)


def client_for(address: Address, *, transport: httpx.BaseTransport | None) -> httpx.Client:
    """A client that speaks as the address says."""
    headers = {"Authorization": f"Bearer {address.token}"} if address.token else {}
    return httpx.Client(
        base_url=address.url,
        headers=headers,
        timeout=TIMEOUT_SECONDS,
        transport=transport,
        trust_env=not _is_loopback(urlsplit(address.url).hostname or ""),
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def asking(connect: Connect, url: str | None, token: str | None) -> Iterator[Gateway]:
    """A gateway for one command; a refusal ends the command with exit status 1 and a sentence, never a trace."""
    address = choose_address(url, token, folder=Path.cwd())
    try:
        with connect(address) as client:
            yield Gateway(client)
    except Refused as refused:
        stop(str(refused), advice=refused.advice)
    except Unanswered as unanswered:
        stop(str(unanswered), advice="is it running? check QUILL_URL, or start it with `make up`")


def stop(text: str, *, advice: str) -> NoReturn:
    """Say what is wrong and what to do, and end with exit status 1."""
    typer.echo(f"error: {one_line(text)}\n  next: {one_line(advice)}", err=True)
    raise typer.Exit(EXIT_REFUSED)
