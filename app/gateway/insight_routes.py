"""The routes that tell how things go: analytics, and events that could not be handled."""

from typing import Final

from app.contracts.documents import Page
from app.gateway import analytics, customers, dead_letters
from app.gateway.letter_messages import DecidedDocument, LettersBody
from app.gateway.route import CURSOR, LIMIT, TEXT, TIME, Parameter, Route
from app.infra.postgres.dead_letters import DECIDED_MAX, FAILED, STATES, UNKNOWN, DeadLetterDocument

INSIGHT: Final = (
    Route(
        method="GET", path="/v1/analytics/minutely", run=analytics.list_minutes, tag="analytics",
        scope="analytics:read", summary="List what happened minute by minute, oldest first",
        about="Minutes in which nothing happened are left out. Counted within about a second of the event.",
        gives={200: Page[analytics.MinuteDocument]}, says={200: "One page of minutes."},
        parameters=(
            Parameter("from", "query", "Only minutes that begin then or later.", TIME),
            Parameter("to", "query", "Only minutes that begin earlier than this.", TIME),
            CURSOR, LIMIT,
        ),
    ),
    Route(
        method="GET", path="/v1/customers/{customer_id}/summary", run=customers.get_customer,
        tag="customers", scope="orders:read", summary="Read what a customer ordered and paid",
        about="By currency; counted within about a second of the event. A key that is bound to a customer "
        "sees only that one's.",
        gives={200: customers.CustomerDocument}, says={200: "The customer's summary."},
        refuses=("not-found",),
        parameters=(
            Parameter(
                "customer_id", "path", "The customer's id.", {"type": "string", "examples": ["cust-1042"]},
                required=True,
            ),
        ),
    ),
)  # fmt: skip

_LETTER_ID: Final = Parameter("letter_id", "path", "The letter's id.", TEXT, required=True)

DEAD_LETTERS: Final = (
    Route(
        method="GET", path="/v1/dead-letters", run=dead_letters.list_dead_letters, tag="dead letters",
        scope="operations:read", summary="List events that a consumer group could not handle",
        about="Those that wait, unless a state is asked for; oldest first.",
        gives={200: Page[DeadLetterDocument]}, says={200: "One page of dead letters."},
        parameters=(
            Parameter("group", "query", "Only this consumer group's.", TEXT),
            Parameter("type", "query", "Only events of this type.", TEXT),
            Parameter("subject", "query", "Only subjects that begin like this.", TEXT),
            Parameter(
                "kind", "query", "Only failures, or events of types that nobody knew.",
                {"type": "string", "enum": [FAILED, UNKNOWN]},
            ),
            Parameter("state", "query", "Only those in this state.", {"type": "string", "enum": [*STATES]}),
            Parameter("first_after", "query", "Only what first failed then or later.", TIME),
            Parameter("first_before", "query", "Only what first failed earlier than this.", TIME),
            CURSOR, LIMIT,
        ),
    ),
    Route(
        method="POST", path="/v1/dead-letters/retry", run=dead_letters.retry_dead_letters,
        tag="dead letters", scope="operations:write", summary="Have many dead letters tried again",
        about="Those that wait and of which all is true that the body says, at most "
        f"{DECIDED_MAX} a request, oldest first; go on with `next_cursor`. A consumer handles them, and what "
        "waits behind them follows. Asking again is nothing new, so no Idempotency-Key is needed.",
        takes=LettersBody, gives={202: DecidedDocument}, refuses=("invalid-parameter",),
        says={202: "How many will be tried again, and which."},
    ),
    Route(
        method="POST", path="/v1/dead-letters/discard", run=dead_letters.discard_dead_letters,
        tag="dead letters", scope="operations:write", summary="Leave out the events of many dead letters",
        about="As retrying many; but these events never have their effect in their groups, and what waits "
        "behind them goes on. It cannot be taken back.",
        takes=LettersBody, gives={202: DecidedDocument}, refuses=("invalid-parameter",),
        says={202: "How many will be left out, and which."},
    ),
    Route(
        method="GET", path="/v1/dead-letters/{letter_id}", run=dead_letters.get_dead_letter,
        tag="dead letters", scope="operations:read", summary="Read a dead letter",
        gives={200: DeadLetterDocument}, says={200: "The dead letter."},
        refuses=("not-found",), parameters=(_LETTER_ID,),
    ),
    Route(
        method="POST", path="/v1/dead-letters/{letter_id}/retry", run=dead_letters.retry_dead_letter,
        tag="dead letters", scope="operations:write", summary="Have a dead letter tried again",
        about="A consumer handles it within a second or two, and what waits behind it follows. Asking again "
        "is nothing new, so no Idempotency-Key is needed; one that was dealt with stays as it is.",
        gives={202: DeadLetterDocument}, says={202: "The letter: `retrying`, or how it was dealt with."},
        refuses=("not-found",), parameters=(_LETTER_ID,),
    ),
    Route(
        method="POST", path="/v1/dead-letters/{letter_id}/discard", run=dead_letters.discard_dead_letter,
        tag="dead letters", scope="operations:write", summary="Leave out the event of a dead letter",
        about="It never has its effect in its group, and what waits behind it goes on. It cannot be taken "
        "back; one that was dealt with stays as it is.",
        gives={202: DeadLetterDocument}, says={202: "The letter: `discarding`, or how it was dealt with."},
        refuses=("not-found",), parameters=(_LETTER_ID,),
    ),
)  # fmt: skip
