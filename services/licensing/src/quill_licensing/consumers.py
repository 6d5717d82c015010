"""Kafka in: which organization uses which license."""

from collections.abc import Callable, Sequence
from datetime import datetime

from quill_contracts import topics
from quill_contracts.subscriptions import CustomerSnapshot
from quill_runtime.consumption import Consumption, FollowUp, Received, Record, Rejected
from quill_runtime.database import Transaction

from quill_licensing.domain.license import BoundToAnotherOrganization, NoSuchLicense
from quill_licensing.ports import LicenseTransaction
from quill_licensing.usecases import record_activations
from quill_licensing.wire import from_wire_customer


def customers(*, within: Callable[[Transaction], LicenseTransaction]) -> Consumption[CustomerSnapshot]:
    """Note activations from ``subscriptions.customers.v1``.

    A snapshot may come again and in any order: an activation is noted once. One that contradicts L17 is parked, because
    subscriptions and licensing then disagree and a person must look.
    """

    async def apply(
        transaction: Transaction, received: Sequence[Received[CustomerSnapshot]], _now: datetime
    ) -> FollowUp | None:
        try:
            await record_activations([from_wire_customer(r.message) for r in received], tx=within(transaction))
        except NoSuchLicense as error:
            raise Rejected(
                "unknown_license",
                f"{error}; replay once the license is there",
                attribute="license_id",
                subject=received[0].message.organization_id,
            ) from error
        except BoundToAnotherOrganization as error:
            raise Rejected(
                "license_bound_to_another_organization",
                str(error),
                attribute="license_id",
                subject=received[0].message.organization_id,
            ) from error
        return None

    return Consumption(topic=topics.CUSTOMERS.name, group="licensing", decode=_decode, apply=apply)


def _decode(record: Record) -> CustomerSnapshot:
    if record.value is None:
        raise Rejected("empty_value", "a customer is never deleted from the topic; expected a snapshot")
    return CustomerSnapshot.from_bytes(record.value)
