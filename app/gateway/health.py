"""Probes and metrics on the gateway's own port; they are answered even while everything else is refused."""

import msgspec

from app.gateway.exchange import Call, Reply
from app.gateway.services import Services
from app.observability import metrics
from app.observability.health import report


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """`ok` or `failing`, with each check by name."""

    status: str
    checks: dict[str, str] = {}


async def live(services: Services, call: Call) -> Reply:  # noqa: ARG001 - as every route
    """`GET /livez`: the process runs; nothing else is asked."""
    return Reply(200, b'{"status":"ok"}')


async def started(services: Services, call: Call) -> Reply:  # noqa: ARG001
    """`GET /startupz`: it answers, so it has started."""
    return Reply(200, b'{"status":"ok"}')


async def ready(services: Services, call: Call) -> Reply:  # noqa: ARG001
    """`GET /readyz`: PostgreSQL answers, and nobody asked the process to stop."""
    well, account = await report(services.checks)
    return Reply(200 if well else 503, account)


async def show_metrics(services: Services, call: Call) -> Reply:  # noqa: ARG001
    """`GET /metrics`: Prometheus' text format."""
    return Reply(200, metrics.exposition(), media=metrics.CONTENT_TYPE.encode())
