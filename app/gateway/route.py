"""`Route`: one method of one path, as the table of routes says it; and parameters that many routes share."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from app.gateway.exchange import Call, Reply
from app.gateway.parameters import LIMIT_DEFAULT, LIMIT_MAX
from app.gateway.services import Services

Run: TypeAlias = Callable[[Services, Call], Awaitable[Reply]]


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of the `query`, the `path` or a `header`, with its JSON Schema."""

    name: str
    place: str
    about: str
    schema: Mapping[str, Any]
    required: bool = False


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    `scope` is what the API key must allow (None: no key is asked for); `gives` maps each good status to the
    type of its document (a text: that media type; None: no body); `keyed` asks for an Idempotency-Key;
    `admits_itself` counts the request against its caller's limit together with other questions. Where
    a status has more to it than its kind of document: `says` in words, `shows` an example, `sends` headers.
    `also_streams`: 200 is a stream of events where that is what the caller accepts.
    """

    method: str
    path: str
    run: Run
    tag: str
    summary: str
    about: str = ""
    scope: str | None = None
    takes: type | None = None
    body_optional: bool = False
    keyed: bool = False
    admits_itself: bool = False
    gives: Mapping[int, Any]
    says: Mapping[int, str] = {}
    shows: Mapping[int, Any] = {}
    sends: Mapping[int, tuple[str, ...]] = {}
    refuses: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    also_streams: bool = False
    is_probe: bool = False

    @property
    def problems(self) -> tuple[str, ...]:
        """Every problem that this route can answer."""
        found = list(self.refuses)
        if self.scope:
            found += ["unauthenticated", "forbidden", "rate-limited"]
        if self.takes:
            found += ["malformed-request", "request-timeout", "body-too-large", "unsupported-media-type"]
            found += ["invalid-request"]
        if self.keyed:
            found += ["idempotency-key-missing", "idempotency-key-reused", "invalid-parameter"]
        if any(parameter.place == "query" for parameter in self.parameters):
            found += ["invalid-parameter", "malformed-request"]
        if not self.is_probe:
            found += ["overloaded", "unavailable", "internal-error"]
        return tuple(dict.fromkeys(found))


TEXT: Final = {"type": "string"}
TIME: Final = {"type": "string", "format": "date-time"}

LIMIT: Final = Parameter(
    "limit",
    "query",
    "How many items one page holds.",
    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
)
CURSOR: Final = Parameter("cursor", "query", "`next_cursor` of the page before; opaque.", TEXT)
