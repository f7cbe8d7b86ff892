"""The routes of replays, and examples of what they take and give."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from app.contracts.documents import Page, rfc3339
from app.gateway import replays
from app.gateway.route import CURSOR, LIMIT, TEXT, Parameter, Route
from app.infra.postgres.replays import STATES
from app.replay.messages import ChangeDocument, ReplayDocument, ReplayProgressDocument

_ID: Final = Parameter(
    "replay_id", "path", "The replay's id.",
    {"type": "string", "examples": ["rpl_06dzpv7x2m8wq3k9n5t1r4c7j0"]}, required=True,
)  # fmt: skip

REPLAYS: Final = (
    Route(
        method="POST", path="/v1/replays", run=replays.ask_for_replay, tag="replays",
        scope="operations:write", summary="Run events of the past through a handler again",
        about="Answers as soon as it is on record; a worker does it. Without `apply` nothing is changed: the "
        "rows that would be are shown. With it they are shown, and then changed exactly so, or not at all.",
        takes=replays.ReplayBody, keyed=True, gives={202: ReplayDocument}, sends={202: ("Location",)},
        says={202: "The replay, on record."},
    ),
    Route(
        method="GET", path="/v1/replays", run=replays.list_replays, tag="replays", scope="operations:read",
        summary="List replays, newest first", gives={200: Page[ReplayDocument]},
        about="Long lists among their `parameters` are cut here; a replay by itself has them whole.",
        says={200: "One page of replays."},
        parameters=(
            Parameter("handler", "query", "Only of this handler.", TEXT),
            Parameter("state", "query", "Only those in this state.", {"type": "string", "enum": [*STATES]}),
            CURSOR, LIMIT,
        ),
    ),
    Route(
        method="GET", path="/v1/replays/{replay_id}", run=replays.get_replay, tag="replays",
        scope="operations:read", summary="Read how far a replay is", gives={200: ReplayDocument},
        says={200: "The replay."}, refuses=("not-found",), parameters=(_ID,),
    ),
    Route(
        method="GET", path="/v1/replays/{replay_id}/changes", run=replays.list_changes, tag="replays",
        scope="operations:read", summary="List the rows that a replay would change, or has changed",
        gives={200: Page[ChangeDocument]}, says={200: "One page of changes, in order."},
        refuses=("not-found",), parameters=(_ID, CURSOR, LIMIT),
    ),
    Route(
        method="POST", path="/v1/replays/{replay_id}/apply", run=replays.apply_replay, tag="replays",
        scope="operations:write", summary="Apply exactly what a replay has shown",
        about="Within a day of its being shown. It becomes `refused`, and nothing is changed, where the "
        "world moved meanwhile. Asking again is nothing new, so no Idempotency-Key is needed.",
        gives={202: ReplayDocument}, says={202: "The replay, about to be applied, or applied already."},
        refuses=("not-found", "replay-not-now"), parameters=(_ID,),
    ),
    Route(
        method="POST", path="/v1/replays/{replay_id}/cancel", run=replays.cancel_replay, tag="replays",
        scope="operations:write", summary="Stop a replay before it changes anything",
        about="Asking again is nothing new, so no Idempotency-Key is needed.",
        gives={202: ReplayDocument}, says={202: "The replay, cancelled."},
        refuses=("not-found", "replay-not-now"), parameters=(_ID,),
    ),
)  # fmt: skip

_AT: Final = rfc3339(datetime(2026, 1, 31, 12, tzinfo=UTC))
_REPLAY: Final = ReplayDocument(
    id="rpl_06dzpv7x2m8wq3k9n5t1r4c7j0",
    handler="daily_summary",
    state="shown",
    apply=False,
    since="2026-01-31T00:00:00.000000Z",
    until="2026-02-01T00:00:00.000000Z",
    type=None,
    order=None,
    parameters={},
    rate=None,
    progress=ReplayProgressDocument(41_200, 41_200, 52_150.6, 0.0),
    changes=1,
    applied=0,
    summary={"rows": 1, "rebuilt_rows": 1, "changes": 1, "sums": {"USD": {"captured": 1467}}},
    error=None,
    created_at=_AT,
    updated_at=_AT,
    finished_at=_AT,
)
_CHANGE: Final = ChangeDocument(
    number=1,
    key={"day": "2026-01-31", "currency": "USD"},
    before={"captured": 2934},
    after={"captured": 4401},
    difference={"captured": 1467},
    applied=False,
)
REPLAY_EXAMPLES: Final[Mapping[Any, Any]] = {
    replays.ReplayBody: replays.ReplayBody(
        "daily_summary", datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC), rate=5000
    ),
    ReplayDocument: _REPLAY,
    Page[ReplayDocument]: Page([_REPLAY], None),
    Page[ChangeDocument]: Page([_CHANGE], None),
}
"""One example of every body and document."""
