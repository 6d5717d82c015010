"""Licensing put together: the one place that knows every concrete class."""

from datetime import timedelta

from quill_runtime.assembly import lay_foundation
from quill_runtime.lifecycle import Service
from quill_runtime.operations import OperationRunner

from quill_licensing import api, consumers, jobs
from quill_licensing.domain.signup_pace import Pace
from quill_licensing.gateways.smtp import SmtpMailer
from quill_licensing.settings import LicensingSettings
from quill_licensing.store.postgres import MAIL_OPERATION, PostgresLicenseStore


def build(settings: LicensingSettings) -> Service:
    """The service, with nothing connected yet.

    Raises:
        InvalidSealingKeys | InvalidApiTokens: naming the entry.
    """
    foundation = lay_foundation("licensing", settings)
    store = PostgresLicenseStore(foundation.database, outbox=foundation.outbox)
    mailer = SmtpMailer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        sender=settings.smtp_from,
        security=settings.smtp_security,
        timeout_seconds=settings.smtp_timeout_seconds,
        username=settings.smtp_user,
        password=settings.smtp_password.get_secret_value() if settings.smtp_password else None,
    )
    limits = api.SignupLimits(
        per_address=Pace(
            burst=settings.signup_address_burst, interval=timedelta(seconds=settings.signup_address_interval_seconds)
        ),
        per_email=Pace(
            burst=settings.signup_email_burst, interval=timedelta(seconds=settings.signup_email_interval_seconds)
        ),
        trusted_hops=settings.signup_trusted_hops,
    )
    return foundation.service(
        routers=[
            api.router(
                store=store,
                sealer=foundation.sealer,
                tokens=foundation.tokens,
                limits=limits,
                clock=foundation.clock,
            )
        ],
        never_404_below=("/activation", "/licenses"),
        consumers=[foundation.consumer(consumers.customers(within=store.within))],
        components=[
            OperationRunner(
                name="license-mails",
                database=foundation.database,
                clock=foundation.clock,
                performers={MAIL_OPERATION: jobs.license_mail(store=store, sealer=foundation.sealer, mailer=mailer)},
            ),
            jobs.drop_full_buckets(store=store, clock=foundation.clock),
        ],
    )
