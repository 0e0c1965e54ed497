"""What content teams and operators control: flags, audit, drafts, playlists, webhooks.

A tenant that is there already gets personalisation switched on, as a new one does: without a row it would be unknown,
and unknown means not personalised.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ID = sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")
SWITCHED_ON = {
    "state": "on", "percentage": 100.0, "holdout_percent": 2.0, "allow": [], "killed": False,
    "author": "migration", "reason": "was there before flags were", "changed_s": 0,
}  # fmt: skip


def upgrade() -> None:
    """Create the tables, make the audit append-only, switch on what is there."""
    op.add_column("config", sa.Column("flags", sa.BigInteger, nullable=False, server_default="0"))
    _create_flags_and_audit()
    _create_drafts_and_playlists()
    _create_webhooks()
    _refuse_changes_of_audit()
    tenants = op.get_bind().execute(sa.text("SELECT id FROM tenants")).scalars().all()
    flags = sa.table("flags", sa.column("tenant_id"), sa.column("version"), sa.column("body", sa.JSON))
    op.bulk_insert(flags, [{"tenant_id": name, "version": 1, "body": SWITCHED_ON} for name in tenants])


def downgrade() -> None:
    """Drop them."""
    for table in ("cms_versions", "deliveries", "webhook_secrets", "playlists", "drafts", "audit", "flags"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change()")
    op.drop_column("config", "flags")


def _create_flags_and_audit() -> None:
    op.create_table(
        "flags",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_flags")),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("at_s", sa.BigInteger, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("before", sa.JSON, nullable=True),
        sa.Column("after", sa.JSON, nullable=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_tenant_id_id"), "audit", ["tenant_id", "id"])


def _create_drafts_and_playlists() -> None:
    op.create_table(
        "drafts",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("updated_s", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_drafts")),
    )
    op.create_table(
        "playlists",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("updated_s", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_playlists_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_playlists")),
    )


def _create_webhooks() -> None:
    op.create_table(
        "webhook_secrets",
        sa.Column("id", ID, nullable=False),
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("secret", sa.LargeBinary(32), nullable=False),
        sa.Column("created_s", sa.BigInteger, nullable=False),
        sa.Column("expires_s", sa.BigInteger, nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_webhook_secrets_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_secrets")),
    )
    op.create_index(op.f("ix_webhook_secrets_tenant_id"), "webhook_secrets", ["tenant_id"])
    op.create_table(
        "deliveries",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("received_s", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("settled_s", sa.BigInteger, nullable=True),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_deliveries_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_deliveries")),
    )
    waiting = sa.text("settled_s IS NULL")
    op.create_index(
        "ix_deliveries_waiting", "deliveries", ["received_s"], sqlite_where=waiting, postgresql_where=waiting
    )
    op.create_table(
        "cms_versions",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("video_id", ID, nullable=False),
        sa.Column("changed_us", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_cms_versions_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "video_id", name=op.f("pk_cms_versions")),
    )


def _refuse_changes_of_audit() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_no_{change.lower()} BEFORE {change} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END"
        )
