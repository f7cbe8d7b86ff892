"""Dead letters over HTTP: events that a consumer group could not handle, and having them tried again."""

from typing import Final

import msgspec

from app.contracts.documents import Page
from app.domain.ids import NAME
from app.gateway.auth import refuse_customers
from app.gateway.deadlines import within
from app.gateway.exchange import Call, Reply
from app.gateway.parameters import cursor_of, encode_cursor, limit_of, query
from app.gateway.problems import not_found, wrong_parameter
from app.gateway.services import Services
from app.infra.postgres.dead_letters import STATES, WAITING, DeadLetter, document

DEADLINE_S: Final = 2.5
_ID_DIGITS_MAX: Final = 18
_TYPE_CHARACTERS_MAX: Final = 100

_encoder: Final = msgspec.json.Encoder()


async def list_dead_letters(services: Services, call: Call) -> Reply:
    """`GET /v1/dead-letters`: those that wait, oldest first, or those in a state."""
    refuse_customers(call)
    given = query(call, "group", "type", "state", "cursor", "limit")
    group, state, kind = given.get("group"), given.get("state"), given.get("type")
    if group is not None and not NAME.match(group):
        raise wrong_parameter("group", "It has to be a consumer group's name, like projections.")
    if state is not None and state not in STATES:
        raise wrong_parameter("state", "It has to be one of " + ", ".join(STATES) + ".")
    if kind is not None and not (kind.isprintable() and len(kind) <= _TYPE_CHARACTERS_MAX):
        raise wrong_parameter("type", "It has to be a type of event, like order.confirmed.v1.")
    limit = limit_of(given)
    after = int(cursor_of(given, "dead-letters", _is_id) or 0)
    page = services.dead_letters.page(
        after, limit + 1, group=group, type_=kind, states=(state,) if state else WAITING
    )
    found = await within(DEADLINE_S, page)
    more = encode_cursor("dead-letters", str(found[limit - 1].id)) if len(found) > limit else None
    return Reply(200, _encoder.encode(Page([document(letter) for letter in found[:limit]], more)))


async def retry_dead_letter(services: Services, call: Call) -> Reply:
    """`POST /v1/dead-letters/{letter_id}/retry`: have its event handled again; twice is the same as once."""
    refuse_customers(call)
    identity = call.parameters["letter_id"]
    letter = await within(DEADLINE_S, _retry(services, int(identity))) if _is_id(identity) else None
    if letter is None:
        raise not_found("dead letter")
    return Reply(202, _encoder.encode(document(letter)))


async def _retry(services: Services, letter_id: int) -> DeadLetter | None:
    await services.dead_letters.retry([letter_id])
    return await services.dead_letters.one(letter_id)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS_MAX
