"""Promotion edits one digest in one file, shows it, and does nothing else."""

import shutil
from pathlib import Path

import pytest

from app.dev import promote
from tests.architecture.rendered import MANIFESTS, build

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """The repository's own manifests, where staging runs ONE and production TWO."""
    copy = tmp_path / "manifests"
    shutil.copytree(MANIFESTS, copy)
    for name, digest in (("staging", ONE), ("production", TWO)):
        file = copy / "overlays" / name / "kustomization.yaml"
        file.write_text(file.read_text(encoding="utf-8").replace(promote.NOTHING, digest), encoding="utf-8")
    return copy


def run(manifests: Path, *arguments: str) -> int:
    """`holdfast promote` with these overlays."""
    return promote.main([*arguments, "--overlays", str(manifests / "overlays")])


def text(manifests: Path, name: str) -> str:
    """An overlay's file."""
    return (manifests / "overlays" / name / "kustomization.yaml").read_text(encoding="utf-8")


def test_production_gets_what_staging_runs(manifests: Path, capsys: pytest.CaptureFixture[str]):
    """The one digest changes, every comment stays, and every pod that kustomize builds has it."""
    before = text(manifests, "production")
    assert run(manifests, "--from", "staging", "--to", "production", "--yes") == 0
    assert text(manifests, "production") == before.replace(TWO, ONE)
    shown = capsys.readouterr().out
    assert f"-    digest: {TWO}" in shown
    assert f"+    digest: {ONE}" in shown
    built = build(manifests / "overlays/production")
    assert TWO not in built
    assert built.count(f"holdfast@{ONE}") >= 7


def test_without_a_yes_nothing_is_written(manifests: Path, capsys: pytest.CaptureFixture[str]):
    """The difference is shown; nobody is there to ask; exit 1."""
    before = text(manifests, "production")
    assert run(manifests, "--from", "staging", "--to", "production") == 1
    assert text(manifests, "production") == before
    assert f"+    digest: {ONE}" in capsys.readouterr().out


def test_the_same_again_changes_nothing(manifests: Path, capsys: pytest.CaptureFixture[str]):
    """And says so."""
    assert run(manifests, "--from", "staging", "--to", "production", "--yes") == 0
    capsys.readouterr()
    assert run(manifests, "--from", "staging", "--to", "production", "--yes") == 0
    assert capsys.readouterr().out == f"production has it already: {ONE}\n"


def test_a_fresh_digest_goes_to_the_first_environment(manifests: Path):
    """As the build printed it."""
    digest = "sha256:" + "a" * 64
    assert run(manifests, "--digest", digest, "--to", "staging", "--yes") == 0
    assert promote.digest_of(manifests / "overlays/staging/kustomization.yaml") == digest


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--from", "staging", "--to", "staging"), 64, "two environments"),
        (("--digest", "sha256:abc", "--to", "staging"), 64, "64 hexadecimal digits"),
        (("--digest", "holdfast:1.0", "--to", "staging"), 64, "64 hexadecimal digits"),
        (
            ("--digest", promote.NOTHING, "--to", "staging"),
            1,
            "all zeros is no image: it stands where nothing has been promoted to staging yet",
        ),
        (("--from", "../staging", "--to", "production"), 64, "the name of a folder"),
        (
            ("--from", "stagin", "--to", "production"),
            1,
            "there is no overlay stagin; there are dev, production, staging\n",
        ),
        (("--from", "staging", "--to", "nowhere"), 1, "there is no overlay nowhere; there are dev, "),
        (("--from", "dev", "--to", "staging"), 1, "overlays/dev/kustomization.yaml has 0 entries"),
        (("--digest", ONE, "--to", "dev"), 1, "runs a tag (newTag), as dev does, neither gives"),
    ],
    ids=str,
)
def test_what_cannot_be_promoted_is_refused(
    manifests: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
):
    """With a line that says why; and no file is touched."""
    before = text(manifests, "staging"), text(manifests, "production")
    assert run(manifests, *arguments, "--yes") == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert (text(manifests, "staging"), text(manifests, "production")) == before


def test_what_was_never_promoted_is_not_passed_on(manifests: Path, capsys: pytest.CaptureFixture[str]):
    """All zeros is where nothing was promoted yet."""
    file = manifests / "overlays/staging/kustomization.yaml"
    file.write_text(text(manifests, "staging").replace(ONE, promote.NOTHING), encoding="utf-8")
    assert run(manifests, "--from", "staging", "--to", "production", "--yes") == 1
    said = "all zeros is no image: it stands where nothing has been promoted to staging yet"
    assert capsys.readouterr().err == f"holdfast promote: {said}\n"


def test_elsewhere_it_says_where_to_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The overlays are looked for in the repository."""
    monkeypatch.chdir(tmp_path)
    assert promote.main(["--from", "staging", "--to", "production"]) == 1
    assert capsys.readouterr().err == (
        "holdfast promote: there are no overlays in manifests/overlays: run it in the repository, or give "
        "their folder with --overlays\n"
    )


def test_help_names_the_environments(capsys: pytest.CaptureFixture[str]):
    """And whose overlay is edited."""
    with pytest.raises(SystemExit):
        promote.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for words in ("staging, production", "in the overlay of --to"):
        assert words in said


def test_two_entries_are_one_too_many(manifests: Path, capsys: pytest.CaptureFixture[str]):
    """Which of them runs is not guessed."""
    file = manifests / "overlays/production/kustomization.yaml"
    doubled = f"images:\n  - name: holdfast\n    newName: other\n    digest: {TWO}\n"
    file.write_text(text(manifests, "production").replace("images:\n", doubled), encoding="utf-8")
    assert run(manifests, "--from", "staging", "--to", "production", "--yes") == 1
    assert "has 2 entries" in capsys.readouterr().err
