"""The demo from first start to verdict."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from quill_regions.sources import CloudRegion
from quill_stack.system import System, running_system
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from quill_demo import checks, evidence, generations, presentation
from quill_demo.billing_client import BillingClient
from quill_demo.chaos import Chaos
from quill_demo.entrance import Entrance
from quill_demo.latency import measure, probe_organizations
from quill_demo.month import Month
from quill_demo.sandbox_time import SandboxTime
from quill_demo.stories import SUBJECTS, Scene, Stage, Told, stories
from quill_demo.world import SETTLE_HOURS, World, make_world

PROBES = 40
PROBE_DAY = 20
LOOK_AGAIN_SECONDS = 1.0
QUIET_LOOKS = 2
PATIENCE_SECONDS = 180.0
"""How long nothing may change before what is different counts as different. A service that is killed again and again
first works off its backlog, and closing waits for that: an invoice must not miss usage that is already in Kafka."""
NUDGE = timedelta(minutes=2)
"""Sandbox time passes quickly while invoices are collected, so that back-offs after a kill do not hold up the demo."""
INVOICE_AFTER = timedelta(hours=26)
"""Past the grace of a day: by now every period of the month may be closed."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    organizations: int
    days: int
    seed: int
    misbehave: bool
    chaos: bool
    state: Path
    allow_mock_kafka: bool


def run_demo(options: Options, console: Console) -> bool:
    """Start everything, live through the month, print what came out; True when all of it equalled the truth."""
    started = time.monotonic()
    world = make_world(
        seed=options.seed, organizations=options.organizations, days=options.days, misbehave=options.misbehave
    )
    options.state.mkdir(parents=True, exist_ok=True)
    clock = SandboxTime(options.state / "clock")
    clock.set(world.start + timedelta(seconds=1))
    with running_system(
        options.state,
        throwaway=True,
        sandbox_clock=True,
        allow_mock_kafka=options.allow_mock_kafka and not options.chaos,
    ) as system:
        console.print(f"System ready after {time.monotonic() - started:.1f} s at {system.base_url}")
        verdict = asyncio.run(_play(options, world, system, clock, console))
        is_mock = system.stores.kafka_is_mock
    console.print(f"Whole demo: {time.monotonic() - started:.1f} s")
    if is_mock:
        console.print("[yellow]This ran on librdkafka's in-memory broker, not on Apache Kafka.[/]")
    return verdict


async def _play(options: Options, world: World, system: System, clock: SandboxTime, console: Console) -> bool:
    client = BillingClient(system.base_url, system.operator_token)
    entrance = Entrance(world=world, client=client, time=clock)
    queues = generations.region_of_queues(system)
    month = Month(world=world, client=client, time=clock, queues=queues)
    region = CloudRegion(system.stores.kafka_bootstrap_servers)
    stage = Stage(Scene(world.start, world.period_end, client, entrance, region, clock), stories(seed=options.seed))
    told = Told(stage.scene, stage.played, world.catalog)

    async def live(until: datetime, progress: Callable[[int], None]) -> None:
        """The month, and in it the stories at their instants."""
        for instant in stage.next_after(until):
            await month.live(region, until=instant, progress=progress)
            await stage.play(instant)
        await month.live(region, until=until, progress=progress)

    chaos = Chaos(system, seed=options.seed)
    probes = probe_organizations(seed=options.seed, count=PROBES)
    latecomers = world.latecomers() if options.misbehave else []
    late = {organization.organization_id for organization in latecomers}
    await region.start()
    await queues.start()
    try:
        with _bar(console, "Issuing licenses", 3 + len(world.instances)) as step:
            await entrance.issue_licenses(lambda: step(1))
        if options.chaos:
            chaos.start()
        known = [organization for organization in world.organizations if organization.organization_id not in late]
        others = [*probes, *(story.organization for story in stage.played)]
        with _bar(console, "Registering customers", len(world.organizations) + len(others)) as step:
            await entrance.register([*known, *others], lambda: step(1))
            await live(world.start + timedelta(hours=18), lambda _n: None)
            await entrance.register(latecomers, lambda: step(1))
        with _bar(console, "Living through the month", len(world.deliveries)) as step:
            step(month.sent_over_kafka + month.sent_over_http)
            probe_day = world.start + timedelta(days=min(PROBE_DAY, options.days - 1))
            await live(probe_day, step)
            if not options.chaos:
                await _settled(client, console)
            latency = await measure(
                probes,
                region=region,
                billing=client,
                redis_url=system.stores.redis_url,
                sandbox=clock,
                done=lambda: None,
            )
            await live(world.end, step)
            await live(world.end + timedelta(hours=SETTLE_HOURS + 6), step)
        usage = await _until_equal(console, "Counting", len(world.organizations), lambda: checks.usage(world, client))
        explained = await _until_equal(
            console, "Explaining", len(world.organizations), lambda: evidence.explained(world, client)
        )
        correction, example = await evidence.corrected(world, client)
        compared = await _until_equal(console, "Comparing v1 with v2", 1, lambda: generations.compared(world, client))
        acceptance, both = await generations.accepted(world, client)
        limits = await _until_equal(console, "Limits", len(world.organizations), lambda: checks.limits(world, client))
        by_story = {}
        for subject in SUBJECTS:
            for what, ask in (("the page", told.pages), ("limits", told.limits)):
                if subject != "seats" or ask == told.pages:
                    by_story[f"{subject}: {what}"] = await _until_equal(
                        console, f"{subject}: {what}", 1, partial(ask, subject)
                    )
        clock.reach(world.period_end + INVOICE_AFTER)
        released = await _until_equal(
            console, "Next period", len(world.organizations), lambda: checks.released(world, client)
        )
        invoices = await _until_equal(
            console, "Invoicing", len(world.subscribers), lambda: checks.invoices(world, client), nudge=clock
        )
        for subject in SUBJECTS:
            for what, ask in (("invoices", told.invoices), ("against Stripe", told.at_stripe)):
                by_story[f"{subject}: {what}"] = await _until_equal(
                    console, f"{subject}: {what}", 1, partial(ask, subject), nudge=clock
                )
        await chaos.stop()
        cache = await checks.redis_rebuilt(world, client, system.stores.redis_url)
        outcome = presentation.Outcome(
            usage=usage,
            explained=explained,
            correction=correction,
            corrected=example,
            compared=compared,
            acceptance=acceptance,
            generations=both,
            limits=limits,
            invoices=invoices,
            stories=by_story,
            released=released,
            cache=cache,
            latency=latency,
            kills=dict(chaos.kills),
            retries=client.retries,
            sent_over_kafka=month.sent_over_kafka,
            sent_over_http=month.sent_over_http,
            sent_over_queues=queues.messages,
            runs_over_bucket=queues.runs,
            activations=entrance.activations,
        )
        await presentation.show(world, client, outcome, console)
        return outcome.all_equal
    finally:
        await chaos.stop()
        await region.stop()
        await queues.stop()
        await client.close()


async def _settled(client: BillingClient, console: Console) -> None:
    """Before measuring: let what was sent so far pass through, so that the probes do not queue behind it."""
    quiet = 0
    with console.status("Letting the backlog drain before latency is measured"):
        while quiet < QUIET_LOOKS:
            lag = 0
            for service in ("usage-ingest", "quota-limiter"):
                report = await client.call("GET", f"/{service}/health/ready", expect=(200, 503))
                lag += sum(report["consumer_lag_records"].values())
            quiet = quiet + 1 if lag == 0 else 0
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def _until_equal(
    console: Console,
    title: str,
    total: int,
    look: Callable[[], Awaitable[checks.Comparison]],
    *,
    nudge: SandboxTime | None = None,
) -> checks.Comparison:
    """Look again until all is equal or nothing has changed for three minutes; what is then different is different."""
    with _bar(console, title, total) as step:
        shown = 0
        last_change = time.monotonic()
        while True:
            comparison = await look()
            if comparison.done > shown:
                step(comparison.done - shown)
                shown = comparison.done
                last_change = time.monotonic()
            if comparison.is_equal or time.monotonic() - last_change > PATIENCE_SECONDS:
                return comparison
            if nudge is not None:
                nudge.set(nudge.now() + NUDGE)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


@contextmanager
def _bar(console: Console, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; without a terminal, one line at the end."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        started = time.monotonic()
        yield lambda steps: progress.advance(task, steps)
    if not console.is_terminal:
        console.print(f"{title}: {time.monotonic() - started:.1f} s")
