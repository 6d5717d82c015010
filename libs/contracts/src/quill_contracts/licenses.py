"""What licensing publishes: who may sign tokens, with the secret sealed."""

from typing import Annotated, Final, Literal

from pydantic import Field

from quill_contracts.identifiers import Instant, LicenseId, Revision
from quill_contracts.message import Message

LicenseType = Literal["cloud", "scale", "enterprise"]
CLOUD: Final = "cloud"
"""The type of the licenses that stand for a region."""
LicenseStatus = Literal["active", "revoked"]


class License(Message):
    """One license (``licensing.licenses.v1``, key: license id).

    ``sealed_secret`` opens only with the sealing key of the environment. A license of type ``cloud`` stands for a
    region and may name many organizations; every other one belongs to exactly one customer (L17).
    """

    license_id: LicenseId
    revision: Revision
    type: LicenseType
    status: LicenseStatus
    sealed_secret: Annotated[str, Field(min_length=1)]
    source: str
    """Name of the region or instance this license stands for; becomes the source of its HTTP reports."""
    issued_at: Instant
    expires_at: Instant | None = None
