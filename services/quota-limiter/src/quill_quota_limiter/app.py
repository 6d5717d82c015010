"""Puts the quota limiter together. Nothing connects until the service runs."""

import msgspec
from quill_contracts import topics
from quill_runtime.assembly import lay_foundation
from quill_runtime.command_line import CommandRefused
from quill_runtime.database import Database
from quill_runtime.lifecycle import Service
from quill_runtime.outbox import Outbox

from quill_quota_limiter import consumers, jobs
from quill_quota_limiter.api import (
    dropped,
    limit_rules,
    limits,
    quota,
    rule_changes,
    scopes,
    spend_thresholds,
    stream,
    thresholds,
    webhooks,
    what_if,
)
from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.api.front import QuotaFront
from quill_quota_limiter.gateways.webhook_courier import WebhookCourier
from quill_quota_limiter.gateways.webhook_sender import HttpWebhookSender
from quill_quota_limiter.settings import QuotaLimiterSettings
from quill_quota_limiter.store.board_reader import MultiplexedBoardReader
from quill_quota_limiter.store.drop_reports import DropReports
from quill_quota_limiter.store.limits_feed import LimitsFeed
from quill_quota_limiter.store.mirror import Mirror
from quill_quota_limiter.store.mirror_follower import MirrorFollower
from quill_quota_limiter.store.multiplexed_redis import MultiplexedRedis
from quill_quota_limiter.store.postgres import PostgresLimits
from quill_quota_limiter.store.redis import RedisBoard
from quill_quota_limiter.store.standing_lookup import StandingLookup
from quill_quota_limiter.usecases.answers import RebuildReport, rebuild_answers
from quill_quota_limiter.usecases.drift import find_drift

NAME = "quota-limiter"


def build(settings: QuotaLimiterSettings) -> Service:
    """The service, ready to run.

    Raises:
        InvalidSealingKeys | InvalidApiTokens: a setting cannot be read.
    """
    foundation = lay_foundation(NAME, settings)
    foundation.verify_keys_from(topics.LICENSES.name, key_id_field="license_id", attributes=("type", "source"))
    store = PostgresLimits(foundation.database, foundation.outbox)
    board = RedisBoard(settings.redis_url)
    gate = Gate(foundation.tokens, foundation.keyring, foundation.clock)
    drops = DropReports(foundation.database)
    mirror = Mirror(organizations_max=settings.mirror_organizations_max)
    redis = MultiplexedRedis(settings.redis_url, timeout_seconds=settings.redis_read_seconds)
    lookup = StandingLookup(mirror, MultiplexedBoardReader(redis, mirror), store, settings.mirror_stale_seconds)
    follower = MirrorFollower(mirror, url=settings.redis_url, redis=redis, store=store)
    feed = LimitsFeed(mirror, redis, place=lambda: follower.place, unknown=settings.unknown_organization_policy)
    desk = quota.QuotaDesk(lookup, foundation.clock, settings.unknown_organization_policy)
    sender = HttpWebhookSender(
        allow_http=settings.webhook_plain_http == "allow", allow_private=settings.webhook_private_networks == "allow"
    )
    courier = WebhookCourier(store=store, sender=sender, sealer=foundation.sealer, clock=foundation.clock)
    return foundation.service(
        routers=[
            quota.router(desk, gate),
            stream.router(feed, lookup, gate),
            limit_rules.router(store=store, gate=gate, clock=foundation.clock),
            rule_changes.router(store=store, gate=gate, clock=foundation.clock),
            webhooks.router(store=store, sender=sender, sealer=foundation.sealer, gate=gate, clock=foundation.clock),
            dropped.router(store=store, drops=drops, gate=gate, clock=foundation.clock),
            limits.router(store=store, board=board, drops=drops, gate=gate, clock=foundation.clock),
            what_if.router(store=store, gate=gate, clock=foundation.clock),
            thresholds.router(store=store, gate=gate, clock=foundation.clock),
            scopes.router(store=store, board=board, gate=gate, clock=foundation.clock),
            spend_thresholds.router(store=store, gate=gate, clock=foundation.clock),
        ],
        consumers=[
            foundation.consumer(consumers.customers(store, board)),
            foundation.consumer(consumers.period_usage(store, board)),
            foundation.consumer(consumers.team_usage(store, board)),
            foundation.consumer(consumers.credit_balances(store, board)),
        ],
        stores=[board],
        components=[
            jobs.lost_board(store, board, foundation.clock),
            jobs.due_evaluations(store, board, foundation.clock),
            jobs.walk(store, board, foundation.clock),
            jobs.old_thresholds(store, foundation.clock),
            jobs.old_deliveries(store, foundation.clock),
            jobs.compare(store, board, foundation.clock),
            sender,
            courier,
            redis,
            follower,
            feed,
        ],
        front=lambda app: QuotaFront(app, desk=desk, gate=gate),
    )


async def rebuild(settings: QuotaLimiterSettings) -> RebuildReport:
    """Fill Redis from Postgres, beside a running service or without one (L8)."""
    database = Database(settings.database_url, application_name=f"{NAME}-rebuild")
    board = RedisBoard(settings.redis_url)
    try:
        return await rebuild_answers(store=PostgresLimits(database, Outbox()), board=board)
    finally:
        await board.stop()
        await database.close()


async def drift(settings: QuotaLimiterSettings, *, repair: bool, as_json: bool) -> str:
    """Compare Redis with Postgres, beside a running service or without one (L8).

    Raises:
        CommandRefused: with the report, when something differs and was not repaired.
    """
    database = Database(settings.database_url, application_name=f"{NAME}-drift")
    board = RedisBoard(settings.redis_url)
    try:
        report = await find_drift(store=PostgresLimits(database, Outbox()), board=board, repair=repair)
    finally:
        await board.stop()
        await database.close()
    lines = [f"{found.kind}  {found.subject}  {found.detail}" for found in report.drifts]
    summary = f"{report.organizations} organizations, {sum(report.counts.values())} differences"
    text = msgspec.json.encode(report).decode() if as_json else "\n".join([*lines, summary])
    if report.counts and not repair:
        raise CommandRefused(text)
    return text
