"""Dead letters over HTTP: events that a consumer group could not handle, tried again or left out.

It only says what is to happen, for one or for as many as are chosen; a consumer does it. Said twice is the
same as once, so no Idempotency-Key is needed.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from app.contracts.documents import Page
from app.domain.ids import NAME
from app.gateway.auth import refuse_customers
from app.gateway.bodies import check_is_json, decode, read_body
from app.gateway.deadlines import within
from app.gateway.exchange import Call, Reply
from app.gateway.letter_messages import DecidedDocument, LettersBody
from app.gateway.parameters import cursor_of, encode_cursor, limit_of, query, time_of
from app.gateway.problems import not_found, wrong_parameter
from app.gateway.services import Services
from app.infra.postgres.dead_letters import (
    DECIDED_MAX,
    FAILED,
    STATES,
    UNKNOWN,
    WAITING,
    Chosen,
    DeadLetter,
    document,
)

DEADLINE_S: Final = 2.5
_ID_DIGITS_MAX: Final = 18
_TYPE_CHARACTERS_MAX: Final = 100
_SUBJECT_CHARACTERS_MAX: Final = 64
_CURSOR: Final = "dead-letters"

_Decide = Callable[[Chosen, int], Coroutine[Any, Any, list[int]]]

_decoder: Final = msgspec.json.Decoder(LettersBody)
_encoder: Final = msgspec.json.Encoder()


async def list_dead_letters(services: Services, call: Call) -> Reply:
    """`GET /v1/dead-letters`: those that wait, oldest first, or those in a state."""
    refuse_customers(call)
    names = ("group", "type", "subject", "kind", "state", "first_after", "first_before", "cursor", "limit")
    given = query(call, *names)
    state = given.get("state")
    if state is not None and state not in STATES:
        raise wrong_parameter("state", "It has to be one of " + ", ".join(STATES) + ".")
    limit = limit_of(given)
    after = int(cursor_of(given, _CURSOR, _is_id) or 0)
    page = services.dead_letters.page(after, limit + 1, _chosen(given), states=(state,) if state else WAITING)
    found = await within(DEADLINE_S, page)
    more = encode_cursor(_CURSOR, str(found[limit - 1].id)) if len(found) > limit else None
    return Reply(200, _encoder.encode(Page([document(letter) for letter in found[:limit]], more)))


async def get_dead_letter(services: Services, call: Call) -> Reply:
    """`GET /v1/dead-letters/{letter_id}`: one, in whatever state."""
    refuse_customers(call)
    identity = call.parameters["letter_id"]
    found = services.dead_letters.one(int(identity)) if _is_id(identity) else None
    letter = await within(DEADLINE_S, found) if found else None
    if letter is None:
        raise not_found("dead letter")
    return Reply(200, _encoder.encode(document(letter)))


async def retry_dead_letter(services: Services, call: Call) -> Reply:
    """`POST /v1/dead-letters/{letter_id}/retry`: have its event handled again."""
    return await _one(services, call, services.dead_letters.retry)


async def discard_dead_letter(services: Services, call: Call) -> Reply:
    """`POST /v1/dead-letters/{letter_id}/discard`: have its event left out, for good."""
    return await _one(services, call, services.dead_letters.discard)


async def retry_dead_letters(services: Services, call: Call) -> Reply:
    """`POST /v1/dead-letters/retry`: have the events of many handled again."""
    return await _many(call, services.dead_letters.retry)


async def discard_dead_letters(services: Services, call: Call) -> Reply:
    """`POST /v1/dead-letters/discard`: have the events of many left out, for good."""
    return await _many(call, services.dead_letters.discard)


async def _one(services: Services, call: Call, decide: _Decide) -> Reply:
    refuse_customers(call)
    identity = call.parameters["letter_id"]
    if not _is_id(identity):
        raise not_found("dead letter")

    async def decided() -> DeadLetter | None:
        await decide(Chosen(ids=(int(identity),)), 0)
        return await services.dead_letters.one(int(identity))

    letter = await within(DEADLINE_S, decided())
    if letter is None:
        raise not_found("dead letter")
    return Reply(202, _encoder.encode(document(letter)))


async def _many(call: Call, decide: _Decide) -> Reply:
    refuse_customers(call)
    check_is_json(call)
    wanted = decode(_decoder, await read_body(call))
    after = int(cursor_of({"cursor": wanted.cursor}, _CURSOR, _is_id) or 0) if wanted.cursor else 0
    done = await within(DEADLINE_S, decide(wanted.chosen(), after))
    more = encode_cursor(_CURSOR, str(done[-1])) if len(done) == DECIDED_MAX else None
    return Reply(202, _encoder.encode(DecidedDocument(len(done), [str(one) for one in done], more)))


def _chosen(given: dict[str, str]) -> Chosen:
    """Which letters a query asks for. Raises ProblemError."""
    group, type_, subject, kind = (given.get(name) for name in ("group", "type", "subject", "kind"))
    if group is not None and not NAME.match(group):
        raise wrong_parameter("group", "It has to be a consumer group's name, like projections.")
    if type_ is not None and not (type_.isprintable() and len(type_) <= _TYPE_CHARACTERS_MAX):
        raise wrong_parameter("type", "It has to be a type of event, like order.confirmed.v1.")
    if subject is not None and not (subject.isprintable() and len(subject) <= _SUBJECT_CHARACTERS_MAX):
        raise wrong_parameter("subject", "It has to be an order's id or a SKU, or how one begins.")
    if kind not in {None, FAILED, UNKNOWN}:
        raise wrong_parameter("kind", f"It has to be {FAILED} or {UNKNOWN}.")
    return Chosen(
        group=group,
        type=type_,
        subject=subject,
        kind=kind,
        since=time_of(given, "first_after"),
        until=time_of(given, "first_before"),
    )


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS_MAX
