"""Heartbeats: a long step says that it is alive, so that one whose worker was killed is noticed."""

import asyncio
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from app.workers import policies


class Heartbeats(Interceptor):
    """Beats for every activity from its second second on; quick ones pay for a timer and no more.

    Beats also bring cancellations: a step that waits for a silent provider is stopped when its order is.
    """

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap every activity."""
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: ANN401 - as the activity
        if activity.info().is_local:  # its workflow's task says that it is alive
            return await self.next.execute_activity(input)
        loop = asyncio.get_running_loop()
        beat = _Beat(loop)
        try:
            return await self.next.execute_activity(input)
        finally:
            beat.stop()


class _Beat:
    """One activity's heart: a timer that sets itself again."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer = loop.call_later(policies.HEARTBEAT_INTERVAL_S, self._beat)

    def _beat(self) -> None:
        activity.heartbeat()
        self._timer = self._loop.call_later(policies.HEARTBEAT_INTERVAL_S, self._beat)

    def stop(self) -> None:
        self._timer.cancel()
