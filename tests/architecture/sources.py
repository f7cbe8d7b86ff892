"""Reads the program's own source for the tests of this folder: files, syntax trees, dotted names.

Owns nothing that runs: it never imports the modules it reads, so a broken one is still judged.
"""

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "app"

NOT_OURS = {".git", ".venv", ".holdfast", ".hypothesis", "__pycache__", "build", "dist", "node_modules"}


def modules(*packages: str) -> list[Path]:
    """Python files of the named packages (folders or files below `app`), or of the whole program."""
    roots = [APP / package for package in packages] or [APP]
    found = {path for root in roots for path in ([root] if root.is_file() else root.rglob("*.py"))}
    return sorted(found)


def repository_files() -> Iterator[Path]:
    """Every file a clone would hold: what is made or cached here is left out."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name for name in folders if name not in NOT_OURS and not name.endswith(("_cache", ".egg-info"))
        ]
        yield from (Path(folder) / name for name in names if not name.endswith(".pyc"))


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of one file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def shown(path: Path) -> str:
    """The path as a reader of a failure wants it: from the repository's root."""
    return path.relative_to(ROOT).as_posix()


def imported(syntax: ast.AST) -> Iterator[tuple[str, int]]:
    """Each imported module or name with its line, wherever the import stands."""
    for node in ast.walk(syntax):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def used_names(syntax: ast.AST) -> Iterator[tuple[str, int]]:
    """Each imported name as it is used, in full: after `from time import sleep as s`, `s` is `time.sleep`."""
    known = _names_by_alias(syntax)
    for node in ast.walk(syntax):
        dotted = _dotted(node)
        if dotted:
            first, _, rest = dotted.partition(".")
            if first in known:
                yield f"{known[first]}.{rest}".rstrip("."), node.lineno  # type: ignore[attr-defined]


def _names_by_alias(syntax: ast.AST) -> dict[str, str]:
    known: dict[str, str] = {}
    for node in ast.walk(syntax):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                known[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return known


def _dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else None
    return None
