"""Stacks of real servers in folders of their own, driven by the commands as a person would."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.dev.stacks import Stack, own_ports


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack that was never started; whatever the test leaves of it is stopped."""
    yield from _made(tmp_path / "data", whole=False)


@pytest.fixture(scope="module")
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that the tests of a file leave to one another: first data takes longer to make than to start.

    It is a whole one, with sandbox and modes, where the file says `WHOLE = True`.
    """
    whole = getattr(request.module, "WHOLE", False)
    yield from _made(tmp_path_factory.mktemp("kept") / "data", whole=whole)


@pytest.fixture
def running(kept: Stack) -> Stack:
    """The kept one, ready."""
    kept.up()
    return kept


@pytest.fixture
def stopped(kept: Stack) -> Stack:
    """The kept one, and nothing of it runs."""
    if kept.living():
        assert kept.run("down").returncode == 0
    return kept


def _made(path: Path, *, whole: bool) -> Iterator[Stack]:
    own_ports(path)
    stack = Stack(path, whole=whole)
    yield stack
    stack.run("down")
    assert stack.living() == []
