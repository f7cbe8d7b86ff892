"""`Exporter`: sends ended spans as OTLP over HTTP, by the library's client, as bytes that are written here.

By hand a span takes a quarter of the time that it takes to build the library's objects and copy them into
each other, and that time is the interpreter's: the loop waits for it. What is sent is the same. A collector
is heard no further than its status, and its connection is kept where nothing follows that. If the process
dies here, a batch is lost.
"""

import socket
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from itertools import chain
from typing import Any, Final

import requests
import urllib3
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from app.observability.tracing import Value

_REFUSED: Final = 400
_HAS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_KINDS: Final = {
    SpanKind.INTERNAL: b"\x30\x01",
    SpanKind.SERVER: b"\x30\x02",
    SpanKind.CLIENT: b"\x30\x03",
    SpanKind.PRODUCER: b"\x30\x04",
    SpanKind.CONSUMER: b"\x30\x05",
}
"""Field 6 of a span."""
_STATUS: Final = {
    StatusCode.UNSET: b"\x7a\x00",
    StatusCode.OK: b"\x7a\x02\x18\x01",
    StatusCode.ERROR: b"\x7a\x02\x18\x02",
}
"""Field 15 of a span: a message, whose field 3 is the code."""
_times: Final = struct.Struct("<cQcQ").pack
_double: Final = struct.Struct("<cd").pack
_flags_of_span: Final = struct.Struct("<2sI").pack
_flags_of_link: Final = struct.Struct("<cI").pack


class Exporter(OTLPSpanExporter):
    """Sends batches of spans, each within `timeout_s` seconds."""

    def __init__(self, url: str, headers: Mapping[str, str], encoder: "Encoder", *, timeout_s: float) -> None:
        """Send what `encoder` makes to `url`."""
        super().__init__(endpoint=url, headers=headers, timeout=timeout_s, session=_Deaf(timeout_s))
        self._encoder = encoder

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send, again where that may help, until the time is over."""
        answer = self._client.export(self._encoder.encode(spans))
        return SpanExportResult.SUCCESS if answer.success else SpanExportResult.FAILURE


class _Deaf(requests.Session):
    """Reads of an answer no more than its status: a body may be endless, and so may be its way here.

    A redirect is a refusal: the headers may hold a secret, and it is not meant for anybody else. A head that
    is not over in time is none, however it trickles in. Cookies are not taken, nor is a `.netrc` looked at,
    which would put another `authorization` in the place of ours.
    """

    def __init__(self, timeout_s: float) -> None:
        """Wait so long for an answer, all in all."""
        super().__init__()
        self._environment: Any = None
        self.auth = _as_it_is
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        for scheme in ("http://", "https://"):
            self.mount(scheme, _InTime(timeout_s))

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # noqa: ANN401
        """Send, and hang up, unless the answer is over already."""
        answer = super().send(request, **{**kwargs, "stream": True})
        answer._content = b""  # noqa: SLF001 - else whoever looks at it reads it
        answer._content_consumed = answer.headers.get("content-length") == "0"  # noqa: SLF001
        answer.close()
        if 300 <= answer.status_code < 400:
            answer.status_code = _REFUSED  # the library takes a redirect for an answer that is well
        return answer

    def merge_environment_settings(self, *asked: Any) -> Any:  # noqa: ANN401
        """What the environment says of proxies and certificates; asked once, for that takes its time."""
        if self._environment is None:
            self._environment = super().merge_environment_settings(*asked)
        return self._environment

    def get_redirect_target(self, _: requests.Response) -> None:
        """There is none. To look for it would read the body, too."""


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Who asks is in the headers."""
    return request


class _InTime(HTTPAdapter):
    """Hangs up where the head of an answer is not there in time. The library's own limit is for each read."""

    def __init__(self, timeout_s: float) -> None:
        bound = {"timeout_s": timeout_s}
        self._pools: dict[str, type] = {
            "http": type(
                "Pool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": type("C", (_Plain,), bound)}
            ),
            "https": type(
                "Pool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": type("C", (_Tls,), bound)}
            ),
        }
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:  # noqa: ANN401
        super().init_poolmanager(*arguments, **more)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        manager = super().proxy_manager_for(*arguments, **more)
        manager.pool_classes_by_scheme = self._pools
        return manager


class _Plain(HTTPConnection):
    """A connection that is cut off `timeout_s` after an answer is waited for."""

    timeout_s: float
    _is_cut_off = False

    def getresponse(self) -> Any:  # noqa: ANN401
        """The head of the answer. Whatever the server sends, it ends."""
        cutting = threading.Timer(self.timeout_s, self._cut_off)
        cutting.daemon = True
        cutting.start()
        try:
            answer = super().getresponse()
        finally:
            cutting.cancel()
        if self._is_cut_off:  # what was there until then may look like a whole one
            raise TimeoutError
        return answer

    def _cut_off(self) -> None:
        self._is_cut_off = True
        with suppress(OSError, AttributeError):  # it is gone already
            self.sock.shutdown(socket.SHUT_RDWR)


class _Tls(_Plain, HTTPSConnection):
    """The same over TLS."""


class Encoder:
    """Writes batches of spans."""

    def __init__(self, resource: Mapping[str, Value], scope: str) -> None:
        """Every batch says that it is of this process, and of this part of it."""
        self._resource = _field(b"\x0a", b"".join(_attribute(b"\x0a", *each) for each in resource.items()))
        self._scope = _field(b"\x0a", _field(b"\x0a", _text(scope)))

    def encode(self, spans: Iterable[ReadableSpan]) -> bytes:
        """The request that has these spans sent."""
        of_scope = b"".join(chain((self._scope,), *((b"\x12", _size(e), e) for e in map(_span, spans))))
        return _field(b"\x0a", self._resource + _field(b"\x12", of_scope))


def _span(span: ReadableSpan) -> bytes:
    context, parent = span.get_span_context(), span.parent
    parts = [
        _ids(context),
        b"" if parent is None else b"\x22\x08" + parent.span_id.to_bytes(8, "big"),
        _field(b"\x2a", _text(span.name)),
        _KINDS[span.kind],
        _times(b"\x39", span.start_time or 0, b"\x41", span.end_time or 0),
    ]
    said: Mapping[str, Any] = span.attributes or {}
    parts += [_attribute(b"\x4a", *each) for each in said.items()]
    contexts = (link.context for link in span.links)
    parts += [_field(b"\x6a", _ids(to) + _flags_of_link(b"\x35", _flags(to))) for to in contexts]
    parts += (_STATUS[span.status.status_code], _flags_of_span(b"\x85\x01", _flags(parent)))
    return b"".join(parts)


def _ids(context: SpanContext | None) -> bytes:
    """Fields 1 and 2 of a span and of a link."""
    if context is None:
        return b""
    return b"\x0a\x10%b\x12\x08%b" % (
        context.trace_id.to_bytes(16, "big"),
        context.span_id.to_bytes(8, "big"),
    )


def _flags(of: SpanContext | None) -> int:
    return _HAS_REMOTE | _IS_REMOTE if of is not None and of.is_remote else _HAS_REMOTE


def _attribute(tag: bytes, name: str, value: Value) -> bytes:
    return _field(tag, _key(name) + _field(b"\x12", _value(value)))


@cache
def _key(name: str) -> bytes:
    """Field 1 of an attribute. There are as many as `tracing.Attribute` has, and a few of the process."""
    return _field(b"\x0a", _text(name))


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return _field(b"\x0a", _text(value))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _size_of(value & (1 << 64) - 1)
    if isinstance(value, float):
        return _double(b"\x21", value)
    return _field(b"\x2a", b"".join(_field(b"\x0a", _value(each)) for each in value))


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # half a character is no reason to lose a batch


def _field(tag: bytes, content: bytes) -> bytes:
    return b"%b%b%b" % (tag, _size(content), content)


def _size(content: Sequence[int]) -> bytes:
    return _size_of(len(content))


_SIZES: Final = tuple(bytes((number,)) for number in range(128))


def _size_of(number: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, the lowest first."""
    if number < 128:
        return _SIZES[number]
    return bytes((number & 127 | 128,)) + _size_of(number >> 7)
