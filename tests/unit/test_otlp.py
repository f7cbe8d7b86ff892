"""Spans as they are sent: the bytes say what the library's own encoder says, and connections are kept."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from app.observability import tracing
from app.observability.otlp import Encoder
from tests.otlp import Collector, target

PROCESS: dict[str, Any] = {"service.name": "holdfast-gateway", "service.namespace": "holdfast"}
RESOURCE = Resource(PROCESS)
SCOPE = InstrumentationScope("holdfast")

ids = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.just(TraceFlags(TraceFlags.SAMPLED)),
)
times = st.integers(0, 2**64 - 1)
plain = st.text(max_size=200) | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
attributes = st.dictionaries(
    st.text(min_size=1, max_size=40), plain | st.lists(st.text(max_size=9), max_size=40)
)
spans = st.builds(
    ReadableSpan,
    st.text(max_size=200),
    ids,
    st.none() | ids,
    st.just(RESOURCE),
    attributes,
    links=st.lists(st.builds(Link, ids), max_size=9),
    kind=st.sampled_from(SpanKind),
    status=st.sampled_from(StatusCode).map(Status),
    start_time=times,
    end_time=times,
    instrumentation_scope=st.just(SCOPE),
)


@given(st.lists(spans, min_size=1, max_size=4))
def test_the_bytes_say_what_the_library_says(some: list[ReadableSpan]):
    """Whatever is in them."""
    ours = ExportTraceServiceRequest.FromString(Encoder(PROCESS, SCOPE.name).encode(some))
    assert ours == encode_spans(some)


def test_half_a_character_loses_no_batch():
    """It is a question mark then."""
    ours = [ReadableSpan("\ud800", SpanContext(1, 2, is_remote=False), resource=RESOURCE)]
    sent = ExportTraceServiceRequest.FromString(Encoder(PROCESS, SCOPE.name).encode(ours))
    assert sent.resource_spans[0].scope_spans[0].spans[0].name == "?"


def test_a_connection_is_kept():
    """A collector that answers with nothing behind its head is asked again over the same one."""
    with Collector() as collector:
        with tracing.started(target(collector.url)):
            traces = tracing.active()
            assert traces is not None
            for status in (200, 200, 500, 200):
                collector.status = status
                with traces.begun("x", "internal", None, {}):
                    pass
                traces._queue.force_flush()
        assert len(collector.spans) == 3
        assert len(collector.peers) == 1


def test_nobody_else_says_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A `.netrc` of the user that the process runs as has something for this host, and is not asked."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with Collector() as collector:
        for told in ({"authorization": "Bearer ours"}, {}):
            with tracing.started(target(collector.url)._replace(headers=told)):
                traces = tracing.active()
                assert traces is not None
                with traces.begun("x", "internal", None, {}):
                    pass
        assert [headers.get("authorization") for headers in collector.headers] == ["Bearer ours", None]
