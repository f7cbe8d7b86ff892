"""The command that `make bench` runs."""

from pathlib import Path

import msgspec
import pytest

from bench import __main__ as command
from bench.registry import MODULES

MODULE = """
from contextlib import asynccontextmanager
from tests.unit.bench.sides import Scripted, contest

NAME = {name!r}

@asynccontextmanager
async def benchmark(setting):
    setting.log("server").write_text("started")
    (setting.folder / "data").mkdir()
    yield [contest(Scripted("A"), Scripted("B"), found={found})]
"""
EVERYTHING = 2200


@pytest.fixture
def declare(monkeypatch, tmp_path):
    """Puts a benchmark in the place of one of ours."""
    monkeypatch.setattr(command, "FOLDER", tmp_path / "build")
    monkeypatch.syspath_prepend(tmp_path)

    def put(name: str, found: int = EVERYTHING) -> None:
        module = f"declared_{name.replace('-', '_')}_{found}"
        (tmp_path / f"{module}.py").write_text(MODULE.format(name=name, found=found))
        monkeypatch.setitem(MODULES, name, module)

    return put


def test_an_unknown_name_is_wrong_usage(capsys):
    """Nothing runs, and the names there are are said."""
    assert command.main(["--only", "redis,swiftness"]) == 64
    said = capsys.readouterr().err
    assert "swiftness" in said
    assert all(name in said for name in MODULES)


def test_a_missed_goal_is_shown_and_is_no_error(declare, tmp_path, capsys):
    """The figure is the result, whatever it is."""
    declare("redis")
    path = tmp_path / "deep" / "results.json"
    assert command.main(["--only", "redis", "--json", str(path)]) == 0
    assert "MISSED" in capsys.readouterr().out
    assert [result["met"] for result in msgspec.json.decode(path.read_bytes())["results"]] == [False]


def test_effects_that_differ_fail_the_run_and_hide_its_figures(declare, tmp_path, capsys):
    """Another benchmark's figures are there all the same."""
    declare("redis", found=1)
    declare("lock")
    path = tmp_path / "results.json"
    assert command.main(["--only", "redis,lock", "--json", str(path)]) == 1
    assert "FAILED redis: EffectsDiffer" in capsys.readouterr().out
    written = msgspec.json.decode(path.read_bytes())
    assert [result["benchmark"] for result in written["results"]] == ["lock"]
    assert [failure["benchmark"] for failure in written["failures"]] == ["redis"]


def test_a_benchmark_that_cannot_be_imported_fails_alone(declare, monkeypatch, capsys):
    """The others run."""
    declare("lock")
    monkeypatch.setitem(MODULES, "redis", "bench.not_there")
    assert command.main(["--only", "redis,lock"]) == 1
    said = capsys.readouterr().out
    assert "FAILED redis: BenchmarkFailed" in said
    assert "lock get_vs_other" in said


def test_logs_stay_and_are_named_and_data_goes(declare, tmp_path, capsys):
    """Who looks for the reason of a failure finds it."""
    declare("redis")
    command.main(["--only", "redis"])
    folder = tmp_path / "build" / "redis"
    assert [path.name for path in folder.iterdir()] == ["server.log"]
    assert "server.log" in capsys.readouterr().err


def test_the_picture_is_drawn_only_when_asked(declare, tmp_path):
    """What is in the documents was measured on purpose."""
    declare("redis")
    path = tmp_path / "picture.svg"
    assert command.main(["--only", "redis", "--svg", str(path)]) == 0
    assert path.read_text("utf-8").startswith("<svg")
    assert not path.with_name("picture.svg.new").exists()


def test_the_documents_explain_every_benchmark():
    """By the name it is asked for."""
    text = (Path(__file__).parents[3] / "docs" / "BENCHMARKS.md").read_text("utf-8")
    assert [name for name in MODULES if f"\n### `{name}`" not in text] == []
