"""What wakes starter and teller in tests."""

import asyncio


class Poll:
    """No hint ever comes: the poll alone must do."""

    async def wait(self, timeout_s: float) -> bool:
        """Wait as long as a poll would, shortened."""
        await asyncio.sleep(min(timeout_s, 0.05))
        return False

    def wake(self) -> None:
        """Nobody is woken."""
