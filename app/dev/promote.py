"""`holdfast promote`: what runs in one environment is what the next one gets, to the byte.

Edits the one digest in the overlay of the environment that is promoted to, and shows the difference; nothing
is sent to any cluster. Guarantees that nothing else in the file changes, and that it is written whole or not
at all: if the process dies here, the file is the old one or the new one. For operators and what they keep; it
is not in the image.
"""

import argparse
import difflib
import os
import re
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from app.usage import EXIT_USAGE, Parser

EXIT_FAILED: Final = 1
NOTHING: Final = "sha256:" + "0" * 64
"""Stands where nothing was promoted yet."""
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}\Z")
_ENTRY: Final = re.compile(
    r"^ *- name: holdfast\n(?: {4,}[^\n]*\n)*? *digest: (?P<digest>sha256:[0-9a-f]{64})$", re.MULTILINE
)
_COLOURS: Final = {"+": "green", "-": "red", "@": "cyan"}


class PromotionError(Exception):
    """It cannot be promoted; the message says why, and what to do."""


def digest_of(file: Path) -> str:
    """The digest of our image in an overlay. Raises PromotionError."""
    return _entry(file, _read(file)).group("digest")


def promoted(file: Path, digest: str) -> tuple[str, str]:
    """The file's text as it is, and as it is with that digest. Raises PromotionError."""
    old = _read(file)
    start, end = _entry(file, old).span("digest")
    return old, old[:start] + digest + old[end:]


def _entry(file: Path, text: str) -> re.Match[str]:
    entries = list(_ENTRY.finditer(text))
    if len(entries) != 1:
        raise PromotionError(
            f"{file} has {len(entries)} entries `- name: holdfast` with a digest (sha256:…) under `images`; "
            "it needs one: an environment that runs a tag (newTag), as dev does, neither gives a digest nor "
            "gets one"
        )
    return entries[0]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromotionError(f"{file} cannot be read: {error}") from error


def _write(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.chmod(file.stat().st_mode & 0o777)
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise PromotionError(f"{file} cannot be written: {error}") from error


def _difference(file: Path, old: str, new: str) -> list[str]:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), str(file), str(file), n=3, lineterm="")
    return list(lines)


def _show(lines: list[str]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(Text(line, style=_COLOURS.get(line[:1], "")))


def _options(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="holdfast promote",
        description="Give the environment behind --to the image that the one behind --from has, or the one "
        "with --digest. It edits one digest, in the overlay of --to, and sends nothing to a cluster. "
        "An environment is a folder of --overlays whose image has a digest: staging, production "
        "(dev has a tag).",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--from", dest="source", metavar="ENVIRONMENT", help="the one that has it, e.g. staging"
    )
    source.add_argument("--digest", help="sha256:…, as the build said: for the first environment on its way")
    parser.add_argument(
        "--to", required=True, metavar="ENVIRONMENT", help="the one that gets it, e.g. production"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--overlays",
        type=Path,
        default=Path("manifests/overlays"),
        help="their folder (default: %(default)s)",
    )
    return parser.parse_args(argv)


def _overlay(overlays: Path, name: str) -> Path:
    """The file of an environment. Raises PromotionError."""
    there = sorted(file.parent.name for file in overlays.glob("*/kustomization.yaml"))
    if not there:
        raise PromotionError(
            f"there are no overlays in {overlays}: run it in the repository, "
            "or give their folder with --overlays"
        )
    if name not in there:
        raise PromotionError(f"there is no overlay {name}; there are {', '.join(there)}")
    return overlays / name / "kustomization.yaml"


def _promote(options: argparse.Namespace) -> int:
    digest = options.digest or digest_of(_overlay(options.overlays, options.source))
    if not _DIGEST.match(digest):
        print("holdfast promote: --digest must be sha256: and 64 hexadecimal digits", file=sys.stderr)
        return EXIT_USAGE
    if digest == NOTHING:
        raise PromotionError(
            "all zeros is no image: it stands where nothing has been promoted to "
            f"{options.source or options.to} yet"
        )
    file = _overlay(options.overlays, options.to)
    old, new = promoted(file, digest)
    if old == new:
        print(f"{options.to} has it already: {digest}")
        return 0
    _show(_difference(file, old, new))
    if not options.yes and not _agreed(f"Write {file}? [y/N] "):
        print("nothing was written", file=sys.stderr)
        return EXIT_FAILED
    _write(file, new)
    print(f"{options.to} gets {digest}; commit it and apply it: kubectl apply -k {file.parent}")
    return 0


def _agreed(question: str) -> bool:
    """Whether somebody says yes. Nobody there is a no."""
    if not sys.stdin.isatty():
        print("holdfast promote: nobody to ask; --yes writes it", file=sys.stderr)
        return False
    return input(question).strip().lower() in {"y", "yes"}


def main(argv: list[str]) -> int:
    """Promote as the arguments say."""
    options = _options(argv)
    if options.source == options.to:
        print("holdfast promote: --from and --to must be two environments", file=sys.stderr)
        return EXIT_USAGE
    if any(os.sep in name for name in (options.source or "", options.to)):
        print("holdfast promote: an environment is the name of a folder of --overlays", file=sys.stderr)
        return EXIT_USAGE
    try:
        return _promote(options)
    except PromotionError as error:
        print(f"holdfast promote: {error}", file=sys.stderr)
        return EXIT_FAILED
