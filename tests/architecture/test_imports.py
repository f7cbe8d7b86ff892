"""Imports that the contracts of pyproject.toml cannot state."""

import sys
from pathlib import Path

import pytest

from tests.architecture.sources import APP, imported, modules, shown, tree


@pytest.mark.parametrize("path", modules("domain"), ids=shown)
def test_the_domain_imports_only_the_standard_library_and_msgspec(path: Path):
    """No other package, present or future, gets into the domain, not even for its types."""
    allowed = {"msgspec", *sys.stdlib_module_names}
    foreign = [
        (name, line)
        for name, line in imported(tree(path))
        if name.split(".")[0] not in allowed and name.split(".")[:2] != ["app", "domain"]
    ]
    assert foreign == []


@pytest.mark.parametrize("package", ["", "workers", "workers/workflows"])
def test_packages_that_the_workflow_sandbox_runs_again_are_empty(package: str):
    """The sandbox runs every parent package of a workflow once more for each run, so they hold nothing."""
    path = APP / package / "__init__.py"
    assert not path.parent.exists() or path.read_bytes() == b""


def test_no_module_imports_relatively():
    """Absolute imports say where a name comes from, wherever the reader stands."""
    assert [
        shown(path) for path in modules() for name, _ in imported(tree(path)) if name.startswith("None.")
    ] == []
