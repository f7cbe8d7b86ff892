"""Dashboards can be imported into any Grafana and say what they show."""

import re
from itertools import combinations
from pathlib import Path

import pytest

from tests.architecture.watched import (
    DASHBOARDS,
    RUNBOOKS,
    Panel,
    alerts,
    documented,
    metrics_of,
    panels,
    read,
    rules,
    without_variables,
)

UNITS = {"short", "s", "percentunit", "ops", "opm", "reqps"}
"""Grafana's names of units; a percentunit is 0 to 1."""
QUESTIONS = {"holdfast-orders", "holdfast-redis", "holdfast-temporal", "holdfast-money"}


def each(file: Path) -> list[Panel]:
    """The panels of a dashboard."""
    return panels(read(file))


def test_there_is_one_for_each_question():
    """And each has an id of its own, by which links and imports go."""
    assert sorted(read(file)["uid"] for file in DASHBOARDS) == sorted(QUESTIONS)


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_it_asks_whichever_prometheus_it_is_told(file: Path):
    """No data source of one installation, and the environment can be chosen."""
    dashboard = read(file)
    assert [v["name"] for v in dashboard["templating"]["list"]] == ["datasource", "namespace"]
    assert "id" not in dashboard
    for panel in panels(dashboard):
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_every_panel_says_what_it_shows_and_in_what(file: Path):
    """Unit, thresholds and a sentence; two panels of one title would be taken for each other."""
    for panel in each(file):
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"] in UNITS, panel["title"]
        assert defaults["thresholds"]["steps"], panel["title"]
        assert panel["description"].endswith((".", ".)")), panel["title"]
    titles = [panel["title"] for panel in each(file)]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_every_series_has_a_name(file: Path):
    """Only a single value needs none."""
    for panel in each(file):
        assert panel["type"] == "stat" or all(target["legendFormat"] for target in panel["targets"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_no_panel_lies_on_another(file: Path):
    """Grafana would move them about."""
    placed = read(file)["panels"]
    assert len({panel["id"] for panel in placed}) == len(placed)
    for one, other in combinations([panel["gridPos"] for panel in placed], 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        ), (one, other)


def test_the_runbooks_that_are_named_are_there():
    """`Runbook OrdersStuck` in a description sends somebody there."""
    named = {
        name
        for file in DASHBOARDS
        for panel in each(file)
        for names in re.findall(r"[Rr]unbooks? ([A-Z]\w+(?:, [A-Z]\w+)*)", panel["description"])
        for name in names.split(", ")
    }
    assert named
    assert named - {page.stem for page in RUNBOOKS} == set()


def test_what_an_alert_measures_is_on_the_dashboard_that_its_page_names():
    """Who was woken sees there since when, and whether it gets better."""
    shown = {
        read(file)["uid"]: {
            name
            for panel in each(file)
            for target in panel["targets"]
            for name in metrics_of(without_variables(target["expr"]))
        }
        for file in DASHBOARDS
    }
    unseen = {}
    for name, rule in alerts().items():
        (page,) = (page for page in RUNBOOKS if page.stem == name)
        (dashboard,) = QUESTIONS & set(re.findall(r"`([^`]+)`", page.read_text(encoding="utf-8")))
        unseen[name] = (measured(rule["expr"]) & set(documented())) - shown[dashboard]
    assert {name: metrics for name, metrics in unseen.items() if metrics} == {}


def measured(expression: str) -> set[str]:
    """The metrics behind an expression: those of a recorded one are its own."""
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    return {
        metric
        for name in metrics_of(expression)
        for metric in (measured(recorded[name]) if name in recorded else {name})
    }
