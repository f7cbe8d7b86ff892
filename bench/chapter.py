"""Owns the table of results inside a Markdown document, between two marks.

Guarantees: nothing outside the marks is touched; a document without them is refused; the file is replaced
whole or not at all.
"""

from pathlib import Path

from bench.report import describe, number
from bench.results import Document, Result, SideResult
from bench.samples import BenchmarkFailed

BEGIN = "<!-- results: written by `make bench DOCS=…` -->"
END = "<!-- end of the results -->"


def rewrite(document: Document, path: Path) -> None:
    """Put the results where the marks are. Raises BenchmarkFailed without marks, OSError."""
    text = path.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkFailed(f"{path} has no place for results: {BEGIN} … {END}")
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(f"{before}{BEGIN}\n{chapter(document)}{END}{after}", "utf-8")
    unfinished.replace(path)


def chapter(document: Document) -> str:
    """The machine, the figures, and what each side of them cost."""
    lines = [
        f"Measured {document.measured_at} on {describe(document.machine)}.",
        "",
        "| figure | ours | reference | ratio (least – greatest) | goal | |",
        "| --- | --- | --- | --- | --- | --- |",
        *map(_figure, document.results),
        "",
        "| side | its median (least – greatest) | processor time an operation, µs |",
        "| --- | --- | --- |",
        *dict.fromkeys(_side(result, side) for result in document.results for side in result.sides),
    ]
    return "\n".join(lines) + "\n"


def _figure(result: Result) -> str:
    unit = "/s" if result.unit == "1/s" else f" {result.unit}"
    met = {True: "reached", False: "**missed**", None: "for information"}[result.met]
    sign = "≥" if result.better == "higher" else "≤"
    goal = "" if result.goal is None else f"{sign} {result.goal:g}"
    ratio = result.ratio
    return (
        f"| `{result.benchmark}` `{result.figure}` | {number(result.ours)}{unit} | "
        f"{number(result.reference)}{unit} | **{number(ratio.median)}** "
        f"({number(ratio.min)} – {number(ratio.max)}) | {goal} | {met} |"
    )


def _side(result: Result, side: SideResult) -> str:
    unit = "/s" if result.unit == "1/s" else f" {result.unit}"
    cpu = ", ".join(f"{name} {number(us)}" for name, us in side.cpu_us_per_operation.items())
    name = side.name.replace("|", "\\|")
    spread = f"{number(side.value.median)}{unit} ({number(side.value.min)} – {number(side.value.max)})"
    return f"| `{result.benchmark}`: {name} | {spread} | {cpu} |"
