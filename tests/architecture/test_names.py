"""One word, one meaning: files and classes are named after a noun of the glossary or of the machinery."""

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.sources import APP, modules, shown, tree

SAYS_NOTHING = {"base", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
CLASS_SAYS_NOTHING = re.compile(r"Base[A-Z]?\w*|\w*(Manager|Helper|Helpers|Utils?|Base)")

OTHER_WORDS = {
    "fulfillment": "fulfilment",
    "basket": "order",
    "cart": "order",
    "order_item": "line",
    "order_line": "line",
    "orderitem": "line",
    "orderline": "line",
    "parcel_id": "fulfilment id",
}
"""Word that is not in the glossary → the one that is."""


def identifiers(syntax: ast.AST) -> set[str]:
    """Every name that the code itself gives: classes, functions, arguments, attributes, variables."""
    found: set[str] = set()
    for node in ast.walk(syntax):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.arg(arg=name) | ast.Name(id=name) | ast.Attribute(attr=name):
                found.add(name)
    return found


def test_no_file_is_named_after_nothing():
    """A file called utils, helpers or manager says nothing about what is in it."""
    stems = {shown(path): path.stem for path in APP.rglob("*") if "__pycache__" not in path.parts}
    assert [path for path, stem in stems.items() if stem.strip("_") in SAYS_NOTHING] == []


@pytest.mark.parametrize("path", modules(), ids=shown)
def test_no_class_is_a_manager_a_helper_or_a_base(path: Path):
    """A class is named after what it is or does."""
    classes = [node.name for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
    assert [name for name in classes if CLASS_SAYS_NOTHING.fullmatch(name)] == []


@pytest.mark.parametrize("path", modules(), ids=shown)
def test_the_code_uses_the_words_of_the_glossary(path: Path):
    """A second word for the same thing makes readers look for a difference that is not there."""
    wrong = {
        name: right
        for name in identifiers(tree(path))
        for word, right in OTHER_WORDS.items()
        if re.search(rf"(^|_){word}s?(_|$)", name.lower())
    }
    assert wrong == {}


@pytest.mark.parametrize("path", modules(), ids=shown)
def test_every_module_says_what_it_owns(path: Path):
    """A file opens with what matters: a docstring, unless it is empty."""
    assert not tree(path).body or ast.get_docstring(tree(path))


def redis_names(syntax: ast.AST) -> list[ast.expr]:
    """Every text of the code that begins as the name of a key or channel of ours does."""
    parts = {id(part) for node in ast.walk(syntax) if isinstance(node, ast.JoinedStr) for part in node.values}
    return [
        node
        for node in ast.walk(syntax)
        if isinstance(node, ast.JoinedStr | ast.Constant)
        and id(node) not in parts
        and ast.unparse(node).lstrip("bf'\"").startswith("hf:")
    ]


def test_every_name_in_redis_starts_with_its_environment():
    """And the contracts make it: that is how a database is seen to be another environment's."""
    names = {(shown(path), ast.unparse(node)) for path in modules() for node in redis_names(tree(path))}
    assert names
    assert [
        (path, name)
        for path, name in sorted(names)
        if "contracts" not in path or not name.startswith("f'hf:{environment}:")
    ] == []
