"""Where a CMS lists all its videos, for the sweep that finds what lost webhooks left out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ID = sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "cms_listings",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("every_s", sa.Integer, nullable=False),
        sa.Column("most_gone_percent", sa.Integer, nullable=False),
        sa.Column("etag", sa.Text, nullable=False),
        sa.Column("tried_s", sa.BigInteger, nullable=False),
        sa.Column("done_s", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_cms_listings_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_cms_listings")),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("cms_listings")
