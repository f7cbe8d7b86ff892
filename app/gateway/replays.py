"""Replays over HTTP: asked for, looked at, applied as they were shown, or stopped. A worker does the work."""

from collections.abc import Coroutine
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from app.contracts import streams
from app.contracts.documents import Page
from app.domain.ids import REPLAY_ID
from app.gateway.auth import refuse_customers
from app.gateway.bodies import check_is_json, decode, in_utc, read_body
from app.gateway.deadlines import within
from app.gateway.exchange import Call, Reply
from app.gateway.idempotency import key_of, reply_of, request_of
from app.gateway.parameters import cursor_of, encode_cursor, limit_of, query
from app.gateway.problems import not_found, wrong_parameter
from app.gateway.services import Services
from app.infra.postgres.replays import STATES, Asked, Replay, Selection
from app.replay.messages import ReplayDocument, change_document, document

DEADLINE_S: Final = 2.5
LISTED_ITEMS_MAX: Final = 20
"""So much of a list among its parameters (of prices, say) is shown of each replay where many are listed."""
_NUMBER_DIGITS_MAX: Final = 15

Name = Annotated[str, Meta(min_length=1, max_length=64, examples=["daily_summary"])]
Time = Annotated[datetime, Meta(tz=True)]
Rate = Annotated[int, Meta(ge=1, le=10_000_000, description="Events a second, at most.")]


class ReplayBody(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}
):
    """Which handler is to run, on which events (all, where nothing is said), and whether to change anything.

    `parameters` are what the handler wants to know beside that.
    """

    handler: Name
    since: Time | None = None
    until: Time | None = None
    type: Annotated[str, Meta(max_length=100)] | None = None
    order: Annotated[str, Meta(max_length=64)] | None = None
    parameters: dict[str, Any] = {}
    rate: Rate | None = None
    apply: bool = False


_decoder: Final = msgspec.json.Decoder(ReplayBody)
_encoder: Final = msgspec.json.Encoder()


async def ask_for_replay(services: Services, call: Call) -> Reply:
    """`POST /v1/replays`: put a replay on record; a worker takes it up at once."""
    refuse_customers(call)
    assert call.caller is not None, "the route names a scope"
    key = key_of(call)
    check_is_json(call)
    body = await read_body(call)
    wanted = decode(_decoder, body)
    asked = Asked(
        handler=wanted.handler,
        selection=Selection(
            in_utc("/from", wanted.since), in_utc("/to", wanted.until), wanted.type, wanted.order
        ),
        parameters=wanted.parameters,
        rate_per_s=wanted.rate,
        is_applied=wanted.apply,
    )
    request = request_of(call.caller, "POST /v1/replays", key, body)
    answer = await within(DEADLINE_S, services.replays.ask(request, asked, _encode))
    _hint(services)
    return reply_of(answer)


async def list_replays(services: Services, call: Call) -> Reply:
    """`GET /v1/replays`: newest first."""
    refuse_customers(call)
    given = query(call, "handler", "state", "cursor", "limit")
    state, handler = given.get("state"), given.get("handler")
    if handler is not None and handler not in services.replays.names:
        raise wrong_parameter("handler", "It has to be one of " + ", ".join(services.replays.names) + ".")
    if state is not None and state not in STATES:
        raise wrong_parameter("state", "It has to be one of " + ", ".join(STATES) + ".")
    limit = limit_of(given)
    behind = cursor_of(given, "replays", REPLAY_ID.match)
    page = services.replays.seen.page(behind, limit + 1, handler=handler, state=state)
    found = await within(DEADLINE_S, page)
    more = encode_cursor("replays", found[limit - 1].id) if len(found) > limit else None
    shown = [document(replay, items_max=LISTED_ITEMS_MAX) for replay in found[:limit]]
    return Reply(200, _encoder.encode(Page(shown, more)))


async def get_replay(services: Services, call: Call) -> Reply:
    """`GET /v1/replays/{replay_id}`: how far it is."""
    refuse_customers(call)
    return Reply(200, _encode(await _found(services, call)))


async def list_changes(services: Services, call: Call) -> Reply:
    """`GET /v1/replays/{replay_id}/changes`: the rows that differ."""
    refuse_customers(call)
    given = query(call, "cursor", "limit")
    limit = limit_of(given)
    behind = int(cursor_of(given, "changes", _is_number) or 0)
    replay = await _found(services, call)
    found = await within(DEADLINE_S, services.replays.seen.changes(replay.id, behind, limit + 1))
    more = encode_cursor("changes", str(found[limit - 1].number)) if len(found) > limit else None
    return Reply(200, _encoder.encode(Page([change_document(replay, c) for c in found[:limit]], more)))


async def apply_replay(services: Services, call: Call) -> Reply:
    """`POST /v1/replays/{replay_id}/apply`: make exactly the changes that were shown."""
    refuse_customers(call)
    return await _decided(services, services.replays.apply(_id(call)))


async def cancel_replay(services: Services, call: Call) -> Reply:
    """`POST /v1/replays/{replay_id}/cancel`: stop it before it changes anything."""
    refuse_customers(call)
    return await _decided(services, services.replays.cancel(_id(call)))


async def _decided(services: Services, deciding: Coroutine[Any, Any, Replay]) -> Reply:
    try:
        replay = await within(DEADLINE_S, deciding)
    except LookupError:
        raise not_found("replay") from None
    _hint(services)
    return Reply(202, _encode(replay))


async def _found(services: Services, call: Call) -> Replay:
    replay = await within(DEADLINE_S, services.replays.seen.one(_id(call)))
    if replay is None:
        raise not_found("replay")
    return replay


def _id(call: Call) -> str:
    identity = call.parameters["replay_id"]
    if not REPLAY_ID.match(identity):
        raise not_found("replay")
    return identity


def _encode(replay: Replay) -> bytes:
    shown: ReplayDocument = document(replay)
    return _encoder.encode(shown)


def _hint(services: Services) -> None:
    services.hints.publish(streams.hint_workflow_outbox(services.environment))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS_MAX
