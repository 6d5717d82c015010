"""Sources with their watermarks and waivers, what of them is parked, and who ever reported for an organization."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "usage_ingest_0011"
down_revision = "usage_ingest_0010"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "usage_sources",
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("revision", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("parked", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("is_expected", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("silent_since", INSTANT, nullable=True),
        sa.Column("document", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        comment="The fold of each source's events (L20), with its published revision and its parked reports.",
    )
    op.create_table(
        "watermark_claims",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("claim", postgresql.JSONB, nullable=False),
        sa.Column("fence", postgresql.JSONB, nullable=True),
        sa.Column("claimed_at", INSTANT, nullable=False),
        comment="Words of sources that wait until what they speak for has been entered and published: the fence is"
        " where the logs of reports ended when the word was there.",
    )
    op.create_table(
        "parked_reports",
        sa.Column("letter_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("is_read", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("source", sa.String, nullable=True),
        sa.Column("organization_id", sa.String, nullable=True),
        sa.Column("window_start", INSTANT, nullable=True),
        sa.Column("parked_at", INSTANT, nullable=False),
        sa.Column("replayed_at", INSTANT, nullable=True),
        sa.Column("fence", postgresql.JSONB, nullable=True),
        sa.Column("gone_at", INSTANT, nullable=True),
        comment="Of which source and organization each dead letter is, written by a trigger on dead_letters and read"
        " by a job; gone once it was sent again and read again.",
    )
    op.create_index("parked_reports_unread_idx", "parked_reports", ["letter_id"], postgresql_where=sa.text("not is_read"))
    op.create_index(
        "parked_reports_replayed_idx",
        "parked_reports",
        ["letter_id"],
        postgresql_where=sa.text("replayed_at is not null and gone_at is null"),
    )
    op.create_index(
        "parked_reports_organization_idx",
        "parked_reports",
        ["organization_id"],
        postgresql_where=sa.text("gone_at is null"),
    )
    # By a trigger, because a letter may be parked and sent again between two looks of a job, and because ids commit in
    # another order than they were given: either would let a watermark pass by a report that is still on its way.
    op.execute(
        """
        create function note_parked_report() returns trigger language plpgsql as $$
        begin
            insert into parked_reports as held (letter_id, parked_at, replayed_at)
            values (new.id, new.parked_at, new.replayed_at)
            on conflict (letter_id) do update set replayed_at = excluded.replayed_at, fence = null
            where held.gone_at is null;
            return null;
        end $$
        """
    )
    op.execute(
        "create trigger dead_letters_are_noted after insert or update of replayed_at on dead_letters"
        " for each row execute function note_parked_report()"
    )
    op.execute("insert into parked_reports (letter_id, parked_at) select id, parked_at from dead_letters where replayed_at is null")
    op.add_column(
        "organizations",
        sa.Column("sources", postgresql.ARRAY(sa.String), nullable=False, server_default=sa.text("'{}'::character varying[]")),
    )
    op.execute(
        "update organizations as o set sources = k.sources from ("
        "select organization_id, array_agg(distinct source order by source) as sources from usage_windows"
        " group by organization_id) as k where o.organization_id = k.organization_id"
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
