"""A real collector of traces: takes OTLP over HTTP in a thread of its own, and misbehaves when told to."""

import asyncio
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from app.observability.tracing import Target

WAIT_S = 120.0


def target(endpoint: str, *, ratio: float = 1.0, shutdown_timeout_s: float = 40.0) -> Target:
    """Where spans go; what is queued at the end has a twentieth of `shutdown_timeout_s`, at most 2 s."""
    return Target(endpoint, {}, ratio, "gateway", "test", shutdown_timeout_s)


class Span(NamedTuple):
    """One span as it came."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: str
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    failed: bool
    seconds: float


class Collector:
    """Use it as a context manager. `status` is what it answers; None: nothing, for as long as it lasts."""

    def __init__(self) -> None:
        self.status: int | None = 200
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.peers: set[tuple[str, int]] = set()
        """From where it was asked: one for each connection."""
        self.others: list[str] = []
        """The paths of what else was posted here."""
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def named(self, name: str) -> list[Span]:
        """The spans of this name."""
        return [span for span in self.spans if span.name == name]

    async def until(self, question: Callable[[], object]) -> None:
        """Ask until it is so."""
        async with asyncio.timeout(WAIT_S):
            while not question():
                await asyncio.sleep(0.02)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.peers.add(self.client_address)
                if self.path != "/v1/traces":
                    collector.others.append(self.path)
                elif collector.status is None:
                    collector._closing.wait()
                    return
                elif collector.status == 200:
                    collector._take(body, dict(self.headers))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(collector.status or 200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def _take(self, body: bytes, headers: dict[str, str]) -> None:
        self.bodies.append(body)
        self.headers.append({name.lower(): value for name, value in headers.items()})
        for each in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _values(each.resource.attributes)["service.name"]
            self.spans += [_span(service, span) for scope in each.scope_spans for span in scope.spans]


def _values(pairs: Any) -> dict[str, Any]:
    found = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        found[pair.key] = [each.string_value for each in value.values] if kind == "array_value" else value
    return found


def _span(service: str, span: SpanMessage) -> Span:
    return Span(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        _values(span.attributes),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        span.status.code == Status.STATUS_CODE_ERROR,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )
