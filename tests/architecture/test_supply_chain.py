"""What is published is what was tested and can be checked, and what it stands on is kept up to date."""

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.architecture.sources import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
CI = ROOT / ".github/workflows/ci.yml"
RENOVATE = ROOT / ".github/renovate.json"

pytestmark = pytest.mark.timeout(900)  # the first time the tools are installed


@cache
def tools() -> Path:
    """Where the programs are that read workflows; installed where they are not."""
    subprocess.run(["sh", "requirements/tool.sh", "policy"], cwd=ROOT, check=True, timeout=600)
    return ROOT / ".venv/policy/bin"


def said(*command: str | Path) -> tuple[int, str]:
    """Exit code and all that a program printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def fits(schema: str, file: Path) -> tuple[int, str]:
    """Whether a file is what its reader takes, to the last field."""
    return said(tools() / "check-jsonschema", "--builtin-schema", schema, file)


def unsafe(file: Path) -> tuple[int, str]:
    """What a scanner of workflows says, at its strictest; it asks nobody over the network."""
    return said(tools() / "zizmor", "--offline", "--no-progress", "--quiet", "--persona=auditor", file)


def jobs() -> dict[str, Any]:
    """The jobs of the one workflow that there is."""
    return yaml.safe_load(CI.read_text(encoding="utf-8"))["jobs"]


def commands(job: dict[str, Any]) -> list[str]:
    """What a job runs."""
    return [step["run"] for step in job["steps"] if "run" in step]


def test_there_is_one_workflow():
    """Another one would not be looked at below."""
    assert WORKFLOWS == [CI]


def test_the_workflow_is_one_that_github_takes(tmp_path: Path):
    """By the published schema; a misspelt key, planted, is noticed."""
    code, text = fits("vendor.github-workflows", CI)
    assert code == 0, text
    broken = tmp_path / "ci.yml"
    broken.write_text(CI.read_text(encoding="utf-8").replace("timeout-minutes", "timeout-minute"), "utf-8")
    assert fits("vendor.github-workflows", broken)[0] != 0


def test_the_scanner_of_workflows_finds_nothing(tmp_path: Path):
    """And it finds an action that is not pinned, planted."""
    code, text = unsafe(CI)
    assert code == 0, text
    broken = tmp_path / "ci.yml"
    broken.write_text(re.sub(r"@[0-9a-f]{40} # (v\S+)", r"@\1", CI.read_text(encoding="utf-8")), "utf-8")
    assert unsafe(broken)[0] != 0


def test_the_workflow_does_what_ci_run_does():
    """Nothing else and nothing less: it runs the same file, whole, and what fails there fails here."""
    job = jobs()["test"]
    assert commands(job)[-1] == "bash .ci/run"
    assert not any(step.get("continue-on-error") or "if" in step for step in job["steps"])
    assert "if" not in job


def test_every_target_that_they_make_is_there():
    """A name that changed in the Makefile is noticed here and not at the next release."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split())
    text = "\n".join([(ROOT / ".ci/run").read_text(encoding="utf-8"), *commands(jobs()["publish"])])
    made = set(re.findall(r"^ *make ([\w-]+)", text, re.MULTILINE))
    assert made >= {"check", "test", "image-test", "sbom"}
    assert made <= known


def test_only_what_passed_is_published():
    """A tag's image waits for the same commit's tests, and is published with its provenance and contents."""
    job = jobs()["publish"]
    assert job["needs"] == "test"
    assert job["if"] == "startsWith(github.ref, 'refs/tags/v')"
    attested = [step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/attest@")]
    assert [one.get("sbom-path") for one in attested] == [None, "build/holdfast.cdx.json"]
    assert {one["subject-digest"] for one in attested} == {"${{ steps.push.outputs.digest }}"}
    assert "build/holdfast.cdx.json" in (ROOT / "image/sbom.sh").read_text(encoding="utf-8")


def test_each_job_may_do_what_it_needs_and_no_more():
    """Nothing by default; writing only where the image is published; one secret, the job's own token."""
    document = yaml.safe_load(CI.read_text(encoding="utf-8"))
    assert document["permissions"] == {}
    assert {name: job["permissions"] for name, job in jobs().items()} == {
        "test": {"contents": "read"},
        "publish": {"contents": "read", "packages": "write", "id-token": "write", "attestations": "write"},
    }
    text = CI.read_text(encoding="utf-8")
    assert set(re.findall(r"secrets\.(\w+)", text)) == {"GITHUB_TOKEN"}


def test_actions_are_githubs_own_and_named_by_commit():
    """A tag can be moved, a commit cannot. Its version stands beside it, for people and for Renovate."""
    used = re.findall(r"uses: (.+)", CI.read_text(encoding="utf-8"))
    assert used
    for one in used:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one), one


def keys(value: Any) -> set[str]:
    """The names of all settings, however deep."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    return set().union(value, *map(keys, value.values())) if isinstance(value, dict) else set()


def test_the_updaters_settings_are_what_it_takes(tmp_path: Path):
    """By the published schema; since that lets unknown names pass, each must be one that it describes."""
    code, text = fits("vendor.renovate", RENOVATE)
    assert code == 0, text
    (schema,) = (tools().parent / "lib").glob("python3*/site-packages/check_jsonschema/**/renovate.json")
    described = set(re.findall(r'"(\$?\w[\w-]*)": *[{]', schema.read_text(encoding="utf-8"))) | {"$schema"}
    assert keys(json.loads(RENOVATE.read_text(encoding="utf-8"))) <= described
    assert "minimumReleaseAges" not in described
    broken = tmp_path / "renovate.json"
    broken.write_text(json.dumps({"minimumReleaseAge": 7}), encoding="utf-8")
    assert fits("vendor.renovate", broken)[0] != 0


def test_every_lock_is_kept_up_to_date():
    """Each is found by the updater's pattern, and made by a command of which it knows every option."""
    settings = json.loads(RENOVATE.read_text(encoding="utf-8"))
    patterns = [one.strip("/") for one in settings["pip-compile"]["managerFilePatterns"]]
    known = {"universal", "python-version", "generate-hashes", "extra", "constraint", "output-file"}
    for lock in (ROOT / "requirements").glob("*.lock"):
        path = lock.relative_to(ROOT).as_posix()
        assert any(re.search(pattern, path) for pattern in patterns), path
        head = lock.read_text(encoding="utf-8").splitlines()[1]
        options = [word.removeprefix("--") for word in head.split() if word.startswith("--")]
        assert {option.partition("=")[0] for option in options} <= known, path
        assert f"output-file={path}" in options


def test_whoever_finds_a_vulnerability_knows_where_to_go():
    """SECURITY.md names GitHub's private reporting, no address that nobody reads, files that there are."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "private\nvulnerability reporting" in text
    assert not re.search(r"\w@\w+\.\w", text)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
