"""HTTP bodies that change something. An unknown field is refused by its name, never ignored."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator
from quill_contracts.identifiers import Instant, LicenseId, ProductKey, UsageKey
from quill_contracts.subscriptions import CollectionMode

from quill_subscriptions.domain.customer import Project, TrustScore
from quill_subscriptions.domain.members import MemberRegister, OrganizationUser

BILLING_LIMIT_USD_MAX = 10**9
MEMBERS_MAX = 50_000
PRODUCTS_MAX = 200
PROJECTS_MAX = 3_000
"""Projects travel inside the customer's snapshot, which must stay below the outbox's 512 KiB."""
QUANTITY_MAX = 1_000_000
NO_NUL = r"^[^\x00]*$"
"""No Postgres text or JSON can keep a NUL character."""

LimitUsd = Annotated[int, Field(ge=0, le=BILLING_LIMIT_USD_MAX, strict=True)]
"""A billing limit in whole dollars."""
Limits = Annotated[dict[str, LimitUsd | None], Field(max_length=PRODUCTS_MAX)]
"""By product key or usage key; null removes a limit."""
Email = Annotated[str, Field(max_length=320, pattern=r"^[^@\s\x00]+@[^@\s\x00]+$")]
DistinctId = Annotated[str, Field(min_length=1, max_length=400, pattern=NO_NUL)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OrganizationUserBody(_Request):
    """A member as PostHog lists it; 8 is administrator, 15 is owner."""

    email: Email
    distinct_id: DistinctId
    role: Annotated[int, Field(ge=1, le=15, strict=True)]


class BillingChange(_Request):
    """``PATCH /api/billing``: what a customer's own product may change (wire contract 1.3)."""

    custom_limits_usd: Limits | None = None
    reset_limit_next_period: StrictBool = False
    """True: the limits named beside it (all, when none are) end with the current billing period."""
    todays_usage_by_usage_key: dict[UsageKey, Annotated[int, Field(ge=0, strict=True)]] | None = None
    """Sent so that a limit below today's usage could be refused. Accepted and not needed: lowering a limit never
    shrinks what is owed, because the billed quantity is a maximum over the period (L12)."""
    distinct_ids: Annotated[list[DistinctId], Field(max_length=MEMBERS_MAX)] | None = None
    org_customer_email: Email | None = None
    org_admin_emails: Annotated[list[Email], Field(max_length=MEMBERS_MAX)] | None = None
    org_users: Annotated[list[OrganizationUserBody], Field(max_length=MEMBERS_MAX)] | None = None

    @property
    def touches_limits(self) -> bool:
        return bool(self.custom_limits_usd) or self.reset_limit_next_period

    def members_after(self, members: MemberRegister) -> MemberRegister:
        """The register with the lists of this body in place of the old ones; a field not sent keeps what is there."""
        sent = self.model_fields_set
        return MemberRegister(
            email=self.org_customer_email if "org_customer_email" in sent else members.email,
            admin_emails=members.admin_emails if self.org_admin_emails is None else tuple(self.org_admin_emails),
            users=members.users
            if self.org_users is None
            else tuple(OrganizationUser(user.email, user.distinct_id, user.role) for user in self.org_users),
            distinct_ids=members.distinct_ids if self.distinct_ids is None else tuple(self.distinct_ids),
        )


class SubscriptionStart(_Request):
    """``POST /v1/customers/{organization_id}/subscription``."""

    products: Annotated[list[ProductKey], Field(min_length=1, max_length=PRODUCTS_MAX)]
    quantities: dict[ProductKey, Annotated[int, Field(ge=1, le=QUANTITY_MAX, strict=True)]] = {}
    """Licensed quantities of products without a meter (seats); 1 when not given."""
    collection_mode: CollectionMode = "stripe-rates"

    @model_validator(mode="after")
    def _quantities_belong_to_products(self) -> Self:
        for key in self.quantities:
            if key not in self.products:
                raise ValueError(f"quantities names {key}, which is not among products")
        return self


class QuantitiesChange(_Request):
    """``POST /v1/customers/{organization_id}/subscription/quantities``: how many are held from now on."""

    quantities: Annotated[
        dict[ProductKey, Annotated[int, Field(ge=1, le=QUANTITY_MAX, strict=True)]],
        Field(min_length=1, max_length=PRODUCTS_MAX),
    ]
    """By product key; products not named keep theirs."""


class CustomerPatch(_Request):
    """``PATCH /v1/customers/{organization_id}``: what an operator may change; a field not sent stays."""

    trust_scores: Annotated[dict[str, TrustScore], Field(max_length=PRODUCTS_MAX)] | None = None
    """By product key or usage key."""
    never_drop_data: StrictBool | None = None
    free_trial_until: Instant | None = None
    """Null ends the trial; not sent leaves it."""
    custom_limits_usd: Limits | None = None
    reset_limit_next_period: StrictBool = False

    @property
    def touches_limits(self) -> bool:
        return bool(self.custom_limits_usd) or self.reset_limit_next_period

    @property
    def sets_trial(self) -> bool:
        return "free_trial_until" in self.model_fields_set


class FurtherLicense(_Request):
    """``POST /v1/customers/{organization_id}/licenses``."""

    license_id: LicenseId
    reason: Annotated[str, Field(min_length=1, max_length=1_000, pattern=NO_NUL)]
    """Why; kept with the name of who asked (L20)."""


class DetachmentReason(_Request):
    """``POST /v1/customers/{organization_id}/licenses/{license_id}/detach``."""

    reason: Annotated[str, Field(min_length=1, max_length=1_000, pattern=NO_NUL)]


class ProjectBody(_Request):
    """A project and the token its events carry."""

    team_id: Annotated[str, Field(min_length=1, max_length=40, pattern=NO_NUL)]
    api_token: Annotated[str, Field(min_length=1, max_length=64, pattern=NO_NUL)]

    def to_domain(self) -> Project:
        return Project(team_id=self.team_id, api_token=self.api_token)


ProjectList = Annotated[list[ProjectBody], Field(max_length=PROJECTS_MAX)]
