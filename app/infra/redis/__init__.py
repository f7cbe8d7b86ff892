"""Redis: what of it is this program's, and how it is reached."""

from app.observability import tracing

with tracing.unseen():
    import redis.asyncio  # noqa: F401 - first of all here, and without what it would import for metrics of its own
