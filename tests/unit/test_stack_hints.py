"""What a person is told to type, and why a mode does not run: for the stack that is meant, no other."""

import json
import os
from pathlib import Path

import pytest

from app.dev import commands
from app.dev.importing import target
from app.dev.stack import report, state, status
from app.dev.stack.errors import StackError
from app.dev.stack.folder import DEFAULT, DataFolder
from app.dev.stack.processes import identify
from tests.unit.test_stack_report import DOCUMENT


def test_the_default_folder_needs_no_option():
    """Also where it is named."""
    assert DataFolder(DEFAULT).option == ""
    assert DataFolder(Path.cwd() / ".holdfast").option == ""


def test_another_folder_is_named_by_its_whole_path(tmp_path: Path):
    """The command works in any folder, and in a shell."""
    assert DataFolder(tmp_path / "a b").option == f" --data-dir '{tmp_path}/a b'"


def test_what_is_stopped_is_started_in_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Not in the default one."""
    assert commands.status(["--data-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"stopped (start it with: holdfast up --data-dir {tmp_path})\n"


def test_an_import_names_the_stack_that_it_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command starts it where the import will look for it."""
    monkeypatch.delenv(target.URL_VARIABLE, raising=False)
    with pytest.raises(
        StackError, match=f"holdfast up --detach --data-dir {tmp_path}, or name one with --url"
    ):
        target.find(tmp_path, None, None)


@pytest.mark.parametrize("missing", ["worker", "supervisor"])
def test_advice_means_the_folder(missing: str):
    """Each command in it."""
    told = report.status({**DOCUMENT, "state": "degraded", "missing": [missing]}, " --data-dir /x")
    assert "up --detach --data-dir /x" in told
    assert told.count("holdfast ") - told.count("holdfast down --data-dir /x") == 1


def written(folder: DataFolder, exits: dict[str, int]) -> None:
    """What a supervisor writes down, which is this process."""
    me = identify(os.getpid())
    assert me is not None
    folder.create()
    state.RunState("run", me, phase=state.READY, exits=exits).save(folder.state_file)


def test_a_mode_that_refused_a_setting_is_quoted(tmp_path: Path):
    """The line about the setting, though others followed while it stopped."""
    folder = DataFolder(tmp_path)
    written(folder, {"worker": 78, "gateway": 1})
    folder.log("worker").write_text("begins\nholdfast: REDIS_URL must lead to x\x1b[2J\nstopped\n", "utf-8")
    refused = status.refusals(folder)
    assert refused == {"worker": "holdfast: REDIS_URL must lead to x[2J"}
    told = report.status({**DOCUMENT, "state": "degraded", "missing": ["worker"]}, "", refused)
    assert "worker ended with exit code 78" in told
    assert told.endswith("holdfast: REDIS_URL must lead to x[2J")
    assert "78" not in report.status({**DOCUMENT, "state": "ready"}, "", refused)  # it runs by now


def test_a_state_of_an_earlier_release_is_read(tmp_path: Path):
    """It knew no exit codes."""
    folder = DataFolder(tmp_path)
    written(folder, {"worker": 78})
    document = json.loads(folder.state_file.read_text("utf-8"))
    del document["exits"]
    folder.state_file.write_text(json.dumps(document), "utf-8")
    assert status.refusals(folder) == {}
