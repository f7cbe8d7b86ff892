"""Which test process runs what, and in which order, when there are several (`make test`).

A file stays in one process, because its tests share what they set up. So do all acceptance tests, which share
one running stack; they are the longest piece by far and begin first. What takes milliseconds comes last and
fills the gaps at the end, when the other processes are still busy with something long.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

ONE_STACK = "tests/acceptance/"
QUICK = ("tests/architecture/", "tests/unit/")


class Schedule(LoadFileScheduling):
    """Deals out files in the order of `arrange`, and the acceptance tests as if they were one file."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = (
            False  # which would begin with the files of the most tests: the quickest
        )
        super().__init__(config, log)
        # With the long tests they would take more time than everything else together.
        self._shares = "not full" in config.option.markexpr

    def _split_scope(self, nodeid: str) -> str:
        if self._shares and nodeid.startswith(ONE_STACK):
            return ONE_STACK
        return super()._split_scope(nodeid)


def arrange(items: list[pytest.Item]) -> None:
    """What is quick to the end; otherwise as it was, the acceptance tests first."""
    items.sort(key=lambda item: item.nodeid.startswith(QUICK))
