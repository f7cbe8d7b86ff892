"""The table in docs/METRICS.md and what a process serves, in one form, to be held against each other."""

import re
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

TEXT = (Path(__file__).parents[1] / "docs" / "METRICS.md").read_text("utf-8")
MODES = ("gateway", "worker", "consumer")
_TOTAL = "_total"


class Row(NamedTuple):
    """One metric as it is documented."""

    name: str
    type: str
    labels: frozenset[str]
    modes: tuple[str, ...]
    meaning: str
    across: str


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def ours() -> dict[str, Row]:
    """Our metrics by name."""
    rows = {}
    for line in re.findall(r"^\| `holdfast_.*$", TEXT, re.MULTILINE):
        name, kind, labels, _, modes, meaning, across = _cells(line)
        found = frozenset(re.findall(r"`(\w+)`", labels))
        rows[name.strip("`")] = Row(name.strip("`"), kind, found, tuple(modes.split(", ")), meaning, across)
    return rows


def temporals() -> dict[str, Row]:
    """Those of the SDK that are used, by name."""
    rows = {}
    for line in re.findall(r"^\| `temporal_.*$", TEXT, re.MULTILINE):
        name, kind, labels, meaning = _cells(line)
        found = frozenset(re.findall(r"`(\w+)`", labels))
        rows[name.strip("`")] = Row(name.strip("`"), kind, found, ("worker",), meaning, "sum")
    return rows


def parsed(text: str) -> dict[str, Metric]:
    """What a process serves, by the name that it serves.

    (The parser gives every counter the suffix that the SDK's do not have.)
    """
    found = {}
    for family in text_string_to_metric_families(text):
        if family.type == "counter":
            name = f"{family.name}{_TOTAL}"
            if f"# TYPE {name} counter" not in text:
                name = family.name
            family.samples = [sample._replace(name=name) for sample in family.samples]
            found[name] = family
        else:
            found[family.name] = family
    return found


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    """The sum of the samples of this name (a histogram's part, too) with these labels, whatever else."""
    found = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert found, f"{name} {labels} is not served"
    return sum(found)
