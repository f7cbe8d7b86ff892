"""One stack for all acceptance tests of a process; every test has products of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.shop import Shop
from tests.acceptance.stack import Stack


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A running stack that mends itself."""
    stack = Stack(tmp_path_factory.mktemp("stack") / "data")
    await stack.up()
    try:
        yield stack
    finally:
        await stack.down()


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    """A shop in front of a stack that is ready."""
    shop = Shop(await stack.until_ready())
    try:
        yield shop
    finally:
        await shop.close()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout under test."""
    return Path(__file__).parents[2]
