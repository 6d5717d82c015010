"""Calls to billing as its users make them, patient with services that are being killed."""

import asyncio
from typing import Any

import httpx

ATTEMPTS_MAX = 120
RETRY_SECONDS = 0.5
TIMEOUT_SECONDS = 20.0
UNAVAILABLE = frozenset({502, 503, 504})
CONCURRENCY = 8


class UnexpectedAnswer(RuntimeError):
    """Billing answered with a status nobody expected; the text shows request, status and body."""


class BillingClient:
    """HTTP through the gateway. Every call may be repeated: billing's writes are idempotent."""

    def __init__(self, base_url: str, operator_token: str) -> None:
        self.http = httpx.AsyncClient(
            base_url=base_url,
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
            limits=httpx.Limits(max_connections=CONCURRENCY * 2),
        )
        self._operator = {"Authorization": f"Bearer {operator_token}"}
        self.retries = 0

    async def close(self) -> None:
        await self.http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        json: Any = None,
        headers: dict[str, str] | None = None,
        expect: tuple[int, ...] = (200, 201),
    ) -> Any:
        """One request, as the operator unless a token is given; again while billing is away.

        Raises:
            UnexpectedAnswer: another status than expected, or no answer for a minute.
        """
        authorization = self._operator if token is None else {"Authorization": f"Bearer {token}"}
        last = "no attempt"
        for _ in range(ATTEMPTS_MAX):
            try:
                answer = await self.http.request(method, path, json=json, headers={**authorization, **(headers or {})})
            except httpx.TransportError as error:
                last = repr(error)
            else:
                if answer.status_code in expect:
                    return answer.json()
                last = f"{answer.status_code} {answer.text[:500]}"
                if answer.status_code not in UNAVAILABLE:
                    break
            self.retries += 1
            await asyncio.sleep(RETRY_SECONDS)
        raise UnexpectedAnswer(f"{method} {path}: {last}")
