"""The routes that tell how things go: analytics, and events that could not be handled."""

from typing import Final

from app.contracts.documents import Page
from app.gateway import analytics, dead_letters
from app.gateway.route import CURSOR, LIMIT, TEXT, TIME, Parameter, Route
from app.infra.postgres.dead_letters import STATES, DeadLetterDocument

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
        method="GET", path="/v1/dead-letters", run=dead_letters.list_dead_letters, tag="dead letters",
        scope="operations:read", summary="List events that a consumer group could not handle",
        about="Those that wait, unless a state is asked for; oldest first.",
        gives={200: Page[DeadLetterDocument]}, says={200: "One page of dead letters."},
        parameters=(
            Parameter("group", "query", "Only this consumer group's.", TEXT),
            Parameter("type", "query", "Only events of this type.", TEXT),
            Parameter("state", "query", "Only those in this state.", {"type": "string", "enum": [*STATES]}),
            CURSOR, LIMIT,
        ),
    ),
    Route(
        method="POST", path="/v1/dead-letters/{letter_id}/retry", run=dead_letters.retry_dead_letter,
        tag="dead letters", scope="operations:write", summary="Have a dead letter tried again",
        about="A consumer handles it within a second or two, and what waits behind it follows. Asking again "
        "is nothing new, so no Idempotency-Key is needed; one that was dealt with stays as it is.",
        gives={202: DeadLetterDocument}, says={202: "The letter: `retrying`, or how it was dealt with."},
        refuses=("not-found",),
        parameters=(Parameter("letter_id", "path", "The letter's id.", TEXT, required=True),),
    ),
)  # fmt: skip
