"""The demo from first start to verdict."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from quill_regions.organizations import Organization
from quill_regions.sources import CloudRegion
from quill_stack.system import System, running_system
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from quill_demo import checks, evidence, generations, presentation
from quill_demo.billing_client import BillingClient
from quill_demo.chaos import Chaos
from quill_demo.entrance import Entrance
from quill_demo.latency import Latencies, measure, probe_organizations
from quill_demo.month import Month
from quill_demo.sandbox_time import SandboxTime
from quill_demo.stories import SUBJECTS, Stage, stories
from quill_demo.story_checks import Told
from quill_demo.story_steps import Scene
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
    region = CloudRegion(system.stores.kafka_bootstrap_servers)
    scene = Scene(world.start, world.period_end, client, entrance, region, clock)
    play = _Play(
        options=options,
        world=world,
        system=system,
        console=console,
        clock=clock,
        client=client,
        entrance=entrance,
        region=region,
        month=Month(world=world, client=client, time=clock, queues=queues),
        stage=Stage(scene, stories(seed=options.seed)),
        chaos=Chaos(system, seed=options.seed),
        probes=probe_organizations(seed=options.seed, count=PROBES),
    )
    await region.start()
    await queues.start()
    try:
        await play.register()
        latency = await play.live_through_month()
        before = await play.compare_month()
        clock.reach(world.period_end + INVOICE_AFTER)
        after = await play.compare_next_month()
        outcome = presentation.Outcome(
            **before,
            **after,
            stories=play.stories,
            latency=latency,
            kills=dict(play.chaos.kills),
            retries=client.retries,
            sent_over_kafka=play.month.sent_over_kafka,
            sent_over_http=play.month.sent_over_http,
            sent_over_queues=queues.messages,
            runs_over_bucket=queues.runs,
            activations=entrance.activations,
        )
        await presentation.show(world, client, outcome, console)
        return outcome.all_equal
    finally:
        await play.chaos.stop()
        await region.stop()
        await queues.stop()
        await client.close()


@dataclass(slots=True)
class _Play:
    """One run of the demo, step by step."""

    options: Options
    world: World
    system: System
    console: Console
    clock: SandboxTime
    client: BillingClient
    entrance: Entrance
    region: CloudRegion
    month: Month
    stage: Stage
    chaos: Chaos
    probes: list[Organization]
    stories: dict[str, checks.Comparison] = field(default_factory=dict)

    async def register(self) -> None:
        """Licenses and customers, and the first hours; those who come late are registered after their first reports."""
        world = self.world
        with _bar(self.console, "Issuing licenses", 3 + len(world.instances)) as step:
            await self.entrance.issue_licenses(lambda: step(1))
        if self.options.chaos:
            self.chaos.start()
        latecomers = world.latecomers() if self.options.misbehave else []
        late = {organization.organization_id for organization in latecomers}
        known = [organization for organization in world.organizations if organization.organization_id not in late]
        others = [*self.probes, *(story.organization for story in self.stage.played)]
        with _bar(self.console, "Registering customers", len(world.organizations) + len(others)) as step:
            await self.entrance.register([*known, *others], lambda: step(1))
            await self._live(world.start + timedelta(hours=18), lambda _n: None)
            await self.entrance.register(latecomers, lambda: step(1))

    async def live_through_month(self) -> Latencies:
        """All that happens until the next period begins; in the middle of it, how soon a limit is seen."""
        world = self.world
        with _bar(self.console, "Living through the month", len(world.deliveries)) as step:
            step(self.month.sent_over_kafka + self.month.sent_over_http)
            await self._live(world.start + timedelta(days=min(PROBE_DAY, self.options.days - 1)), step)
            if not self.options.chaos:
                await _settled(self.client, self.console)
            latency = await measure(
                self.probes,
                region=self.region,
                billing=self.client,
                redis_url=self.system.stores.redis_url,
                sandbox=self.clock,
                done=lambda: None,
            )
            await self._live(world.end, step)
            await self._live(world.end + timedelta(hours=SETTLE_HOURS + 6), step)
        return latency

    async def _live(self, until: datetime, progress: Callable[[int], None]) -> None:
        """The month, and in it the stories at their instants."""
        for instant in self.stage.next_after(until):
            await self.month.live(self.region, until=instant, progress=progress)
            await self.stage.play(instant)
        await self.month.live(self.region, until=until, progress=progress)

    async def compare_month(self) -> dict[str, Any]:
        """Compare what must hold before the next period begins; keyed by the fields of `Outcome`."""
        world, client = self.world, self.client
        number = len(world.organizations)
        usage = await self._equal("Counting", number, lambda: checks.usage(world, client))
        explained = await self._equal("Explaining", number, lambda: evidence.explained(world, client))
        correction, corrected = await evidence.corrected(world, client)
        compared = await self._equal("Comparing v1 with v2", 1, lambda: generations.compared(world, client))
        acceptance, both = await generations.accepted(world, client)
        limits = await self._equal("Limits", number, lambda: checks.limits(world, client))
        told = Told(self.stage.scene, self.stage.played, world.catalog)
        await self._ask_stories({"the page": told.pages, "limits": told.limits}, nudge=None)
        return {
            "usage": usage,
            "explained": explained,
            "correction": correction,
            "corrected": corrected,
            "compared": compared,
            "acceptance": acceptance,
            "generations": both,
            "limits": limits,
        }

    async def compare_next_month(self) -> dict[str, Any]:
        """Compare what must hold once the period is closed; keyed by the fields of `Outcome`."""
        world, client = self.world, self.client
        released = await self._equal("Next period", len(world.organizations), lambda: checks.released(world, client))
        invoices = await self._equal(
            "Invoicing", len(world.subscribers), lambda: checks.invoices(world, client), nudge=self.clock
        )
        told = Told(self.stage.scene, self.stage.played, world.catalog)
        await self._ask_stories({"invoices": told.invoices, "against Stripe": told.at_stripe}, nudge=self.clock)
        await self.chaos.stop()
        cache = await checks.redis_rebuilt(world, client, self.system.stores.redis_url)
        return {"released": released, "invoices": invoices, "cache": cache}

    async def _ask_stories(
        self, questions: Mapping[str, Callable[[str], Awaitable[checks.Comparison]]], *, nudge: SandboxTime | None
    ) -> None:
        """Each question for each kind of change; seats have no limit to ask for."""
        for subject in SUBJECTS:
            for what, ask in questions.items():
                if (subject, what) != ("seats", "limits"):
                    title = f"{subject}: {what}"
                    self.stories[title] = await self._equal(title, 1, partial(ask, subject), nudge=nudge)

    async def _equal(
        self,
        title: str,
        total: int,
        look: Callable[[], Awaitable[checks.Comparison]],
        *,
        nudge: SandboxTime | None = None,
    ) -> checks.Comparison:
        return await _until_equal(self.console, title, total, look, nudge=nudge)


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
