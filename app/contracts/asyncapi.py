"""The AsyncAPI 3.0 document: where events are published, and what each of them is.

It is made from the types that really encode and decode, so it cannot lag.
It is the same for every environment.
"""

from functools import cache
from typing import Any, Final

import msgspec

from app.contracts import streams
from app.contracts.event_examples import ENVELOPES
from app.domain.events import TYPES

VERSION: Final = "1.0"
EVENTS: Final = "events"
LIVE: Final = "live"
WEBHOOKS: Final = "webhooks"

_SCHEMA: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"

_DESCRIPTION: Final = """\
Every change of an order, its stock, payment and parcels, and of prices and shelves, is an event: an
envelope of CloudEvents 1.0 as JSON. What happens to an order has the order's id as its `subject` and one
common `sequence` without gaps; prices and adjustments have their SKU.

Events are published at least once, and in order for each subject. Whoever keeps the highest `sequence`
that it has handled of a subject, and skips what is not above it, has each event once. PostgreSQL keeps
them all: what a stream no longer holds is at `GET /v1/orders/{id}/events`. A type ends in its version; a
new version is a new type."""

_STREAMS: Final = f"""\
Redis streams: each entry has one field, `{streams.FIELD.decode()}`, which holds the envelope. They are
cut to a recent window, and never lose what one of the platform's own groups has not acknowledged. Read
them by XREAD, or by a consumer group with a name of your own."""
_CHANNEL: Final = """\
Redis pub/sub: each message is the envelope of an event that its stream has. Whoever does not listen
misses it."""
_WEBHOOKS: Final = """\
HTTP: each message is a POST to an endpoint that somebody named at `/v1/webhook-endpoints`, with the envelope
as its body. The headers `webhook-id`, `webhook-timestamp` and `webhook-signature` are those of Standard
Webhooks: HMAC-SHA256 of `{id}.{timestamp}.{body}` by the endpoint's secret. What is not answered by 2xx is
sent again for three days, under the same `webhook-id`; events of one subject may overtake one another."""

_ENVIRONMENT: Final = {"description": "`ENVIRONMENT` of the platform.", "examples": ["dev", "production"]}
_SHARD: Final = {
    "description": "CRC-32 of the subject, modulo the number of shards (`EVENT_SHARDS`, by default 4).",
    "default": "0",
}


@cache
def async_api() -> bytes:
    """The document as JSON."""
    messages, schemas = _messages()
    document = {
        "asyncapi": "3.0.0",
        "id": "urn:holdfast:events",
        "info": {
            "title": "Holdfast events",
            "version": VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": area} for area in dict.fromkeys(kind.split(".")[0] for kind in TYPES.values())],
        },
        "defaultContentType": _JSON,
        "servers": {
            "redis": {
                "host": "{host}:{port}",
                "protocol": "redis",
                "description": "The platform's Redis or Valkey (`REDIS_URL`).",
                "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "6379"}},
            },
            "receiver": {
                "host": "{host}",
                "protocol": "https",
                "description": "A server of yours, or of a customer's.",
                "variables": {"host": {"default": "shop.example.com"}},
            },
        },
        "channels": _channels(messages),
        "operations": {
            "publishEvent": _operation(EVENTS, messages, "Publish an event to its stream"),
            "tellEvent": _operation(LIVE, messages, "Tell whoever listens of an event that was published"),
            "deliverEvent": _operation(WEBHOOKS, messages, "Send an event to an endpoint that wants it")
            | {"bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}}},
        },
        "components": {"messages": messages, "schemas": schemas},
    }
    return msgspec.json.encode(document)


def _channels(messages: dict[str, Any]) -> dict[str, Any]:
    references = {name: {"$ref": f"#/components/messages/{name}"} for name in messages}
    # The addresses are made by what makes the keys.
    stream = streams.stream("{environment}", 0).removesuffix("0") + "{shard}"
    return {
        EVENTS: {
            "address": stream,
            "title": "The streams of events",
            "description": _STREAMS,
            "servers": [{"$ref": "#/servers/redis"}],
            "parameters": {"environment": _ENVIRONMENT, "shard": _SHARD},
            "messages": references,
        },
        LIVE: {
            "address": streams.live("{environment}"),
            "title": "Events as they happen",
            "description": _CHANNEL,
            "servers": [{"$ref": "#/servers/redis"}],
            "parameters": {"environment": _ENVIRONMENT},
            "messages": references,
        },
        WEBHOOKS: {
            "address": None,  # each endpoint has its own
            "title": "Webhooks",
            "description": _WEBHOOKS,
            "servers": [{"$ref": "#/servers/receiver"}],
            "messages": references,
        },
    }


def _operation(channel: str, messages: dict[str, Any], summary: str) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
    }


def _messages() -> tuple[dict[str, Any], dict[str, Any]]:
    """Every event as a message, and the schemas that they refer to."""
    _, schemas = msgspec.json.schema_components([streams.Envelope, *TYPES], ref_template=_SCHEMA)
    _complete(schemas["Envelope"])
    messages: dict[str, Any] = {}
    for cls, kind in TYPES.items():
        name = cls.__name__
        about = (cls.__doc__ or "").strip()
        said = {"type": {"const": kind}, "data": {"$ref": _SCHEMA.format(name=name)}}
        messages[name] = {
            "name": kind,
            "title": name,
            "summary": about,
            "tags": [{"name": kind.split(".")[0]}],
            "contentType": _JSON,
            "correlationId": {"location": "$message.payload#/correlationid"},
            "payload": {"allOf": [{"$ref": _SCHEMA.format(name="Envelope")}, {"properties": said}]},
            "examples": [{"name": name, "payload": _plain(ENVELOPES[cls])}],
        }
    return messages, schemas


def _complete(envelope: dict[str, Any]) -> None:
    """Say of the envelope what its types do not: what is always there, and the forms of texts."""
    envelope["required"] = sorted({*envelope["properties"]} - {"traceparent"})
    envelope["properties"]["time"] |= {"format": "date-time"}
    envelope["properties"]["sequence"] |= {"minimum": 1}
    envelope["properties"]["specversion"] |= {"const": "1.0"}
    envelope["properties"]["datacontenttype"] |= {"const": _JSON}
    envelope["properties"]["traceparent"] = {"type": "string"}  # left out where there is none


def _plain(value: object) -> object:
    """A struct as plain JSON."""
    return msgspec.json.decode(msgspec.json.encode(value))
