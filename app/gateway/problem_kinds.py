"""The table of problems: every type the gateway answers with, its status, and what a caller does about it."""

from typing import Final

import msgspec


class Kind(msgspec.Struct, frozen=True):
    """One type of problem: `/problems/<slug>`, and what a caller should do about it."""

    slug: str
    status: int
    title: str
    about: str


KINDS: Final = (
    Kind(
        "malformed-request",
        400,
        "The request cannot be read",
        "The body is not JSON in UTF-8, is nested too deeply, or the query cannot be decoded. Send it "
        "again, well-formed.",
    ),
    Kind(
        "invalid-parameter",
        400,
        "A query parameter or header is wrong",
        "`errors` names the parameter and what it may be.",
    ),
    Kind(
        "idempotency-key-missing",
        400,
        "Idempotency-Key is missing",
        "Requests that move money or goods need an `Idempotency-Key` header: 1 to 255 printable ASCII "
        "characters, the same for every repetition of one request, another one for every new request.",
    ),
    Kind(
        "unauthenticated",
        401,
        "The API key is missing or not valid",
        "Send `Authorization: Bearer <api key>` with a key that is not revoked. The carrier's "
        "webhooks are signed instead; this is also the answer to a wrong or outdated signature.",
    ),
    Kind(
        "forbidden",
        403,
        "The API key does not allow this",
        "The key lacks the scope named in `detail`, or is bound to another customer.",
    ),
    Kind(
        "not-found",
        404,
        "There is no such thing",
        "The path is unknown, or what it names does not exist, or belongs to somebody else.",
    ),
    Kind(
        "method-not-allowed",
        405,
        "The path does not know this method",
        "The `Allow` header lists those it knows.",
    ),
    Kind(
        "not-acceptable",
        406,
        "The answer cannot be given in this form",
        "Ask for `application/json`, or for `text/event-stream` where events are followed.",
    ),
    Kind(
        "request-timeout",
        408,
        "The body came too slowly",
        "A request's body has to arrive within ten seconds.",
    ),
    Kind(
        "events-archived",
        410,
        "These events are in the archive",
        "What happened so long ago has left the database; `detail` says since when events are here. Come "
        "again without `Last-Event-ID` for what happens from now on; operators can read the archive.",
    ),
    Kind(
        "price-changed",
        409,
        "The total is not what you expected",
        "Prices moved since you looked. Show the new total to whoever pays, and order again with it.",
    ),
    Kind(
        "sold-out",
        409,
        "Sold out",
        "`errors` names the lines that there is not enough for. Nothing was stored; the same key may be "
        "used again.",
    ),
    Kind(
        "too-late",
        409,
        "It is too late to cancel",
        "The parcels were released to the carrier; there is no way back from there.",
    ),
    Kind(
        "not-cancellable",
        409,
        "There is nothing to cancel",
        "The order was rejected: nothing of it is held.",
    ),
    Kind(
        "not-now",
        409,
        "Not now",
        "This cannot happen to the order as it is now. Where `Retry-After` is set, ask again later.",
    ),
    Kind(
        "replay-not-now",
        409,
        "Not with this replay, as it is now",
        "Only what is shown can be applied, within a day and one at a time; only what is not applied yet can "
        "be stopped. `detail` says how it is.",
    ),
    Kind(
        "stock-reserved",
        409,
        "Not that many can be taken away",
        "What is reserved for orders has to stay on hand. `detail` says how many are free.",
    ),
    Kind(
        "stock-full",
        409,
        "That is more than a warehouse holds",
        "Check the adjustment for a slip of the keyboard.",
    ),
    Kind(
        "too-many-webhook-endpoints",
        409,
        "There are too many webhook endpoints",
        "Delete one, or have one endpoint take more types of events.",
    ),
    Kind(
        "webhook-endpoint-disabled",
        409,
        "The webhook endpoint is disabled",
        "Enable it first; it was switched off by hand, or it answered 410.",
    ),
    Kind(
        "webhook-event-archived",
        409,
        "The event is in the archive",
        "The event of this delivery has left the database, so it cannot be sent again. An operator can put "
        "its month back: `detail` has the command.",
    ),
    Kind(
        "body-too-large",
        413,
        "The body is too large",
        "A body has at most 256 KiB.",
    ),
    Kind(
        "unsupported-media-type",
        415,
        "The body is not of a type that is read here",
        "Send `Content-Type: application/json`, in UTF-8, not compressed.",
    ),
    Kind(
        "invalid-request",
        422,
        "The request says something that cannot be",
        "`errors` names each wrong field by a JSON pointer.",
    ),
    Kind(
        "idempotency-key-reused",
        422,
        "The Idempotency-Key was used for another request",
        "A key belongs to one request body. Use a new key for a new request.",
    ),
    Kind(
        "rate-limited",
        429,
        "Too many requests with this API key",
        "Nothing was done. `RateLimit-Policy` says how many are allowed, `RateLimit` how many are left, "
        "`Retry-After` when to ask again, in seconds.",
    ),
    Kind(
        "internal-error",
        500,
        "Something went wrong on our side",
        "It is on record under the correlation id. Requests with an `Idempotency-Key` can be repeated "
        "safely.",
    ),
    Kind(
        "overloaded",
        503,
        "Too many requests are under way",
        "Nothing was done. Ask again after `Retry-After` seconds.",
    ),
    Kind(
        "unavailable",
        503,
        "A service that is needed does not answer",
        "Ask again after `Retry-After` seconds, with the same `Idempotency-Key`: what was asked may "
        "have been done.",
    ),
)
"""All problems, by status."""

BY_SLUG: Final = {kind.slug: kind for kind in KINDS}
