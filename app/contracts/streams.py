"""Redis keys and the envelope of events (CloudEvents 1.0 attributes, structured mode).

Every key starts with `hf:<environment>:`, without exception: that is how a database is seen to be another
environment's, and what users of Redis may be kept to. What belongs to one order carries its id as a hash tag,
so that the keys may live on a cluster.
"""

import zlib
from datetime import UTC, datetime
from typing import Final

import msgspec

GROUP_PROJECTIONS: Final = "projections"
GROUP_ANALYTICS: Final = "analytics"
GROUP_NOTIFICATIONS: Final = "notifications"
GROUP_WEBHOOKS: Final = "webhooks"
CONSUMER: Final = b"owner"
"""The one name under which whoever owns a shard reads it: the next owner finds what the last left pending."""
FIELD: Final = b"e"
"""The one field of a stream entry: the envelope as JSON."""


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One event as it is published. `id` is `<subject>:<sequence>`; `time` is RFC 3339 UTC.

    It holds texts only, so the garbage collector need not look at it: a consumer has thousands of them.
    """

    id: str
    type: str
    source: str
    subject: str
    time: str
    sequence: int
    correlationid: str
    data: msgspec.Raw
    traceparent: str | None = None
    # Made, not given: a plain default would be left out, and CloudEvents wants the version in each event.
    specversion: str = msgspec.field(default_factory=lambda: "1.0")
    datacontenttype: str = msgspec.field(default_factory=lambda: "application/json")


def happened_at(event: Envelope) -> datetime:
    """When it happened, UTC."""
    return datetime.fromisoformat(event.time).astimezone(UTC)


def prefix(environment: str) -> str:
    """What all keys of an environment start with, and of no other one: their names have no colon."""
    return f"hf:{environment}:"


def environment_marker(environment: str) -> str:
    """Says that a Redis database belongs to this environment, by its value, which is its name."""
    return f"hf:{environment}:environment"


def stream(environment: str, shard: int) -> str:
    """The stream of one shard."""
    return f"hf:{environment}:events:{shard}"


def relay_fence(environment: str, shard: int, shards: int) -> str:
    """The newest token of a relay, of those that count so many shards, that has written to a shard's stream.

    It is in the stream's slot of a cluster.
    """
    return f"hf:{environment}:relay:{{{stream(environment, shard)}}}:{shards}"


def shard_of(subject: str, shards: int) -> int:
    """The shard that carries all events of a subject."""
    return zlib.crc32(subject.encode()) % shards


def order_document(environment: str, order_id: str) -> str:
    """The cached document of an order."""
    return f"hf:{environment}:{{{order_id}}}:document"


def hint_workflow_outbox(environment: str) -> str:
    """Channel: somebody put a row in the workflow outbox."""
    return f"hf:{environment}:hints:workflow-outbox"


def hint_event_outbox(environment: str) -> str:
    """Channel: somebody put a row in the event outbox."""
    return f"hf:{environment}:hints:event-outbox"


def hint_webhooks(environment: str) -> str:
    """Channel: somebody wrote deliveries of webhooks."""
    return f"hf:{environment}:hints:webhooks"


def live(environment: str) -> str:
    """Channel: every event that was published, as its envelope."""
    return f"hf:{environment}:live"


def source(environment: str) -> str:
    """The CloudEvents source."""
    return f"/holdfast/{environment}"
