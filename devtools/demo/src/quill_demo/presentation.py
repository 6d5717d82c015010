"""The outcome for a person: totals against truth, who was limited and why, invoices, licenses, timings, verdict."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from quill_demo.billing_client import BillingClient
from quill_demo.checks import SHOWN_DIFFERENCES, Comparison, dollars
from quill_demo.entrance import Activation
from quill_demo.evidence import Corrected
from quill_demo.generations import Generations
from quill_demo.latency import Latencies
from quill_demo.world import World

EXAMPLES = 3
LIMITED_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that was found out."""

    usage: Comparison
    explained: Comparison
    correction: Comparison
    corrected: Corrected
    compared: Comparison
    acceptance: Comparison
    generations: Generations
    limits: Comparison
    invoices: Comparison
    stories: Mapping[str, Comparison]
    released: Comparison
    cache: Comparison
    latency: Latencies
    kills: dict[str, int]
    retries: int
    sent_over_kafka: int
    sent_over_http: int
    sent_over_queues: int
    runs_over_bucket: int
    activations: list[Activation]

    @property
    def comparisons(self) -> dict[str, Comparison]:
        return {
            "usage of every organization and meter": self.usage,
            "events explained from their reports, and over teams": self.explained,
            "a report voided and taken back": self.correction,
            "v1 against v2 of the region of queues": self.compared,
            "the planted difference accepted, and explained": self.acceptance,
            "who is limited on what": self.limits,
            "who is still limited once the period is over": self.released,
            "invoices, to the cent, and against Stripe": self.invoices,
            "quota checks after Redis was emptied and rebuilt": self.cache,
            **self.stories,
        }

    @property
    def all_equal(self) -> bool:
        return all(comparison.is_equal for comparison in self.comparisons.values())


async def show(world: World, client: BillingClient, outcome: Outcome, console: Console) -> None:
    """Print all of it; the verdict last."""
    _show_totals(world, console)
    _show_correction(outcome.corrected, console)
    _show_generations(world, outcome.generations, console)
    await _show_limited(world, client, outcome, console)
    _show_invoices(world, outcome, console)
    _show_activations(outcome, console)
    _show_timings(outcome, console)
    _show_verdict(outcome, console)


def _show_totals(world: World, console: Console) -> None:
    table = Table(title="The month, by region", title_justify="left")
    for column in ("source", "organizations", "events", "recordings", "flag requests", "rows synced"):
        table.add_column(column, justify="left" if column == "source" else "right")
    sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for organization in world.organizations:
        source = "self-hosted" if organization.self_hosted else organization.source
        sums[source]["organizations"] += 1
        for meter, quantity in world.expected[organization.organization_id].usage.items():
            sums[source][meter] += quantity
    for source in sorted(sums):
        row = sums[source]
        wanted = ("organizations", "events", "recordings", "feature_flag_requests", "rows_synced")
        table.add_row(source, *(f"{row[name]:,}" for name in wanted))
    console.print(table)


def _show_correction(corrected: Corrected, console: Console) -> None:
    table = Table(title=f"{corrected.organization.name}: report {corrected.report_id} voided", title_justify="left")
    table.add_column("what it would change (preview)")
    for column in ("before", "after"):
        table.add_column(column, justify="right")
    for change in corrected.preview["changes"]:
        for counter in change["counters"]:
            if counter["meters"]:
                name = f"{', '.join(counter['meters'])} of {change['period_start'][:10]}"
                table.add_row(name, f"{counter['before']['to_date']:,}", f"{counter['after']['to_date']:,}")
        for amount in change["amounts"]:
            before, after = dollars(amount["before_minor"]), dollars(amount["after_minor"])
            table.add_row(f"{amount['meter']}: {amount['becomes']}", f"${before:,.2f}", f"${after:,.2f}")
    console.print(table)
    console.print(f"Explained without it:   {corrected.explained_without['sentence']}")
    console.print(f"Explained once it is taken back: {corrected.explained_again['sentence']}")


def _show_generations(world: World, both: Generations, console: Console) -> None:
    names = {organization.organization_id: organization.name for organization in world.organizations}
    table = Table(title="v1 and v2 of the region of queues do not agree on", title_justify="left")
    for column in ("day", "organization", "counter", "v1", "v2", "accepted by"):
        table.add_column(column, justify="right" if column in ("v1", "v2") else "left")
    for found in both.after["results"]:
        for difference in found["differences"]:
            by = found["accepted"]["actor"] if found["accepted"] else ""
            numbers = (f"{difference[side]:,}" for side in ("v1", "v2"))
            table.add_row(found["day"], names[found["organization_id"]], difference["counter"], *numbers, by)
    console.print(table)
    for document, when in ((both.before, "Before"), (both.after, "Then")):
        for summary in document["summary"]:
            console.print(
                f"{when}: {summary['organization_days_agreeing']:,} of {summary['organization_days']:,}"
                f" organization-days agree, {summary['accepted']:,} accepted. {summary['v1_retirement']['sentence']}."
            )
    _show_explained(names, both, console)


def _show_explained(names: dict[str, str], both: Generations, console: Console) -> None:
    """One number, with the reports behind its last day."""
    document = both.explained
    console.print(f"Explained for {names[document['organization_id']]}: {document['sentence']}")
    reports = {report["id"]: report for report in document["reports"]}
    cell = document["cells"][-1]
    table = Table(title=f"What its day {cell['window_start'][:10]} is made of", title_justify="left")
    for column in ("report", "way", "run", "counted at", "quantity", "why"):
        table.add_column(column, justify="right" if column == "quantity" else "left")
    claims = [
        (cell["held_by"], cell["quantity"], "holds"),
        *((o["report"], o["quantity"], o["why_not"]) for o in cell["others"]),
    ]
    for report_id, quantity, why in claims:
        report = reports[report_id]
        run = (report["note"] or {}).get("run_id", "")
        table.add_row(str(report_id), report["intake"], run, report["as_of"][:16], f"{quantity:,}", why)
    console.print(table)


async def _show_limited(world: World, client: BillingClient, outcome: Outcome, console: Console) -> None:
    limited = [
        (organization, meter)
        for organization in world.organizations
        for meter in sorted(world.expected[organization.organization_id].limited)
    ]
    table = Table(title=f"Limited at the end of the month: {len(limited)} meters. Some of them:", title_justify="left")
    for column in ("organization", "meter", "since", "why"):
        table.add_column(column)
    by_meter = sorted(limited, key=lambda pair: (limited.index(pair) % 7, pair[1]))
    for organization, meter in by_meter[:LIMITED_SHOWN]:
        if outcome.limits.evidence["answers"][organization.organization_id, meter]["allowed"]:
            continue
        path = f"/v1/limits/{organization.organization_id}/explain?meter={meter}"
        explained = await client.call("GET", path)
        table.add_row(organization.name, meter, explained["since"][:16].replace("T", " "), explained["sentence"])
    console.print(table)


def _show_invoices(world: World, outcome: Outcome, console: Console) -> None:
    found: list[dict[str, Any]] = sorted(
        outcome.invoices.evidence.values(), key=lambda invoice: invoice["total_minor"], reverse=True
    )
    names = {organization.organization_id: organization.name for organization in world.organizations}
    for invoice in found[:EXAMPLES]:
        table = Table(
            title=f"Invoice {invoice['number']} for {names[invoice['organization_id']]}: "
            f"{invoice['status']}, Stripe's is {invoice['reconciliation']}",
            title_justify="left",
        )
        table.add_column("line")
        for column in ("quantity", "unit price", "amount"):
            table.add_column(column, justify="right")
        for line in invoice["lines"]:
            table.add_row(
                line["description"],
                f"{line['quantity']:,}",
                f"${line['unit_amount']}",
                f"${dollars(line['amount_minor']):,.2f}",
            )
        table.add_section()
        table.add_row("total", "", "", f"${dollars(invoice['total_minor']):,.2f}")
        console.print(table)


def _show_activations(outcome: Outcome, console: Console) -> None:
    table = Table(title="Licenses activated by self-hosted instances", title_justify="left")
    for column in ("instance", "license", "type", "organization"):
        table.add_column(column)
    for activation in outcome.activations[:EXAMPLES]:
        table.add_row(activation.source, activation.license_id, activation.license_type, activation.organization)
    console.print(table)


def _show_timings(outcome: Outcome, console: Console) -> None:
    for what, latency in (
        ("Report accepted → limit visible in Redis", outcome.latency.limited),
        ("Correction ordered → limit gone from Redis", outcome.latency.released),
    ):
        console.print(
            f"{what}: p50 {latency.percentile(50):.0f} ms, p99 {latency.percentile(99):.0f} ms"
            f" over {len(latency.samples_ms)} probes"
        )
    console.print(
        f"Reports sent: {outcome.sent_over_kafka:,} over Kafka, {outcome.sent_over_http:,} over HTTP, "
        f"{outcome.sent_over_queues:,} v1 messages and {outcome.runs_over_bucket:,} v2 runs over queues and a bucket; "
        f"HTTP calls repeated because a service was away: {outcome.retries:,}"
    )
    if outcome.kills:
        killed = ", ".join(f"{name} {count}" for name, count in sorted(outcome.kills.items()))
        console.print(f"SIGKILLs during the month: {killed}")


def _show_verdict(outcome: Outcome, console: Console) -> None:
    table = Table(title="Billing against the truth", title_justify="left")
    table.add_column("what")
    for column in ("compared", "different"):
        table.add_column(column, justify="right")
    for what, comparison in outcome.comparisons.items():
        style = "green" if comparison.is_equal else "red"
        table.add_row(what, f"{comparison.compared:,}", f"[{style}]{len(comparison.differences):,}[/]")
    console.print(table)
    for comparison in outcome.comparisons.values():
        for difference in comparison.differences[:SHOWN_DIFFERENCES]:
            console.print(f"[red]different:[/] {difference}", highlight=False)
    console.print(
        "[green]Every number equals the truth.[/]" if outcome.all_equal else "[red]Some numbers are not the truth.[/]"
    )
