"""One running stack for the tests of the import."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.stack import Stack


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A running stack with a data folder of its own."""
    stack = Stack(tmp_path_factory.mktemp("importing") / "data")
    await stack.up()
    try:
        yield stack
    finally:
        await stack.down()


@pytest.fixture
def sample() -> Path:
    """The sample that is shipped."""
    return Path(__file__).parents[3] / "samples" / "cdnow_1000.txt"
