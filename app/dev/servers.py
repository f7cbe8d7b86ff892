"""Owns the names by which tests and tools get real servers: start one, use it, stop or kill it.

Guarantees: see app/dev/stack. Nothing is started at import.
"""

from app.dev.stack.postgres import EmbeddedPostgres
from app.dev.stack.temporal import EmbeddedTemporal
from app.dev.stack.valkey import EmbeddedValkey

__all__ = ["EmbeddedPostgres", "EmbeddedTemporal", "EmbeddedValkey"]
