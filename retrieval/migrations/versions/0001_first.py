"""The first schema: tenants, keys, videos, vectors, policies, leases, config."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID = sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")


def upgrade() -> None:
    """Create every table and the one row of `config`."""
    config = _create_config()
    _create_tenants()
    _create_api_keys()
    _create_videos()
    _create_policies()
    _create_indexer_tables()
    op.bulk_insert(config, [{"id": 1, "version": 1}])


def downgrade() -> None:
    """Drop everything."""
    for table in ("videos", "api_keys", "tenants", "vectors", "policies", "leases", "config"):
        op.drop_table(table)


def _create_config() -> sa.Table:
    return op.create_table(
        "config",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_config_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_config")),
    )


def _create_tenants() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("pepper", sa.LargeBinary(32), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("next_item", sa.BigInteger, nullable=False),
        sa.Column("created_s", sa.BigInteger, nullable=False),
        sa.CheckConstraint("status IN ('active', 'suspended')", name=op.f("ck_tenants_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
    )


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", ID, nullable=False),
        sa.Column("tenant_id", ID, nullable=True),
        sa.Column("scope", sa.String(8), nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("created_s", sa.BigInteger, nullable=False),
        sa.Column("expires_s", sa.BigInteger, nullable=True),
        sa.Column("revoked_s", sa.BigInteger, nullable=True),
        sa.CheckConstraint("(scope = 'adm') = (tenant_id IS NULL)", name=op.f("ck_api_keys_tenant")),
        sa.CheckConstraint("scope IN ('pk', 'sk', 'adm')", name=op.f("ck_api_keys_scope")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
    )


def _create_videos() -> None:
    op.create_table(
        "videos",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("item", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("transcript", sa.Text, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("categories", sa.JSON, nullable=False),
        sa.Column("creator", sa.Text, nullable=True),
        sa.Column("playlists", sa.JSON, nullable=False),
        sa.Column("language", sa.String(2), nullable=True),
        sa.Column("countries", sa.JSON, nullable=False),
        sa.Column("ratings", sa.JSON, nullable=False),
        sa.Column("media_url", sa.Text, nullable=False),
        sa.Column("poster_url", sa.Text, nullable=True),
        sa.Column("duration_s", sa.Integer, nullable=False),
        sa.Column("published_s", sa.BigInteger, nullable=False),
        sa.Column("available_from_s", sa.BigInteger, nullable=False),
        sa.Column("available_until_s", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=True),
        sa.Column("text_hash", sa.LargeBinary(16), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(16), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("quarantine", sa.Text, nullable=True),
        sa.Column("created_s", sa.BigInteger, nullable=False),
        sa.Column("updated_s", sa.BigInteger, nullable=False),
        sa.CheckConstraint("status IN ('published', 'draft', 'removed')", name=op.f("ck_videos_status")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_videos_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "item", name=op.f("pk_videos")),
    )
    op.create_index(op.f("ix_videos_tenant_id_id"), "videos", ["tenant_id", "id"], unique=True)
    op.create_index(op.f("ix_videos_tenant_id_version"), "videos", ["tenant_id", "version"])
    op.create_index(op.f("ix_videos_tenant_id_status"), "videos", ["tenant_id", "status"])
    quarantined = sa.text("quarantine IS NOT NULL")
    op.create_index(
        "ix_videos_quarantined", "videos", ["tenant_id", "item"], sqlite_where=quarantined, postgresql_where=quarantined
    )


def _create_policies() -> None:
    op.create_table(
        "policies",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("version", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("published_s", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "version", name=op.f("pk_policies")),
    )


def _create_indexer_tables() -> None:
    op.create_table(
        "vectors",
        sa.Column("model", ID, nullable=False),
        sa.Column("text_hash", sa.LargeBinary(16), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("model", "text_hash", name=op.f("pk_vectors")),
    )
    op.create_table(
        "leases",
        sa.Column("name", ID, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("expires_s", sa.BigInteger, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
