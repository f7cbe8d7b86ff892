"""Replays: the one step of their workflow, which carries a replay on for a few seconds."""

from typing import Final, Protocol

from temporalio import activity

from app.contracts import temporal as t

SLICE_S: Final = 3.0
"""How long one step works; a worker that is stopped ends it within this."""


class Replays(Protocol):
    """Who carries replays on."""

    async def carry(self, replay_id: str, *, seconds: float) -> t.ReplayProgress:
        """Carry a replay on for about so long, or to its end. Raises Unavailable."""
        ...


class ReplayActivities:
    """Steps on the `orders` queue."""

    def __init__(self, replays: Replays) -> None:
        """Have `replays` do the work."""
        self._replays = replays

    @activity.defn(name=t.CARRY_REPLAY)
    async def carry_replay(self, asked: t.ReplayInput) -> t.ReplayProgress:
        """Carry a replay on; where it stands is on record, so doing it again goes on from there."""
        return await self._replays.carry(asked.replay_id, seconds=SLICE_S)
