"""The OpenAPI 3.1 document, made from the table of routes and the types that really decode and encode.

Every status that a route can answer is in it; a test walks the document and finds none besides.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from app.contracts.documents import EventPage, OrderDocument, Page
from app.domain.events import OrderEvent
from app.domain.fulfilment import FulfilmentStatus
from app.domain.order import Status
from app.domain.payment import PaymentStatus
from app.gateway import messages
from app.gateway.examples import STREAM, example_of, plain
from app.gateway.health import Health
from app.gateway.problem_kinds import BY_SLUG
from app.gateway.problems import MEDIA, Problem
from app.gateway.route import Route

VERSION: Final = "1.0"
_REFERENCE: Final = "#/components/schemas/{name}"
_WAITING_ON: Final = ("payments", "inventory", "shipping", "customer", "operator")
_ABOUT_WAITING: Final = (
    "What an order that does not move waits for: a service (it is away, or nobody of ours takes its steps, "
    "which is said after half a minute), the customer or an operator. Null where the order moves, and where "
    "no worker runs at all."
)

_LIMITS: Final = ("RateLimit-Policy", "RateLimit")
"""On every answer to a request that was counted against its caller's limit."""

_DESCRIPTION: Final = """\
An order platform that does not lose orders and does not charge twice.

Authenticate with `Authorization: Bearer <api key>`. Money is `{"amount": 1467, "currency": "USD"}`: whole
minor units. Times are RFC 3339 in UTC. Requests that move money or goods need an `Idempotency-Key`; repeat
them with the same key until you have an answer. Errors are `application/problem+json` (RFC 9457)."""

_HEADERS: Final = {
    "X-Request-ID": "This very request, in our logs.",
    "X-Correlation-ID": "What follows from this request, everywhere: yours, where you sent one.",
    "Location": "Where the thing is.",
    "ETag": "The document's version.",
    "Retry-After": "Seconds to wait before asking again.",
    "Idempotent-Replayed": "`true` where this answer was given before.",
    "Preference-Applied": "The wait that was granted.",
    "WWW-Authenticate": "How to authenticate.",
    "Allow": "The methods that the path knows.",
    "RateLimit-Policy": "How many requests of this kind the key may make, in how many seconds.",
    "RateLimit": "How many of them are left, and in how many seconds there are more.",
}


def open_api(routes: Iterable[Route]) -> bytes:
    """The document as JSON."""
    routes = tuple(routes)
    kinds = _kinds(routes)
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    schema_of = dict(zip(map(repr, kinds), schemas, strict=True))
    _name_states(components)
    _describe_events(components)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Holdfast", "version": VERSION, "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": {
                name: {"description": about, "schema": {"type": "string"}} for name, about in _HEADERS.items()
            },
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key (`hf_…`)."}
            },
        },
    }
    return msgspec.json.encode(document)


def _kinds(routes: tuple[Route, ...]) -> list[Any]:
    """Every type that is sent or answered, once."""
    found: dict[str, Any] = {repr(Problem): Problem}
    for route in routes:
        for kind in (route.takes, *route.gives.values()):
            if kind is not None and not isinstance(kind, str):
                found[repr(kind)] = kind
    return list(found.values())


def _name_states(components: dict[str, Any]) -> None:
    """Name the states that documents carry as plain texts."""
    states: dict[str, tuple[str, tuple[str, ...]]] = {
        "OrderDocument": ("status", tuple(Status)),
        "PaymentDocument": ("status", tuple(PaymentStatus)),
        "FulfilmentDocument": ("status", tuple(FulfilmentStatus)),
    }
    for name, (field, values) in states.items():
        components[name]["properties"][field]["enum"] = values
    waiting = {"enum": [*_WAITING_ON, None], "description": _ABOUT_WAITING}
    components["OrderDocument"]["properties"]["waiting_on"] = waiting


def _describe_events(components: dict[str, Any]) -> None:
    """Say what is in the data of an order's events, which are passed on as the raw text that was stored."""
    (data,), events = msgspec.json.schema_components([OrderEvent], ref_template=_REFERENCE)
    components.update(events)
    kinds = list(data["discriminator"]["mapping"])
    components["Envelope"]["properties"] |= {"type": {"enum": kinds}, "data": data}


def _operation(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.run.__name__,
        "tags": [route.tag],
        "summary": route.summary,
        "responses": _responses(route, schema_of),
        "security": [{"apiKey": [route.scope]}] if route.scope else [],
    }
    if route.about:
        operation["description"] = route.about
    parameters = [
        {
            "name": given.name,
            "in": given.place,
            "description": given.about,
            "required": given.required,
            "schema": given.schema,
        }
        for given in route.parameters
    ]
    if route.keyed:
        parameters.append(_KEY)
    if route.scope:
        parameters.append(_CORRELATION)
    if parameters:
        operation["parameters"] = parameters
    if route.takes:
        content = {"schema": schema_of[repr(route.takes)], "example": example_of(route.takes)}
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": content},
        }
    return operation


_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same for every repetition of this request, another one for every new request.",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x20-\\x7e]+$"},
    "example": "9c2b1f7e-order-1",
}
_CORRELATION: Final[dict[str, Any]] = {
    "name": "X-Correlation-ID",
    "in": "header",
    "description": "Your own id for what follows from this request.",
    "required": False,
    "schema": {"type": "string", "maxLength": 128},
}


def _responses(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, kind in route.gives.items():
        found[str(status)] = _good(route, status, kind, schema_of)
    by_status: dict[int, list[str]] = {}
    for slug in route.problems:
        by_status.setdefault(BY_SLUG[slug].status, []).append(slug)
    for status, slugs in sorted(by_status.items()):
        found[str(status)] = _bad(slugs, schema_of, is_limited=bool(route.scope) and status not in {401, 403})
    return found


def _good(route: Route, status: int, kind: Any, schema_of: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    headers = ["X-Request-ID", "X-Correlation-ID", *(_LIMITS if route.scope else ())]
    headers += route.sends.get(status, ())
    headers += ["Idempotent-Replayed"] if route.keyed else []
    headers += ["Preference-Applied"] if any(given.name == "Prefer" for given in route.parameters) else []
    said = route.says.get(status) or _SAID.get(status) or _GIVEN[kind]
    response: dict[str, Any] = {"description": said, "headers": _references(headers)}
    if isinstance(kind, str):
        response["content"] = {kind: {"schema": {"type": "string"} if kind.startswith("text/") else {}}}
        if status in route.shows:
            response["content"][kind]["example"] = route.shows[status]
    elif kind is not None:
        example = plain(route.shows[status]) if status in route.shows else example_of(kind)
        content = {"schema": schema_of[repr(kind)], "example": example}
        response["content"] = {"application/json": content}
        if route.also_streams:
            response["content"]["text/event-stream"] = {"schema": {"type": "string"}, "example": STREAM}
    return response


_SAID: Final = {
    201: "It was new, and is made.",
    304: "The caller has it already.",
    503: "Not now: a check fails.",
}
_GIVEN: Final = {
    OrderDocument: "The order as it is now.",
    Page[OrderDocument]: "One page of orders.",
    EventPage: "One page of the order's events, the oldest first.",
    messages.ProductDocument: "The product as it is now.",
    Page[messages.ProductDocument]: "One page of products.",
    messages.StockDocument: "The stock of the SKU, in each warehouse.",
    Page[messages.StockDocument]: "One page of stock.",
    messages.CarrierAnswer: "The report was taken; it need not be repeated.",
    Health: "All is well.",
    "text/event-stream": "Events as they happen; the `data` of each is its envelope.",
    "text/plain": "The metrics, in Prometheus' text format.",
    "application/json": "The document.",
    "text/html": "The page.",
}


def _bad(slugs: list[str], schema_of: dict[str, Any], *, is_limited: bool) -> dict[str, Any]:
    kinds = [BY_SLUG[slug] for slug in slugs]
    headers = ["X-Request-ID", "X-Correlation-ID", *(_LIMITS if is_limited else ())]
    headers += ["Retry-After"] if kinds[0].status in {429, 503} or "not-now" in slugs else []
    headers += ["WWW-Authenticate"] if kinds[0].status in {401, 403} else []
    examples = {
        kind.slug: {
            "summary": kind.title,
            "value": msgspec.to_builtins(
                Problem(
                    f"/problems/{kind.slug}", kind.title, kind.status, kind.about, "/v1/…", "checkout-7f3a"
                )
            ),
        }
        for kind in kinds
    }
    content = {"schema": schema_of[repr(Problem)], "examples": examples}
    return {
        "description": "; ".join(kind.title for kind in kinds) + ".",
        "headers": _references(headers),
        "content": {MEDIA.decode(): content},
    }


def _references(headers: list[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
