"""Every alert says what it is, has a page that says what to do, and is tried by promtool."""

import re
from functools import cache

import pytest
import yaml

from tests.architecture.watched import OPERATOR, RULE_FILES, UNIT_TESTS, alerts, rules, wrapped

RUNBOOKS_URL = "https://git.example.com/holdfast/blob/main/docs/runbooks/"
_ALERT = re.compile(r'ALERTS\{alertname="(\w+)"')
_LABEL = re.compile(r"\$labels\.(\w+)")


@cache
def tried() -> tuple[set[str], set[str]]:
    """The alerts that unit tests see firing, and those that they see silent."""
    fires: set[str] = set()
    silent: set[str] = set()
    for file in UNIT_TESTS:
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            for one in test.get("promql_expr_test", []):
                named = set(_ALERT.findall(one["expr"]))
                if one["exp_samples"]:
                    fires |= named
                else:
                    silent |= named
    return fires, silent


def test_the_operators_object_holds_the_same_rules():
    """One source: plain files; `make alerts` writes the object."""
    assert OPERATOR.read_text(encoding="utf-8") == wrapped()


def test_no_two_rules_have_one_name():
    """A second alert of the same name would be taken for the first."""
    names = [rule.get("alert") or rule["record"] for rule in rules()]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_says_who_is_woken_and_what_is_the_matter(alert: str):
    """Whom it concerns, since when, a line, a sentence, and where the page is."""
    rule = alerts()[alert]
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert re.fullmatch(r"\d+[mh]", rule["for"])
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS_URL}{alert}.md"


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_speaks_only_of_labels_that_its_expression_keeps(alert: str):
    """`{{ $labels.pod }}` of a sum by namespace is an empty word in the middle of the night."""
    rule = alerts()[alert]
    kept = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
    is_plain = not kept
    spoken = set(_LABEL.findall(str(rule["annotations"])))
    for label in spoken:
        assert is_plain or any(label in re.split(r"\W+", list_) for list_ in kept), label


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_is_seen_to_fire_and_to_be_silent(alert: str):
    """`make alerts-test` runs them; here is only looked at that there are any."""
    fires, silent = tried()
    assert alert in fires
    assert alert in silent


def test_unit_tests_are_of_alerts_that_there_are():
    """A test of silence goes on passing when its alert was renamed."""
    fires, silent = tried()
    assert fires | silent <= set(alerts())


def test_every_file_of_rules_has_its_file_of_tests():
    """What lies beside them is found by its name."""
    assert {file.name.removesuffix(".rules.yaml") for file in RULE_FILES} == {f.stem for f in UNIT_TESTS}
