"""Traces cost nothing where nobody wants them, and nobody waits for a collector that is not well."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from structlog.testing import capture_logs

from app.observability import tracing
from app.observability.traces import BATCH_MAX, QUEUE_MAX, Traces, context_of
from tests.otlp import Collector, target

ORDER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = ORDER[:-1] + "0"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DEAD = "http://127.0.0.1:1"
SLACK_S = 10.0
"""What a busy machine may add."""

IMPORTED = """
import sys
import app.gateway.run, app.workers.run, app.consumer.run
from litestar import Litestar
from app.observability import tracing
with tracing.unseen():
    Litestar()
with tracing.started(None), tracing.step("x", "internal", "00-1-1-01", {}) as span:
    span.set("http.route", "/")
    assert tracing.here() is None and tracing.continued("x") == "x"
    assert tracing.named("00-trace") == {}
    assert tracing.batched("x", len, str) is len
print([name for name in sys.modules if name.startswith(("opentelemetry", "google.rpc"))])
"""


@contextmanager
def traces(endpoint: str, **more: float) -> Iterator[Traces]:
    """Traces of this process, while the block runs."""
    with tracing.started(target(endpoint, **more)):
        active = tracing.active()
        assert active is not None
        yield active


def begin(many: Traces, name: str = "x") -> None:
    """A trace of one span."""
    with many.begun(name, "internal", None, {}):
        pass


def test_nothing_is_imported_where_nobody_wants_traces():
    """Not by any mode; and what is called all the same does nothing."""
    said = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_spans_arrive_with_their_parents():
    """A span within a span within somebody else's."""
    with Collector() as collector:
        with (
            traces(collector.url),
            tracing.step("outer", "consumer", ORDER, {"holdfast.attempt": 2}),
            tracing.inner("inner", "client", {}),
        ):
            here = tracing.here()
        (inner,), (outer,) = collector.named("inner"), collector.named("outer")
        assert (outer.trace, outer.parent) == (ORDER[3:35], ORDER[36:52])
        assert (inner.trace, inner.parent) == (outer.trace, outer.id)
        assert here == f"00-{inner.trace}-{inner.id}-01"
        assert outer.attributes == {"holdfast.attempt": 2}


def test_of_the_traces_that_begin_here_a_share_is_kept():
    """None, where it is none; what somebody else wants is kept all the same, and what he does not is not."""
    with Collector() as collector:
        with traces(collector.url, ratio=0.0) as many:
            begin(many, "ours")
            for parent in (ORDER, UNSAMPLED):
                with many.begun(parent, "server", context_of(parent), {}):
                    pass
            with tracing.step("not wanted", "internal", UNSAMPLED, {}):
                pass
        assert [span.name for span in collector.spans] == [ORDER]


def test_what_works_for_many_is_kept_where_one_of_them_is():
    """With a link to each that is, once."""
    with Collector() as collector:
        with traces(collector.url, ratio=0.0):
            asked = [ORDER, UNSAMPLED, None, "nonsense", OTHER, ORDER]
            with tracing.of_many("some", "internal", asked, lambda each: each):
                pass
            with tracing.of_many("none", "internal", [UNSAMPLED, None], lambda each: each):
                pass
        (span,) = collector.spans
        assert [trace for trace, _ in span.links] == [ORDER[3:35], OTHER[3:35]]
        assert span.attributes == {"holdfast.batch_size": 6}


def test_an_event_stays_in_the_trace_of_its_order():
    """Under the step that writes it where that is in it; else the step is linked to the order."""
    with Collector() as collector:
        with traces(collector.url):
            with tracing.step("own", "consumer", ORDER, {}):
                own = tracing.continued(ORDER)
            with tracing.step("other", "server", OTHER, {}):
                other = tracing.continued(ORDER)
        assert own == f"00-{ORDER[3:35]}-{collector.named('own')[0].id}-01"
        assert other == ORDER
        assert collector.named("other")[0].links == ((ORDER[3:35], ORDER[36:52]),)
        assert collector.named("own")[0].links == ()


def test_a_failure_is_told_by_its_name_only():
    """What an error says may be personal."""
    with Collector() as collector:
        with traces(collector.url), pytest.raises(LookupError), tracing.step("x", "internal", ORDER, {}):
            raise LookupError("Cora Canary, 7 Nowhere Lane")
        (span,) = collector.spans
        assert (span.failed, span.attributes) == (True, {"error.type": "LookupError"})
        assert not any(b"Canary" in body for body in collector.bodies)


@pytest.mark.parametrize(
    "given", ["", "x", ORDER.upper(), f"ff{ORDER[2:]}", f"00-{'0' * 32}{ORDER[35:]}", f"{ORDER}\n"]
)
def test_nonsense_is_no_traceparent(given: str):
    """Anything may be in a header, or in Redis."""
    assert context_of(given) is None


@pytest.mark.parametrize("trouble", ["dead", "hanging", "failing"])
def test_nobody_waits_for_a_collector_that_is_not_well(trouble: str):
    """Spans end at once however many there are, no more are kept than may be, and the end is in time."""
    with Collector() as collector:
        collector.status = None if trouble == "hanging" else 500
        with traces(DEAD if trouble == "dead" else collector.url, shutdown_timeout_s=10) as many:
            began = time.monotonic()
            for _ in range(QUEUE_MAX + 3 * BATCH_MAX):
                begin(many)
            took = time.monotonic() - began
            waiting = len(many._queue._batch_processor._queue)
            began = time.monotonic()
        assert waiting <= QUEUE_MAX
        assert took < SLACK_S
        assert time.monotonic() - began < 0.5 + SLACK_S


def test_it_is_said_once_that_spans_are_lost_and_once_that_they_arrive_again():
    """Not for every batch, and with how many were lost."""
    with Collector() as collector, capture_logs() as lines:
        collector.status = 500
        with traces(collector.url) as many:
            for _ in range(3):
                begin(many)
                many._queue.force_flush()
            collector.status = 200
            begin(many)
        told = [(line["event"], line.get("lost")) for line in lines]
        assert told == [("traces_are_lost", None), ("traces_arrive_again", 3)]


@pytest.mark.parametrize("head", [b"200 OK", b"302 Found\r\nLocation: %s", b"500 Oh"])
def test_a_collector_is_heard_no_further_than_its_status(head: bytes):
    """A body without end costs no memory and no time, and the headers' secrets go to nobody else."""
    with Collector() as elsewhere, socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def answer_without_end() -> None:
            with server.accept()[0] as sock, suppress(OSError):
                sock.recv(1 << 20)
                first = head % elsewhere.url.encode() if b"%s" in head else head
                sock.sendall(b"HTTP/1.1 " + first + b"\r\nContent-Type: application/json\r\n\r\n")
                while True:
                    sock.sendall(b" " * (1 << 20))

        thread = threading.Thread(target=answer_without_end)
        thread.start()
        with traces(url) as many:
            begin(many)
            assert many._queue.force_flush(30_000)
        thread.join(30)
        assert not thread.is_alive()
        assert elsewhere.bodies == []


@contextmanager
def answering(*pieces: bytes, pause_s: float = 0.0) -> Iterator[tuple[str, list[bytes]]]:
    """A collector that answers every request with these pieces, the last one for ever where it pauses."""
    heard: list[bytes] = []

    def answer(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            while request := sock.recv(1 << 20):
                heard.append(request)
                for piece in pieces:
                    sock.sendall(piece)
                while pause_s:
                    time.sleep(pause_s)
                    sock.sendall(pieces[-1])

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", heard


@pytest.mark.parametrize("status", [b"302 Found", b"307 Temporary Redirect", b"304 Not Modified"])
def test_a_redirect_is_said_to_lose_spans(status: bytes):
    """As any refusal is."""
    head = b"HTTP/1.1 " + status + b"\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    with answering(head) as (url, _), capture_logs() as lines, traces(url) as many:
        begin(many)
        assert many._queue.force_flush(30_000)
    assert [line["event"] for line in lines] == ["traces_are_lost"]


@pytest.mark.parametrize("trickle", [b"a", b"\r\n\r\nHTTP/1.1 100 Continue\r\nX: "])
def test_an_answer_that_trickles_in_is_given_up(trickle: bytes, monkeypatch: pytest.MonkeyPatch):
    """The time is for all of it, not for each byte; it is no answer that is well."""
    monkeypatch.setattr("app.observability.traces.REQUEST_TIMEOUT_S", 0.5)
    code = b"100 Continue" if b"100" in trickle else b"200 OK"
    pieces = (b"HTTP/1.1 " + code + b"\r\nX: ", trickle)
    with (
        answering(*pieces, pause_s=0.05) as (url, _),
        capture_logs() as lines,
        traces(url, shutdown_timeout_s=600) as many,
    ):
        began = time.monotonic()
        begin(many)
        assert many._queue.force_flush(30_000)
        assert time.monotonic() - began < 5 + SLACK_S
    assert [line["event"] for line in lines] == ["traces_are_lost"]


def test_cookies_are_not_taken():
    """Nobody asked for them, and a jar has no end."""
    head = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    with answering(head) as (url, heard), traces(url) as many:
        for _ in range(2):
            begin(many)
            assert many._queue.force_flush(30_000)
    assert not any(b"Cookie" in request for request in heard)
