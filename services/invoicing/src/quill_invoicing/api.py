"""HTTP: invoices, their comparison with Stripe's, and Stripe's webhooks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Header, Query, Request
from quill_runtime.auth import ApiTokens, Forbidden, Keyring, Unauthorized, bearer, looks_signed, verify_signed
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem
from starlette.responses import JSONResponse

from quill_invoicing.domain.operator_alert import NoSuchAlert
from quill_invoicing.domain.reconciliation import NothingToAccept
from quill_invoicing.domain.terms import TermsHistory
from quill_invoicing.ports import InvoicingStore, WebhookReader
from quill_invoicing.usecases.accept_difference import UnknownReconciliation, accept_difference
from quill_invoicing.usecases.operator_alerts import resolve_alert
from quill_invoicing.wire import (
    Acceptance,
    ClosingList,
    HeldClosingList,
    InvoiceList,
    InvoiceView,
    ReconciliationList,
    ReconciliationView,
    to_view_closing,
    to_view_held,
    to_view_invoice,
    to_view_reconciliation,
)
from quill_invoicing.wire_alerts import AlertList, AlertView, to_view_alert
from quill_invoicing.wire_credits import (
    BalanceList,
    EntryList,
    balance_after,
    next_after,
    to_view_balance,
    to_view_entry,
)

AUDIENCE = "posthog:license-key"
KEY_CLAIM = "id"
LIMIT_MAX = 200

Authorization = Annotated[str | None, Header()]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reader:
    """An operator or service, who may see all (both None), or a license acting for one organization."""

    organization_id: str | None = None
    license_id: str | None = None

    def may_see(self, organization_id: str, customer: TermsHistory) -> bool:
        """Whether a license's token names the organization *and* the organization belongs to the license.

        The name alone says nothing: anybody may sign up and write any organization into a token (L17, L18).
        """
        if self.license_id is None:
            return True
        return (self.organization_id, self.license_id) == (organization_id, customer.license_id)


class Callers:
    """Who is calling: an operator, a service or a license (L18)."""

    def __init__(self, *, tokens: ApiTokens, keyring: Keyring, clock: Clock) -> None:
        self._tokens = tokens
        self._keyring = keyring
        self._clock = clock

    def reader(self, authorization: str | None) -> Reader:
        """Who wants to see something.

        Raises:
            Unauthorized: no good token.
            Forbidden: a token without the scope.
        """
        token = bearer(authorization)
        if not looks_signed(token):
            self._tokens.require(authorization, "operator", "service")
            return Reader()
        caller = verify_signed(
            token, keyring=self._keyring, audience=AUDIENCE, key_claim=KEY_CLAIM, now=self._clock.now()
        )
        organization = caller.claims.get("organization_id")
        if not isinstance(organization, str) or not organization:
            raise Unauthorized("authentication_failed", "the token names no organization")
        return Reader(organization, caller.key_id)


def invoices(*, store: InvoicingStore, callers: Callers, tokens: ApiTokens, clock: Clock, has_rail: bool) -> APIRouter:
    """``/v1/invoices`` and ``/v1/reconciliations``."""
    routes = APIRouter(tags=["invoices"])

    @routes.get("/v1/invoices")
    async def list_invoices(
        organization_id: Annotated[str, Query(min_length=1, max_length=200)],
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50,
        authorization: Authorization = None,
    ) -> InvoiceList:
        reader = callers.reader(authorization)
        async with store.begin() as tx:
            if not reader.may_see(organization_id, await tx.terms_history(organization_id)):
                raise Forbidden(
                    "permission_denied", "this license may not act for this organization", attr="organization_id"
                )
            found = await tx.invoices_of(organization_id, limit=limit)
            compared = {each.invoice_id: await tx.reconciliation(each.invoice_id) for each in found}
        return InvoiceList(
            results=[to_view_invoice(each, compared[each.invoice_id], has_rail=has_rail) for each in found]
        )

    @routes.get("/v1/invoices/{invoice_id}")
    async def show_invoice(invoice_id: str, authorization: Authorization = None) -> InvoiceView:
        reader = callers.reader(authorization)
        async with store.begin() as tx:
            found = await tx.invoice(invoice_id)
            is_shown = found is not None and reader.may_see(
                found.organization_id, await tx.terms_history(found.organization_id)
            )
            compared = await tx.reconciliation(invoice_id)
        # Another organization's invoice and one that does not exist look the same (L18).
        if found is None or not is_shown:
            raise Problem(404, "not_found", "there is no such invoice", attr="invoice_id")
        return to_view_invoice(found, compared, has_rail=has_rail)

    @routes.get("/v1/reconciliations")
    async def list_reconciliations(
        status: Annotated[Literal["different", "equal"] | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50,
        authorization: Authorization = None,
    ) -> ReconciliationList:
        tokens.require(authorization, "operator", "service")
        async with store.begin() as tx:
            found = await tx.reconciliations(is_equal=None if status is None else status == "equal", limit=limit)
        return ReconciliationList(results=[to_view_reconciliation(each) for each in found])

    @routes.post("/v1/reconciliations/{reconciliation_id}/accept")
    async def accept(
        reconciliation_id: str, acceptance: Acceptance, authorization: Authorization = None
    ) -> ReconciliationView:
        tokens.require(authorization, "operator")
        async with store.begin() as tx:
            try:
                accepted = await accept_difference(
                    reconciliation_id, actor=acceptance.actor, reason=acceptance.reason, tx=tx, now=clock.now()
                )
            except UnknownReconciliation as error:
                raise Problem(404, "not_found", "no invoice was compared under this id") from error
            except NothingToAccept as error:
                raise Problem(409, "nothing_to_accept", str(error)) from error
        return to_view_reconciliation(accepted)

    return routes


def operator_alerts(*, store: InvoicingStore, tokens: ApiTokens, clock: Clock) -> APIRouter:
    """``/v1/alerts``: what operators must know of the payment rail, and resolving it."""
    routes = APIRouter(prefix="/v1/alerts", tags=["alerts"])

    @routes.get("")
    async def list_alerts(
        include_resolved: bool = False,
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50,
        authorization: Authorization = None,
    ) -> AlertList:
        tokens.require(authorization, "operator", "service")
        async with store.begin() as tx:
            found = await tx.alerts(include_resolved=include_resolved, limit=limit)
        return AlertList(results=[to_view_alert(each) for each in found])

    @routes.post("/{alert_id:path}/resolve")
    async def resolve(alert_id: str, acceptance: Acceptance, authorization: Authorization = None) -> AlertView:
        tokens.require(authorization, "operator")
        async with store.begin() as tx:
            try:
                resolved = await resolve_alert(
                    alert_id, actor=acceptance.actor, reason=acceptance.reason, tx=tx, now=clock.now()
                )
            except NoSuchAlert as error:
                raise Problem(404, "not_found", str(error), attr="alert_id") from error
        return to_view_alert(resolved)

    return routes


def owed_credits(*, store: InvoicingStore, tokens: ApiTokens) -> APIRouter:
    """``/v1/credits``: what customers are owed."""
    routes = APIRouter(prefix="/v1/credits", tags=["credits"])

    @routes.get("")
    async def list_balances(
        organization_id: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
        after: Annotated[str, Query(max_length=210, pattern=r"^$|.:[a-z]{3}$")] = "",
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50,
        authorization: Authorization = None,
    ) -> BalanceList:
        tokens.require(authorization, "operator", "service")
        async with store.begin() as tx:
            found = await tx.credit_balances(organization_id=organization_id, after=balance_after(after), limit=limit)
            shown = [to_view_balance(each, await tx.terms_history(each.organization_id)) for each in found]
        return BalanceList(results=shown, next_after=next_after(found[-1]) if len(found) == limit else None)

    @routes.get("/entries")
    async def list_entries(
        organization_id: Annotated[str, Query(min_length=1, max_length=200)],
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50,
        authorization: Authorization = None,
    ) -> EntryList:
        tokens.require(authorization, "operator", "service")
        async with store.begin() as tx:
            found = await tx.credit_entries_of(organization_id, limit=limit)
        return EntryList(results=[to_view_entry(each) for each in found])

    return routes


def closings(*, store: InvoicingStore, tokens: ApiTokens) -> APIRouter:
    """``/v1/closings``: what was closed by whose word, and what waits for which source."""
    routes = APIRouter(prefix="/v1/closings", tags=["closings"])

    @routes.get("")
    async def list_closings(
        organization_id: Annotated[str, Query(min_length=1, max_length=200)],
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50,
        authorization: Authorization = None,
    ) -> ClosingList:
        tokens.require(authorization, "operator", "service")
        async with store.begin() as tx:
            found = await tx.closed_periods_of(organization_id, limit=limit)
        return ClosingList(results=[to_view_closing(each) for each in found])

    @routes.get("/held")
    async def list_held(
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50, authorization: Authorization = None
    ) -> HeldClosingList:
        tokens.require(authorization, "operator", "service")
        async with store.begin() as tx:
            held, standings = await tx.held_closings(limit=limit), await tx.standings()
            total = await tx.count_held()
        return HeldClosingList(total=total, results=[to_view_held(each, standings) for each in held])

    return routes


def webhooks(*, store: InvoicingStore, read: WebhookReader, secrets: Sequence[str], clock: Clock) -> APIRouter:
    """``/webhooks/stripe``: verify, keep, answer; nothing else happens in the request (L19)."""
    routes = APIRouter(tags=["webhooks"])

    @routes.post("/webhooks/stripe")
    async def receive(request: Request, stripe_signature: Annotated[str | None, Header()] = None) -> JSONResponse:
        raw = await request.body()
        now = clock.now()
        if not secrets:
            raise Problem(503, "not_configured", "STRIPE_WEBHOOK_SECRETS is not set; webhooks cannot be verified")
        try:
            webhook = read(raw, stripe_signature, secrets=secrets, now=now)
        except ValueError as error:
            log.warning("webhook.refused", reason=str(error))
            raise Problem(400, "invalid_webhook", str(error)) from error
        async with store.begin() as tx:
            is_new = await tx.take_webhook(webhook, received_at=now)
        return JSONResponse({"received": True, "repeat": not is_new})

    return routes
