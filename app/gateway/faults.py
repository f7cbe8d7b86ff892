"""Where a decoded body is wrong: every fault with its JSON pointer, not only the first.

Runs only once a body is known to be wrong, so it may take its time; it stops after `FAULTS_MAX`.
"""

import types
import typing
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import msgspec

from app.domain.errors import Fault

FAULTS_MAX: Final = 50
_DETAIL_CHARACTERS_MAX: Final = 300

_CONTROL: Final = frozenset(map(chr, (*range(32), 127)))


def faults_of(value: Any, kind: Any) -> tuple[Fault, ...]:  # noqa: ANN401 - any JSON against any type
    """What is wrong with plain JSON `value` as a `kind`; nothing if nothing is."""
    return tuple(islice(_faults(value, kind, ""), FAULTS_MAX))


def control_faults(value: Any) -> tuple[Fault, ...]:  # noqa: ANN401 - any JSON
    """The texts in plain JSON that contain control characters (NUL, line ends, tabs, …)."""
    return tuple(islice(_controls(value, ""), FAULTS_MAX))


def _faults(value: Any, kind: Any, pointer: str) -> Iterator[Fault]:  # noqa: ANN401
    """Look inside where the shape is right; otherwise let msgspec say what is wrong with the whole."""
    inner = list(_inside(value, _bare(kind), pointer))
    if inner:
        yield from inner
        return
    try:
        msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        yield Fault(pointer, _sentence(error))


def _inside(value: Any, kind: Any, pointer: str) -> Iterator[Fault]:  # noqa: ANN401
    if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield from _fields(value, kind, pointer)
    elif isinstance(value, list) and typing.get_origin(kind) in {list, tuple}:
        for index, item in enumerate(value):
            yield from _faults(item, typing.get_args(kind)[0], f"{pointer}/{index}")
    elif isinstance(value, dict) and typing.get_origin(kind) is dict:
        key_kind, item_kind = typing.get_args(kind)
        for key, item in value.items():
            yield from _faults(key, key_kind, f"{pointer}/{_escaped(key)}")
            yield from _faults(item, item_kind, f"{pointer}/{_escaped(key)}")


def _fields(value: dict[str, Any], kind: type[msgspec.Struct], pointer: str) -> Iterator[Fault]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name, item in value.items():
        where = f"{pointer}/{_escaped(name)}"
        if name in fields:
            yield from _faults(item, fields[name].type, where)
        elif kind.__struct_config__.forbid_unknown_fields:
            yield Fault(where, "There is no such field.")
    for name, field in fields.items():
        if field.required and name not in value:
            yield Fault(f"{pointer}/{_escaped(name)}", "This field is required.")


def _bare(kind: Any) -> Any:  # noqa: ANN401
    """A type without its annotations and without `| None`."""
    if typing.get_origin(kind) is typing.Annotated:
        return _bare(typing.get_args(kind)[0])
    if typing.get_origin(kind) in {typing.Union, types.UnionType}:
        arms = [arm for arm in typing.get_args(kind) if arm is not types.NoneType]
        return _bare(arms[0]) if len(arms) == 1 else kind
    return kind


def _controls(value: Any, pointer: str) -> Iterator[Fault]:  # noqa: ANN401
    if isinstance(value, str) and not _CONTROL.isdisjoint(value):
        yield Fault(pointer, "Control characters (NUL, line ends, tabs, …) are not allowed.")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _controls(item, f"{pointer}/{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            where = f"{pointer}/{_escaped(key)}"
            yield from _controls(key, where)
            yield from _controls(item, where)


def _escaped(name: str) -> str:
    """A name as one step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _sentence(error: msgspec.ValidationError) -> str:
    text = str(error).partition(" - at `")[0].replace("`", "")
    return text[:_DETAIL_CHARACTERS_MAX] + "."
