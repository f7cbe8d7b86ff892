"""The Temporal SDK's own metrics: counted by its Rust core, served by it on a loopback port, read from there.

The SDK offers two ways. Its buffer hands every single update to Python, one to two hundred an order at 1.2 µs
each, and drops what is not fetched in time. Its exporter adds up where it counts, under 1 µs an update (less
than a hundredth of what an order costs a worker), and 3 ms a scrape; but it wants a port, and does not say
which it took where it is given 0. So we take a free one, keep it bound (not listening) until the exporter has
it too, and tell nobody: two workers of one machine never clash.

Names are those of Temporal's reference: no suffixes, durations in seconds. If the exporter cannot be started
or does not answer, the worker works and its `/metrics` holds everything else. Nothing outlives the process.
"""

import asyncio
import socket
from typing import Final

from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from app.observability import metrics
from app.observability.logging import logger

HOST: Final = "127.0.0.1"
TIMEOUT_S: Final = 1.0
BYTES_MAX: Final = 8 * 1024 * 1024

_WAITS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_TAKES_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
BUCKETS_S: Final = {
    "workflow_task_schedule_to_start_latency": _WAITS_S,
    "activity_schedule_to_start_latency": _WAITS_S,
    "workflow_task_execution_latency": _TAKES_S,
    "workflow_task_replay_latency": _TAKES_S,
    "activity_execution_latency": _TAKES_S,
    "activity_succeed_endtoend_latency": _TAKES_S,
    "request_latency": _TAKES_S,
}
"""The SDK's own begin at 50 to 100 ms, which is more than a whole order takes."""

log = logger("temporal")


class SdkMetrics:
    """`text` is what the SDK counted in this process since this was made."""

    def __init__(self) -> None:
        """Have every client made from now on counted, and its workers. Once a process, before them."""
        self._port: int | None = None
        with socket.socket() as held:
            # With this option (the exporter sets it too) a port may be bound twice while nobody listens.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                held.bind((HOST, 0))
                port = int(held.getsockname()[1])
                telemetry = TelemetryConfig(metrics=_exporter(port), attach_service_name=False)
                Runtime.set_default(Runtime(telemetry=telemetry), error_if_already_set=False)
                self._port = port
            except (OSError, ValueError, RuntimeError) as error:
                log.warning("sdk_metrics_are_not_served", error=str(error))

    async def text(self) -> bytes | None:
        """The metrics in Prometheus' text format; None where there are none within TIMEOUT_S seconds."""
        return None if self._port is None else await fetch(self._port)

    async def exposition(self) -> bytes:
        """All metrics of this process: ours, and the SDK's."""
        theirs = await self.text()
        metrics.TEMPORAL_METRICS_UP.set(theirs is not None)
        return metrics.exposition() + (theirs or b"")


async def fetch(port: int) -> bytes | None:
    """What the exporter at `port` says; None where it does not answer within TIMEOUT_S seconds."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _get(port)
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:  # (a timeout is an OSError)
        log.debug("sdk_metrics_did_not_come", error=repr(error))
        return None


def _exporter(port: int) -> PrometheusConfig:
    return PrometheusConfig(
        bind_address=f"{HOST}:{port}",
        counters_total_suffix=False,
        unit_suffix=False,
        durations_as_seconds=True,
        histogram_bucket_overrides=BUCKETS_S,
    )


async def _get(port: int) -> bytes:
    """Ask the exporter. Raises OSError, EOFError, and ValueError for what is not the answer it gives."""
    reader, writer = await asyncio.open_connection(HOST, port, limit=BYTES_MAX)
    try:
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200 "):
            raise ValueError(head.split(b"\r\n", 1)[0].decode("latin-1"))
        length = int(head.split(b"\r\ncontent-length:", 1)[1].split(b"\r\n", 1)[0])
        if not 0 <= length <= BYTES_MAX:
            raise ValueError(f"{length} bytes")
        return await reader.readexactly(length)
    except IndexError:
        raise ValueError("no content-length") from None
    finally:
        writer.close()
