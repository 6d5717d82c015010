"""What teams used in a billing period, and what of it must be added up again."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "usage_ingest_0013"
down_revision = "usage_ingest_0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "team_usage",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("team_id", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("periods", postgresql.JSONB, nullable=False),
        sa.Column("is_publication_due", sa.Boolean, nullable=False),
        comment="Every team that has rows, with the snapshot last made of it: newest periods first, by meter complete"
        " and partial usage. Revision 0: none yet.",
    )
    op.create_index(
        "team_usage_due_idx",
        "team_usage",
        ["organization_id", "team_id"],
        postgresql_where=sa.text("is_publication_due"),
    )
    op.create_table(
        "team_usage_marks",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("team_id", sa.String, primary_key=True),
        comment="Teams whose usage must be added up again.",
    )
    op.create_table(
        "team_usage_sweeps",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("after_team_id", sa.String, nullable=False),
        comment="Organizations whose teams must all be added up again; those up to after_team_id are marked.",
    )
    op.create_index("team_windows_team_idx", "team_windows", ["organization_id", "team_id", "window_start"])
    # Teams that have rows from before.
    op.execute(
        "insert into team_usage_marks (organization_id, team_id) select distinct organization_id, team_id from team_windows"
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
