"""A stack of real servers in a folder of the test's own, driven by the commands as a person would."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.dev.stack import ports
from tests.integration.dev.stacks import Stack


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack that was never started; whatever the test leaves of it is stopped."""
    folder = tmp_path / "data"
    folder.mkdir()
    # Ports of its own, as if remembered from an earlier run: tests run beside each other.
    (folder / "ports.json").write_text(json.dumps({name: ports.any_free() for name in ports.USUAL}))
    stack = Stack(folder)
    yield stack
    stack.run("down")
    assert stack.living() == []
