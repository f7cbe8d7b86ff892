"""Reads what watches the platform: alert rules, dashboards, runbooks, and which metrics there are.

The rules lie in manifests/components/prometheus-rules, plain, as Prometheus and promtool read them; the
operator's object holds the same (`python -m tests.architecture.watched alerts` writes it). With
`expressions` it prints a file of rules that holds every expression of dashboards and runbooks, to be parsed.
"""

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
COMPONENTS = ROOT / "manifests" / "components"
RULE_FILES = tuple(sorted(COMPONENTS.glob("prometheus-rules/*.rules.yaml")))
OPERATOR = COMPONENTS / "prometheus-operator" / "alerts.yaml"
DASHBOARDS = tuple(sorted(COMPONENTS.glob("grafana-dashboards/*.json")))
RUNBOOKS = tuple(sorted((ROOT / "docs" / "runbooks").glob("[A-Z]*.md")))
UNIT_TESTS = tuple(sorted((ROOT / "tests" / "alerts").glob("*.yaml")))
METRICS = ROOT / "docs" / "METRICS.md"

Rule = dict[str, Any]
Panel = dict[str, Any]

FROM_ELSEWHERE = {
    "ALERTS": "Prometheus",
    "up": "Prometheus",
    "process_cpu_seconds_total": "the Prometheus client",
    "process_resident_memory_bytes": "the Prometheus client",
    "redis_connected_slaves": "redis_exporter 1.80, from INFO replication",
    "kube_job_failed": "kube-state-metrics, docs/metrics/workload/job-metrics.md",
    "kube_pod_container_status_last_terminated_reason": "kube-state-metrics, …/pod-metrics.md",
    "kube_pod_container_status_restarts_total": "kube-state-metrics, …/pod-metrics.md",
    "kube_pod_container_status_waiting_reason": "kube-state-metrics, …/pod-metrics.md",
    "temporal_long_request_failure": "the Temporal SDK: calls that wait (polls) and failed",
    "temporal_sticky_cache_miss": "the Temporal SDK: workflows that had to be read again",
    "temporal_sticky_cache_total_forced_eviction": "the Temporal SDK: workflows put out of memory for others",
    "node_timex_maxerror_seconds": "node_exporter, collector timex",
    "node_timex_offset_seconds": "node_exporter, collector timex",
    "node_timex_sync_status": "node_exporter, collector timex",
}
"""Metric that is not ours → whose it is. Those of the Temporal SDK are in docs/METRICS.md."""

TARGET_LABELS = {"namespace", "pod", "container", "job", "instance", "le"}
"""What Prometheus, or a histogram, gives to every series."""

_WORDS = {"and", "or", "unless", "bool", "inf", "nan"}
_KEYWORD_LISTS = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_BRACES = r'\{((?:"[^"]*"|[^}"])*)\}'
_NOT_NAMES = re.compile(rf'{_BRACES}|"[^"]*"|\[[^\]]*\]|\boffset\s+\S+')
_NAME = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])")
_SELECTOR = re.compile(rf"([a-zA-Z_:][\w:]*){_BRACES}")
_FENCE = re.compile(r"^```promql\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Expression(NamedTuple):
    """A question to Prometheus, and where it stands."""

    where: str
    text: str


@cache
def rules() -> tuple[Rule, ...]:
    """Every rule of every file."""
    return tuple(
        rule
        for file in RULE_FILES
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    )


def alerts() -> dict[str, Rule]:
    """Name → rule."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels(dashboard: dict[str, Any]) -> list[Panel]:
    """What shows something: no rows, no text."""
    return [panel for panel in dashboard["panels"] if panel["type"] not in {"row", "text"}]


def read(file: Path) -> dict[str, Any]:
    """A dashboard."""
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document


def expressions() -> Iterator[Expression]:
    """Those of rules, dashboards and runbooks; Grafana's variables are given values."""
    for rule in rules():
        yield Expression(rule.get("alert") or rule["record"], rule["expr"])
    for file in DASHBOARDS:
        for panel in panels(read(file)):
            for target in panel["targets"]:
                yield Expression(f"{file.name}: {panel['title']}", without_variables(target["expr"]))
        for annotation in read(file)["annotations"]["list"]:
            yield Expression(f"{file.name}: annotations", without_variables(annotation["expr"]))
    for page in RUNBOOKS:
        for block in _FENCE.findall(page.read_text(encoding="utf-8")):
            for text in re.split(r"\n\s*\n", block.strip()):
                yield Expression(page.name, text)


def without_variables(expression: str) -> str:
    """As Grafana would send it."""
    return expression.replace("$__rate_interval", "5m").replace("$namespace", ".*")


def metrics_of(expression: str) -> set[str]:
    """The names of the metrics that an expression asks for."""
    # Strings and selectors first: a label's value may hold anything.
    plain = _KEYWORD_LISTS.sub(" ", _NOT_NAMES.sub(" ", expression))
    return {name for name in _NAME.findall(plain) if name.lower() not in _WORDS}


def labels_of(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric that is selected from, with the labels it is selected by."""
    for name, selector in _SELECTOR.findall(expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', selector)))


def values_of(expression: str) -> Iterator[tuple[str, str, str, str]]:
    """Each metric that is selected from: the metric, a label, how it is compared, with what."""
    for name, selector in _SELECTOR.findall(expression):
        for label, how, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector):
            yield name, label, how, value.replace("\\\\", "\\")


@cache
def documented() -> dict[str, set[str]]:
    """Metric of docs/METRICS.md, histograms by the names of their series → its labels."""
    text = METRICS.read_text(encoding="utf-8")
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`((?:holdfast|temporal)_\w+)`", cells[0])
        if not names or len(cells) <= len(("metric", "type", "labels")):
            continue
        labels = set(re.findall(r"`(\w+)`", cells[2]))
        for name in [*names, *re.findall(r"`(temporal_\w+)`", line)]:
            found.setdefault(name, labels)
            if cells[1] == "histogram":
                found |= {f"{name}_{part}": labels for part in ("bucket", "sum", "count")}
    return found


def wrapped() -> str:
    """The Prometheus operator's object that holds all rules."""
    groups = [
        group for file in RULE_FILES for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    ]
    return "# Made of ../prometheus-rules/*.rules.yaml by `make alerts`: change those.\n" + yaml.dump(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "holdfast", "labels": {"app.kubernetes.io/name": "holdfast"}},
            "spec": {"groups": groups},
        },
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=118,
    )


class _Dumper(yaml.SafeDumper):
    """Expressions keep their lines."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def as_rules() -> str:
    """A file of rules that holds every expression, each recorded under a name of its own."""
    parsed = [
        {"record": f"parsed:expression:{number}", "expr": expression.text, "labels": {"of": expression.where}}
        for number, expression in enumerate(expressions())
    ]
    return yaml.safe_dump({"groups": [{"name": "expressions", "rules": parsed}]}, allow_unicode=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["alerts"]:
        OPERATOR.write_text(wrapped(), encoding="utf-8")
    elif sys.argv[1:] == ["expressions"]:
        print(as_rules())
    else:
        sys.exit("usage: python -m tests.architecture.watched alerts|expressions")
