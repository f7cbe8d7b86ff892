"""How a replay is told to whoever asks for it."""

from datetime import UTC, datetime, timedelta

from app.infra.postgres.replays import APPLYING, Replay, Selection
from app.replay.messages import document

STARTED = datetime(2026, 11, 1, 12, tzinfo=UTC)


def test_a_rate_that_is_nearly_none_is_told_all_the_same():
    """One event, shown, thought about for an hour, then applied: not a division by zero."""
    replay = Replay(
        id="rpl_1",
        handler="daily_summary",
        selection=Selection(),
        parameters={},
        rate_per_s=None,
        is_applied=True,
        state=APPLYING,
        cursor=None,
        total=2,
        done=1,
        changes=1,
        checked=0,
        applied=0,
        summary={},
        error=None,
        created_at=STARTED,
        started_at=STARTED,
        updated_at=STARTED,
        finished_at=STARTED + timedelta(hours=1),
    )
    progress = document(replay).progress
    assert (progress.rate_per_s, progress.remaining_s) == (0.0, 3600.0)
