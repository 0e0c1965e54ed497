"""Alembic's entry: runs inside the transaction that `retrieval.database.migrate` has opened and will commit."""

from alembic import context

from retrieval.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
