"""A license with everything that is known around it, for the person who asks what happened."""

from collections.abc import Sequence
from dataclasses import dataclass

from quill_licensing.domain.activation import Activation
from quill_licensing.domain.license import License, LicenseEvent
from quill_licensing.domain.license_mail import MailState


@dataclass(frozen=True, slots=True)
class LicenseStory:
    """The license, its facts oldest first, the organizations that use it, and its mail."""

    license: License
    history: Sequence[LicenseEvent]
    activations: Sequence[Activation]
    mail: MailState | None
