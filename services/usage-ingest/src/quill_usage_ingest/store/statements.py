"""The statements of the hot path: one per table and batch, however many rows and however long the history."""

from typing import Final

from sqlalchemy import TextClause, text

# What reads or deletes is a template with a condition on the months it is about (`months.of_months`); what inserts is
# led to its partition row by row and needs none.

# Packed rows travel as texts, one a row (`array_text`); everything else as one array a column (performance 3).

SAVE_WINDOWS: Final[TextClause] = text(
    """
    insert into usage_windows (organization_id, window_start, source, window_end, quantities, ranks)
    select k.organization_id, k.window_start, k.source, k.window_end,
           cast(k.quantities as bigint[]), cast(k.ranks as bigint[])
    from unnest(
        cast(:organization_ids as text[]), cast(:starts as timestamptz[]), cast(:sources as text[]),
        cast(:ends as timestamptz[]), cast(:quantities as text[]), cast(:ranks as text[])
    ) as k(organization_id, window_start, source, window_end, quantities, ranks)
    on conflict (organization_id, window_start, source)
    do update set quantities = excluded.quantities, ranks = excluded.ranks
    """
)

DELETE_WINDOWS: Final = """
    delete from usage_windows as w
    using unnest(cast(:organization_ids as text[]), cast(:starts as timestamptz[]), cast(:sources as text[]))
              as k(organization_id, window_start, source)
    where w.organization_id = k.organization_id and w.window_start = k.window_start and w.source = k.source
      and {w.window_start}
    """

SAVE_PERIODS: Final[TextClause] = text(
    """
    insert into period_usage (organization_id, period_start, period_end, as_of, revision, corrected_revision,
                              complete, partial, maximum)
    select k.organization_id, k.period_start, k.period_end, k.as_of, k.revision, k.corrected_revision,
           cast(k.complete as bigint[]), cast(k.partial as bigint[]), cast(k.maximum as bigint[])
    from unnest(
        cast(:organization_ids as text[]), cast(:starts as timestamptz[]), cast(:ends as timestamptz[]),
        cast(:as_ofs as timestamptz[]), cast(:revisions as bigint[]), cast(:corrected_revisions as bigint[]),
        cast(:complete as text[]), cast(:partial as text[]), cast(:maximum as text[])
    ) as k(organization_id, period_start, period_end, as_of, revision, corrected_revision, complete, partial, maximum)
    on conflict (organization_id, period_start, period_end)
    do update set as_of = excluded.as_of, revision = excluded.revision,
                  corrected_revision = excluded.corrected_revision, is_in_force = true,
                  complete = excluded.complete, partial = excluded.partial, maximum = excluded.maximum
    """
)

SAVE_REVISIONS: Final[TextClause] = text(
    """
    update organizations as o
    set usage_revision = k.revision, is_publication_due = o.is_publication_due or :is_publication_due
    from unnest(cast(:organization_ids as text[]), cast(:revisions as bigint[])) as k(organization_id, revision)
    where o.organization_id = k.organization_id
    """
)

WINDOWS_OF_DAYS: Final = """
    select w.organization_id, w.window_start, w.source, w.window_end, w.quantities, w.ranks
    from unnest(cast(:organization_ids as text[]), cast(:days as timestamptz[]), cast(:sources as text[]))
             as k(organization_id, day, source)
    join usage_windows as w
      on w.organization_id = k.organization_id and w.source = k.source
     and w.window_start >= k.day and w.window_start < k.day + interval '1 day'
    where {w.window_start}
    """

PERIODS: Final[TextClause] = text(
    """
    select p.organization_id, p.period_start, p.period_end, p.as_of, p.revision, p.corrected_revision,
           p.complete, p.partial, p.maximum
    from unnest(cast(:organization_ids as text[]), cast(:starts as timestamptz[]), cast(:ends as timestamptz[]))
             as k(organization_id, period_start, period_end)
    join period_usage as p using (organization_id, period_start, period_end)
    """
)

KNOWN_CONTENTS: Final = """
    select r.organization_id, r.source, r.report_id, k.month, r.content_hash
    from unnest(cast(:organization_ids as text[]), cast(:sources as text[]), cast(:report_ids as text[]),
                cast(:months as timestamptz[])) as k(organization_id, source, report_id, month)
    join usage_reports as r using (organization_id, source, report_id)
    where r.window_start >= k.month and r.window_start < k.month + interval '1 month' and {r.window_start}
    """

KEEP_REPORTS: Final[TextClause] = text(
    """
    insert into usage_reports (organization_id, source, report_id, content_hash, window_start, window_end,
                               completeness, as_of, received_at, intake, topic, partition, "offset", verdict,
                               correction_actor, correction_reason, note, body, claim)
    select k.organization_id, k.source, k.report_id, k.content_hash, k.window_start, k.window_end,
           k.completeness, k.as_of, cast(:received_at as timestamptz), k.intake, k.topic, k.partition, k.log_offset,
           k.verdict, k.correction_actor, k.correction_reason, cast(k.note as jsonb), k.body, k.claim
    from unnest(
        cast(:organization_id as text[]), cast(:source as text[]), cast(:report_id as text[]),
        cast(:content_hash as bytea[]), cast(:window_start as timestamptz[]), cast(:window_end as timestamptz[]),
        cast(:completeness as text[]), cast(:as_of as timestamptz[]), cast(:intake as text[]),
        cast(:topic as text[]), cast(:partition as int[]), cast(:offset as bigint[]), cast(:verdict as text[]),
        cast(:correction_actor as text[]), cast(:correction_reason as text[]), cast(:note as text[]),
        cast(:body as bytea[]), cast(:claim as bytea[])
    ) as k(organization_id, source, report_id, content_hash, window_start, window_end, completeness, as_of, intake,
           topic, partition, log_offset, verdict, correction_actor, correction_reason, note, body, claim)
    on conflict on constraint usage_reports_content_key do nothing
    """
)

NEWEST_PERIODS: Final[TextClause] = text(
    """
    select p.organization_id, p.period_start, p.period_end, p.as_of, p.revision, p.corrected_revision,
           p.complete, p.partial, p.maximum
    from unnest(cast(:organization_ids as text[])) as k(organization_id)
    cross join lateral (
        select * from period_usage as held
        where held.organization_id = k.organization_id and held.is_in_force
        order by held.period_start desc
        limit :newest
    ) as p
    order by p.organization_id, p.period_start
    """
)
