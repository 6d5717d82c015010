"""HTTP: invoices, their comparison with Stripe's, and Stripe's webhooks."""

from collections.abc import Sequence
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Header, Query, Request
from quill_runtime.auth import ApiTokens, Forbidden, Keyring, Unauthorized, bearer, looks_signed, verify_signed
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem
from starlette.responses import JSONResponse

from quill_invoicing.domain.reconciliation import NothingToAccept
from quill_invoicing.ports import InvoicingStore, WebhookReader
from quill_invoicing.usecases.accept_difference import UnknownReconciliation, accept_difference
from quill_invoicing.wire import (
    Acceptance,
    InvoiceList,
    InvoiceView,
    ReconciliationList,
    ReconciliationView,
    to_view_invoice,
    to_view_reconciliation,
)

AUDIENCE = "posthog:license-key"
KEY_CLAIM = "id"
LIMIT_MAX = 200

Authorization = Annotated[str | None, Header()]

log = structlog.get_logger(__name__)


class Callers:
    """Who may see what: operators and services everything, a license the organizations its token names (L18)."""

    def __init__(self, *, tokens: ApiTokens, keyring: Keyring, clock: Clock) -> None:
        self._tokens = tokens
        self._keyring = keyring
        self._clock = clock

    def organization(self, authorization: str | None) -> str | None:
        """The one organization that a license's token names; None for an operator or service, who may see all.

        Raises:
            Unauthorized: no good token.
            Forbidden: a token without the scope.
        """
        token = bearer(authorization)
        if not looks_signed(token):
            self._tokens.require(authorization, "operator", "service")
            return None
        caller = verify_signed(
            token, keyring=self._keyring, audience=AUDIENCE, key_claim=KEY_CLAIM, now=self._clock.now()
        )
        organization = caller.claims.get("organization_id")
        if not isinstance(organization, str) or not organization:
            raise Unauthorized("authentication_failed", "the token names no organization")
        return organization


def invoices(*, store: InvoicingStore, callers: Callers, tokens: ApiTokens, clock: Clock, has_rail: bool) -> APIRouter:
    """``/v1/invoices`` and ``/v1/reconciliations``."""
    routes = APIRouter(tags=["invoices"])

    @routes.get("/v1/invoices")
    async def list_invoices(
        organization_id: Annotated[str, Query(min_length=1, max_length=200)],
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50,
        authorization: Authorization = None,
    ) -> InvoiceList:
        own = callers.organization(authorization)
        if own not in (None, organization_id):
            raise Forbidden("permission_denied", "the token names another organization", attr="organization_id")
        async with store.begin() as tx:
            found = await tx.invoices_of(organization_id, limit=limit)
            compared = {each.invoice_id: await tx.reconciliation(each.invoice_id) for each in found}
        return InvoiceList(
            results=[to_view_invoice(each, compared[each.invoice_id], has_rail=has_rail) for each in found]
        )

    @routes.get("/v1/invoices/{invoice_id}")
    async def show_invoice(invoice_id: str, authorization: Authorization = None) -> InvoiceView:
        own = callers.organization(authorization)
        async with store.begin() as tx:
            found = await tx.invoice(invoice_id)
            compared = await tx.reconciliation(invoice_id)
        # Another organization's invoice and one that does not exist look the same (L18).
        if found is None or own not in (None, found.organization_id):
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
