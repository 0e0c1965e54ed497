"""The SQL schema. One table per thing; times are unix seconds, versions only grow.

| table    | one row is                     | written by         | read by                        |
|----------|--------------------------------|--------------------|--------------------------------|
| tenants  | a host app and its counters    | tenants, catalogue | service, indexer               |
| api_keys | a key, hashed                  | tenants            | service                        |
| videos   | a video; removed ones stay     | catalogue          | indexer, admin routes          |
| vectors  | what a model made of a text    | indexer            | indexer                        |
| policies | one immutable policy version   | policies           | service                        |
| drafts   | a policy that is being edited  | policies           | service                        |
| flags    | personalisation of one scope   | flag_stores        | service, polled twice a second |
| audit    | who changed what, and why      | all that write     | service                        |
| playlists| a playlist's title             | playlists          | service                        |
| webhook_secrets | what a CMS signs with   | webhooks           | service                        |
| deliveries | what a CMS sent, as it came  | webhooks           | service                        |
| cms_versions | newest change of a video that was applied | webhooks | webhooks                  |
| cms_listings | where a CMS lists its videos, and how the last look at it ended | cms_listings | indexer |
| leases   | who may work on a thing now    | leases             | indexer, service               |
| config   | two counters                   | tenants, policies, flag_stores | service, polled    |
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

GLOBAL = ""
"""`tenant_id` of what is there for all tenants together; an empty string, because NULL cannot be in a key."""

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# PostgreSQL sorts text by the operating system's locale unless told otherwise: pages would differ from SQLite's, and an
# upgrade of the C library could silently break the index.
ID = String(200).with_variant(String(200, collation="C"), "postgresql")

TENANTS = Table(
    "tenants",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("pepper", LargeBinary(32), nullable=False),  # keys the hash of every user id of this tenant
    Column("version", BigInteger, nullable=False),  # moves with every change of its videos
    Column("next_item", BigInteger, nullable=False),  # the item number the next new video gets
    Column("created_s", BigInteger, nullable=False),
    CheckConstraint("status IN ('active', 'suspended')", name="status"),
)

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("tenant_id", ID, ForeignKey("tenants.id"), nullable=True),
    Column("scope", String(8), nullable=False),
    Column("sha256", LargeBinary(32), nullable=False, unique=True),
    Column("label", Text, nullable=False),
    Column("created_s", BigInteger, nullable=False),
    Column("expires_s", BigInteger, nullable=True),
    Column("revoked_s", BigInteger, nullable=True),
    CheckConstraint("scope IN ('pk', 'sk', 'adm')", name="scope"),
    CheckConstraint("(scope = 'adm') = (tenant_id IS NULL)", name="tenant"),
)

VIDEOS = Table(
    "videos",
    METADATA,
    Column("tenant_id", ID, ForeignKey("tenants.id"), primary_key=True),
    Column("item", BigInteger, primary_key=True, autoincrement=False),  # 0.. per tenant, never used again
    Column("id", ID, nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("transcript", Text, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("categories", JSON, nullable=False),
    Column("creator", Text, nullable=True),
    Column("playlists", JSON, nullable=False),
    Column("language", String(2), nullable=True),
    Column("countries", JSON, nullable=False),  # empty = everywhere
    Column("ratings", JSON, nullable=False),  # [{"system", "value"}]
    Column("media_url", Text, nullable=False),
    Column("poster_url", Text, nullable=True),
    Column("duration_s", Integer, nullable=False),  # 0 = unknown
    Column("published_s", BigInteger, nullable=False),
    Column("available_from_s", BigInteger, nullable=False),  # 0 = open start
    Column("available_until_s", BigInteger, nullable=False),  # INT64_MAX = open end
    Column("status", String(16), nullable=False),
    Column("vector", LargeBinary, nullable=True),  # float32, unit length: the CMS's own, instead of an embedding
    Column("text_hash", LargeBinary(16), nullable=False),  # changes when the item's vector must change
    Column("fingerprint", LargeBinary(16), nullable=False),  # changes when anything the CMS sent changes
    Column("version", BigInteger, nullable=False),  # the tenant's version that last changed this row
    Column("quarantine", Text, nullable=True),  # why this text cannot be embedded
    Column("created_s", BigInteger, nullable=False),
    Column("updated_s", BigInteger, nullable=False),
    CheckConstraint("status IN ('published', 'draft', 'removed')", name="status"),
    Index(None, "tenant_id", "id", unique=True),
    Index(None, "tenant_id", "version"),
    Index(None, "tenant_id", "status"),
)
Index(
    "ix_videos_quarantined",  # nearly always empty, so that listing it costs nothing
    VIDEOS.c.tenant_id,
    VIDEOS.c.item,
    sqlite_where=VIDEOS.c.quarantine.is_not(None),
    postgresql_where=VIDEOS.c.quarantine.is_not(None),
)

VECTORS = Table(
    "vectors",
    METADATA,
    Column("model", ID, primary_key=True),
    Column("text_hash", LargeBinary(16), primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # float32, little endian
)

POLICIES = Table(
    "policies",
    METADATA,
    Column("tenant_id", ID, primary_key=True),  # GLOBAL or a tenant; no foreign key, because GLOBAL is no tenant
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("body", JSON, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("published_s", BigInteger, nullable=False),
)

DRAFTS = Table(
    "drafts",
    METADATA,
    Column("tenant_id", ID, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("body", JSON, nullable=False),
    Column("author", Text, nullable=False),
    Column("updated_s", BigInteger, nullable=False),
)

FLAGS = Table(
    "flags",
    METADATA,
    Column("tenant_id", ID, primary_key=True),  # GLOBAL or a tenant
    Column("version", BigInteger, nullable=False),  # unix milliseconds of the change, or later: the newest wins
    Column("body", JSON, nullable=False),
)

AUDIT = Table(  # triggers refuse to change or delete a row
    "audit",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at_s", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("action", String(40), nullable=False),
    Column("tenant_id", ID, nullable=False),  # GLOBAL for what is no tenant's
    Column("before", JSON(none_as_null=True), nullable=True),
    Column("after", JSON(none_as_null=True), nullable=True),
    Column("reason", Text, nullable=False),
    Index(None, "tenant_id", "id"),
)

PLAYLISTS = Table(  # what is in one stands with the videos
    "playlists",
    METADATA,
    Column("tenant_id", ID, ForeignKey("tenants.id"), primary_key=True),
    Column("id", ID, primary_key=True),
    Column("title", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("updated_s", BigInteger, nullable=False),
)

WEBHOOK_SECRETS = Table(
    "webhook_secrets",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("tenant_id", ID, ForeignKey("tenants.id"), nullable=False),
    Column("secret", LargeBinary(32), nullable=False),  # in the clear: a signature can only be checked with it
    Column("created_s", BigInteger, nullable=False),
    Column("expires_s", BigInteger, nullable=True),
    Index(None, "tenant_id"),
)

DELIVERIES = Table(
    "deliveries",
    METADATA,
    Column("tenant_id", ID, ForeignKey("tenants.id"), primary_key=True),
    Column("id", ID, primary_key=True),  # webhook-id
    Column("received_s", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("settled_s", BigInteger, nullable=True),  # NULL until it was applied, or found to be old or wrong
    Column("outcome", Text, nullable=False),
)
Index(
    "ix_deliveries_waiting",
    DELIVERIES.c.received_s,
    sqlite_where=DELIVERIES.c.settled_s.is_(None),
    postgresql_where=DELIVERIES.c.settled_s.is_(None),
)

CMS_VERSIONS = Table(
    "cms_versions",
    METADATA,
    Column("tenant_id", ID, ForeignKey("tenants.id"), primary_key=True),
    Column("video_id", ID, primary_key=True),
    Column("changed_us", BigInteger, nullable=False),  # unix microseconds, by the CMS's clock
)

CMS_LISTINGS = Table(
    "cms_listings",
    METADATA,
    Column("tenant_id", ID, ForeignKey("tenants.id"), primary_key=True),
    Column("url", Text, nullable=False),
    Column("every_s", Integer, nullable=False),
    Column("most_gone_percent", Integer, nullable=False),
    Column("etag", Text, nullable=False),  # of what was taken over last; empty = none, or start over
    Column("tried_s", BigInteger, nullable=False),  # 0 = never
    Column("done_s", BigInteger, nullable=False),  # 0 = never
    Column("outcome", Text, nullable=False),
)

LEASES = Table(
    "leases",
    METADATA,
    Column("name", ID, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_s", BigInteger, nullable=False),
    Column("token", BigInteger, nullable=False),  # grows with every holder; the row is never deleted
)

CONFIG = Table(
    "config",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),  # moves with tenants, keys and policies
    Column("flags", BigInteger, nullable=False, server_default="0"),  # moves with flags
    CheckConstraint("id = 1", name="one_row"),
)
