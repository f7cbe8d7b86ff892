"""Traces: the one place that knows whether there are any. Where there is no endpoint there is nothing at all.

Without an endpoint nothing of OpenTelemetry is imported, `active` is None, and what is called all the same
costs a look at that. With one, spans are queued and sent by a thread (`traces.py`): a collector that is away,
slow or broken loses spans and nothing else. If the process dies here, its last spans are lost.

An order is one trace: its `traceparent` is stored with it and goes where the order goes. What works for many
orders at once (a commit, a batch of events) is a trace of its own, with a link to each of them.
"""

import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from app.observability.traces import Traces

A = TypeVar("A")
R = TypeVar("R")

Attribute: TypeAlias = Literal[
    "error.type",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "server.address",
    "holdfast.attempt",
    "holdfast.batch_size",
    "holdfast.correlation_id",
    "holdfast.delivery_id",
    "holdfast.endpoint_id",
    "holdfast.event_types",
    "holdfast.group",
    "holdfast.mail",
    "holdfast.order_id",
    "holdfast.queue",
    "holdfast.request_id",
    "holdfast.run_id",
    "holdfast.subject",
]
"""All that a span may say: ids, names from our own code, numbers. Nothing personal has a name here."""
Value: TypeAlias = str | int | float | bool | Sequence[str]
Attributes: TypeAlias = Mapping[Attribute, Value]
Kind: TypeAlias = Literal["server", "client", "producer", "consumer", "internal"]

FLUSH_SHARE: Final = 0.05
FLUSH_S_MAX: Final = 2.0
"""How much of SHUTDOWN_TIMEOUT_S what is queued may take at the end, and how long at most."""


class Target(NamedTuple):
    """Where spans go, and from whom: `ratio` of the traces that begin here are kept, of all."""

    endpoint: str
    headers: Mapping[str, str]
    ratio: float
    mode: str
    environment: str
    shutdown_timeout_s: float

    @property
    def flush_s(self) -> float:
        """How long what is queued may take at the end, in seconds."""
        return min(FLUSH_S_MAX, self.shutdown_timeout_s * FLUSH_SHARE)


class Span(Protocol):
    """A span that is under way."""

    def set(self, name: Attribute, value: Value) -> None:
        """Say something more about it."""
        ...

    def fail(self, kind: str) -> None:
        """It did not do what it was to do; `kind` is a name from our own code."""
        ...


class _Nothing:
    """What stands for a span where there is none."""

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def set(self, name: Attribute, value: Value) -> None:
        """Say it to nobody."""

    def fail(self, kind: str) -> None:
        """The same."""


_NOTHING: Final = _Nothing()
_UNNAMED: Final[Mapping[str, str]] = {}
_traces: "Traces | None" = None


def active() -> "Traces | None":
    """The traces of this process; None where nobody wants any."""
    return _traces


@contextmanager
def unseen() -> Iterator[None]:
    """Have nobody find OpenTelemetry in the block: there are libraries that import all of it for nothing."""
    hidden = "opentelemetry" not in sys.modules
    if hidden:
        absent: Any = None  # what `import` takes for "there is none"
        sys.modules["opentelemetry"] = absent
    try:
        yield
    finally:
        if hidden:
            del sys.modules["opentelemetry"]


@contextmanager
def started(target: Target | None) -> Iterator[None]:
    """Have traces while the block runs; at its end send what is queued, for `flush_s` seconds at most."""
    global _traces  # noqa: PLW0603 - a process has one, as it has one log
    if target is None:
        yield
        return
    from app.observability.traces import Traces  # noqa: PLC0415 - only whoever wants traces pays for it

    _traces = Traces(target)
    try:
        yield
    finally:
        ending, _traces = _traces, None
        ending.stop(target.flush_s)


def step(name: str, kind: Kind, parent: str | None, attributes: Attributes) -> AbstractContextManager[Span]:
    """A span under the traceparent `parent`; nothing where there is none, or nobody wants traces."""
    if _traces is None or parent is None:
        return _NOTHING
    return _traces.under(parent, name, kind, attributes) or _NOTHING


def inner(name: str, kind: Kind, attributes: Attributes) -> AbstractContextManager[Span]:
    """A span within the one that is under way here; nothing where there is none."""
    if _traces is None:
        return _NOTHING
    return _traces.within(name, kind, attributes) or _NOTHING


def of_many(
    name: str, kind: Kind, asked: Sequence[A], of: Callable[[A], str | None]
) -> AbstractContextManager[Span]:
    """A span of its own trace, linked to all that it works for; nothing where none of them is sampled.

    `of` gives the traceparent of each.
    """
    if _traces is None:
        return _NOTHING
    return _traces.of_many(name, kind, [of(each) for each in asked]) or _NOTHING


def here() -> str | None:
    """The traceparent of the span under way here, where it is kept."""
    return None if _traces is None else _traces.here()


def named(traceparent: str | None) -> Mapping[str, str]:
    """What a line of log says of the trace that `traceparent` names; nothing where nobody wants traces."""
    return _UNNAMED if _traces is None or traceparent is None else {"trace_id": traceparent[3:35]}


def continued(stored: str | None) -> str | None:
    """The traceparent of an event of an order that began with `stored`: that of the step that writes it.

    Where the step belongs to another trace (a cancellation has its own) the event stays in its order's, and
    the step is linked to that.
    """
    return stored if _traces is None or stored is None else _traces.continued(stored)


def batched(
    name: str, run: Callable[[Sequence[A]], Awaitable[R]], of: Callable[[A], str | None]
) -> Callable[[Sequence[A]], Awaitable[R]]:
    """`run` with a span for each batch, linked to what it works for; `run` itself without traces."""
    if _traces is None:
        return run

    async def traced(asked: Sequence[A]) -> R:
        with of_many(name, "internal", asked, of):
            return await run(asked)

    return traced


def target_of(settings: Any, mode: str) -> Target | None:  # noqa: ANN401 - what modes are told, which is above us
    """Where the settings of a mode say that spans go; None where they say nothing."""
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    return Target(
        settings.otel_exporter_otlp_endpoint,
        dict(settings.otel_exporter_otlp_headers or ()),
        settings.otel_traces_sampler_arg,
        mode,
        settings.environment,
        settings.shutdown_timeout_s,
    )
