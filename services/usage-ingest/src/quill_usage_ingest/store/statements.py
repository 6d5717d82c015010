"""The statements of the hot path: one per table and batch, however many rows and however long the history."""

# ruff: noqa: S608 - what is put together here are names of columns, written in this module

from typing import Final

from sqlalchemy import TextClause, text
from sqlalchemy.dialects.postgresql import JSONB

# What reads or deletes is a template with a condition on the months it is about (`months.of_months`); what inserts is
# led to its partition row by row and needs none.


def _rows(alias: str, **kinds: str) -> str:
    """Rows sent as one array a column (performance 3), each the parameter of its name.

    Every array but those of bytes travels as a text (`array_text`), and a packed row as a text within that text.
    """
    arrays = [
        f"cast(:{name} as bytea[])" if kind == "bytea" else f"cast(cast(:{name} as text) as {kind}[])"
        for name, kind in kinds.items()
    ]
    return f"unnest({', '.join(arrays)}) as {alias}({', '.join(kinds)})"


_WINDOWS: Final = _rows(
    "k",
    organization_id="text",
    window_start="timestamptz",
    source="text",
    window_end="timestamptz",
    quantities="text",
    ranks="text",
)
SAVE_WINDOWS: Final[TextClause] = text(
    f"""
    insert into usage_windows (organization_id, window_start, source, window_end, quantities, ranks)
    select k.organization_id, k.window_start, k.source, k.window_end,
           cast(k.quantities as bigint[]), cast(k.ranks as bigint[])
    from {_WINDOWS}
    on conflict (organization_id, window_start, source)
    do update set quantities = excluded.quantities, ranks = excluded.ranks
    """
)

DELETE_WINDOWS: Final = f"""
    delete from usage_windows as w
    using {_rows("k", organization_id="text", window_start="timestamptz", source="text")}
    where w.organization_id = k.organization_id and w.window_start = k.window_start and w.source = k.source
      and {{w.window_start}}
    """

_PERIODS: Final = _rows(
    "k",
    organization_id="text",
    period_start="timestamptz",
    period_end="timestamptz",
    as_of="timestamptz",
    revision="bigint",
    complete="text",
    partial="text",
    maximum="text",
)
SAVE_PERIODS: Final[TextClause] = text(
    f"""
    insert into period_usage (organization_id, period_start, period_end, as_of, revision,
                              complete, partial, maximum)
    select k.organization_id, k.period_start, k.period_end, k.as_of, k.revision,
           cast(k.complete as bigint[]), cast(k.partial as bigint[]), cast(k.maximum as bigint[])
    from {_PERIODS}
    on conflict (organization_id, period_start, period_end)
    do update set as_of = excluded.as_of, revision = excluded.revision,
                  is_in_force = true,
                  complete = excluded.complete, partial = excluded.partial, maximum = excluded.maximum
    """
)

SHARE_LOCK_REVISIONS: Final[TextClause] = text(
    """
    select o.organization_id, o.usage_revision, o.sources, o.customer_revision, o.cuts
    from organizations as o
    where o.organization_id = any(cast(cast(:organization_id as text) as text[]))
    order by o.organization_id
    for share
    """
)
LOCK_STANDINGS: Final = text(
    """
    select o.organization_id, o.schedule_anchor, o.schedule_interval, o.ended_schedules, o.usage_revision, o.sources,
           o.cuts
    from organizations as o
    where o.organization_id = any(cast(cast(:organization_id as text) as text[]))
    order by o.organization_id
    for update
    """
).columns(ended_schedules=JSONB(none_as_null=True))

SAVE_REVISIONS: Final[TextClause] = text(
    f"""
    update organizations as o
    set usage_revision = k.revision, is_publication_due = o.is_publication_due or :is_publication_due
    from {_rows("k", organization_id="text", revision="bigint")}
    where o.organization_id = k.organization_id
    """
)

WINDOWS_OF_DAYS: Final = f"""
    select w.organization_id, w.window_start, w.source, w.window_end, w.quantities, w.ranks
    from {_rows("k", organization_id="text", day="timestamptz", source="text")}
    join usage_windows as w
      on w.organization_id = k.organization_id and w.source = k.source
     and w.window_start >= k.day and w.window_start < k.day + interval '1 day'
    where {{w.window_start}}
    """

# The place says which period it is: the caller has its key, and instants cost more to read and hash than all else here.
PERIODS: Final[TextClause] = text(
    f"""
    select k.place, p.as_of, p.revision, p.complete, p.partial, p.maximum
    from {_rows("k", organization_id="text", period_start="timestamptz", period_end="timestamptz", place="int")}
    join period_usage as p using (organization_id, period_start, period_end)
    """
)

KNOWN_CONTENTS: Final = f"""
    select r.organization_id, r.source, r.report_id, k.month, r.content_hash
    from {_rows("k", organization_id="text", source="text", report_id="text", month="timestamptz")}
    join usage_reports as r using (organization_id, source, report_id)
    where r.window_start >= k.month and r.window_start < k.month + interval '1 month' and {{r.window_start}}
    """

_REPORTS: Final = _rows(
    "k",
    organization_id="text",
    source="text",
    report_id="text",
    content_hash="bytea",
    window_start="timestamptz",
    window_end="timestamptz",
    completeness="text",
    as_of="timestamptz",
    intake="text",
    topic="text",
    partition="int",
    log_offset="bigint",
    verdict="text",
    correction_actor="text",
    correction_reason="text",
    note="text",
    body="bytea",
    claim="bytea",
)
KEEP_REPORTS: Final[TextClause] = text(
    f"""
    insert into usage_reports (organization_id, source, report_id, content_hash, window_start, window_end,
                               completeness, as_of, received_at, intake, topic, partition, "offset", verdict,
                               correction_actor, correction_reason, note, body, claim)
    select k.organization_id, k.source, k.report_id, k.content_hash, k.window_start, k.window_end,
           k.completeness, k.as_of, cast(:received_at as timestamptz), k.intake, k.topic, k.partition, k.log_offset,
           k.verdict, k.correction_actor, k.correction_reason, cast(k.note as jsonb), k.body, k.claim
    from {_REPORTS}
    on conflict on constraint usage_reports_content_key do nothing
    """
)

NEWEST_PERIODS: Final[TextClause] = text(
    f"""
    select p.organization_id, p.period_start, p.period_end, p.as_of, p.revision,
           p.complete, p.partial, p.maximum
    from {_rows("k", organization_id="text")}
    cross join lateral (
        select * from period_usage as held
        where held.organization_id = k.organization_id and held.is_in_force
        order by held.period_start desc
        limit :newest
    ) as p
    order by p.organization_id, p.period_start
    """
)
