"""What holds for the files of a clone, whatever they are written in."""

import os
import re
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, repository_files, shown

# Put together from pieces, so that this file does not contain what it looks for.
REGISTRY_HOSTS = [
    ".".join(pieces)
    for pieces in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("crates", "io"),
        ("rubygems", "org"),
        ("proxy", "golang", "org"),
        ("deb", "debian", "org"),
    )
]
SOMEBODYS_FOLDERS = re.compile(r"(?<![\w.})/])/(root|work|Users|home/\w+)/\w")


@cache
def texts() -> dict[str, str]:
    """Path → text of every file of the repository; binary files read as their ASCII part."""
    return {shown(path): path.read_bytes().decode("ascii", "ignore") for path in repository_files()}


def requirements(lock: str) -> dict[str, str]:
    """Name → version of a lock file."""
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", text, re.MULTILINE))


@cache
def project() -> dict:
    """The [project] table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def named(dependencies: list[str]) -> set[str]:
    """The bare names in a list of requirements, without this project's own."""
    return {re.match(r"[\w.-]+", dependency)[0] for dependency in dependencies} - {"holdfast"}


@pytest.mark.parametrize("host", REGISTRY_HOSTS)
def test_no_file_names_a_package_registry(host: str):
    """Where packages come from is the business of the machine that installs them."""
    assert [path for path, text in texts().items() if host in text] == []


def test_no_file_names_a_folder_of_one_machine():
    """A path that exists on its author's machine only helps nobody else."""
    assert {
        path: found[0] for path, text in texts().items() if (found := SOMEBODYS_FOLDERS.search(text))
    } == {}


@pytest.mark.parametrize("lock", ["image.lock", "dev.lock", "policy.lock", "sbom.lock"])
def test_locks_have_a_hash_for_everything_and_no_address(lock: str):
    """Whatever index delivers a file, it is the file that was tested."""
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[a-z])", text)[1:]
    assert [block.split(" ")[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert re.findall(r"^.*(?:://|--index|--find-links).*$", text, re.MULTILINE) == []


def test_the_head_of_each_lock_is_the_command_that_makes_it():
    """Renovate runs what stands there, and `make lock` the same."""
    # Nothing of the `make test` that may run this.
    environ = {
        name: value for name, value in os.environ.items() if name not in {"ARGS", "MAKEFLAGS", "MFLAGS"}
    }
    said = subprocess.check_output(["make", "-n", "lock"], cwd=ROOT, text=True, env=environ)
    commands = {
        " ".join(words)
        for line in said.replace("\\\n", " ").splitlines()
        if (words := line.replace("--quiet", "").split())[:3] == [".venv/lock-tools/bin/uv", "pip", "compile"]
    }
    heads = {
        path.read_text(encoding="utf-8").splitlines()[1].removeprefix("#").strip()
        for path in (ROOT / "requirements").glob("*.lock")
    }
    assert {command.removeprefix(".venv/lock-tools/bin/") for command in commands} == heads


def test_locks_agree_with_each_other_and_with_the_project():
    """The image runs what the tests ran, and both hold what pyproject.toml asks for."""
    image, dev = requirements("image.lock"), requirements("dev.lock")
    extras = project()["optional-dependencies"]
    assert image.items() <= dev.items()
    assert named(project()["dependencies"]) <= image.keys()
    assert named(extras["dev"]) | named(extras["dev-stack"]) <= dev.keys()


def test_the_image_holds_no_server_and_no_test_tool():
    """What only development needs stays out of production."""
    extras = project()["optional-dependencies"]
    only_development = named(extras["dev"]) | named(extras["dev-stack"])
    assert only_development & requirements("image.lock").keys() == set()


def test_every_target_of_make_explains_itself():
    """`make help` names each target a person would call."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split()
    explained = re.findall(r"@echo 'make ([\w-]+) ", makefile)
    assert set(targets) - {"all", "environment", "help"} == set(explained)


@pytest.mark.parametrize(
    "script", [".ci/run", ".ci/again", "requirements/environment.sh", "requirements/tool.sh"]
)
def test_scripts_can_be_run(script: str):
    """A script that lost its executable bit works on its author's machine only."""
    assert Path(ROOT, script).stat().st_mode & 0o111


def test_an_environment_behind_a_link_is_somebody_elses(tmp_path: Path):
    """To make one there would empty whatever the link leads to."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (tmp_path / ".venv").symlink_to(elsewhere)
    script = tmp_path / "requirements" / "environment.sh"
    done = subprocess.run(["sh", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("holdfast: .venv is a symbolic link")
    assert [each.name for each in elsewhere.iterdir()] == ["kept"]
