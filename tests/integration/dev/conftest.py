"""A stack of real servers in a folder of the test's own, driven by the commands as a person would."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.dev.stacks import Stack, own_ports


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack that was never started; whatever the test leaves of it is stopped."""
    folder = tmp_path / "data"
    own_ports(folder)
    stack = Stack(folder)
    yield stack
    stack.run("down")
    assert stack.living() == []
