"""A reader holds one function on a screen and one file in the head."""

import ast
from pathlib import Path

import pytest

from tests.architecture.sources import modules, shown, tree

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70


@pytest.mark.parametrize("path", modules(), ids=shown)
def test_files_and_functions_stay_small(path: Path):
    """A file has at most 400 lines, a function at most 70, its docstring included."""
    file_lines = len(path.read_text(encoding="utf-8").splitlines())
    long_functions = [
        (node.name, node.end_lineno - node.lineno + 1)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert file_lines <= FILE_LINES_MAX
    assert long_functions == []
