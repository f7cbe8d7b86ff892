"""Owns the picture of a run: a bar for each figure, its spread, and one line where all the goals are.

Every bar is drawn to a scale of its own on which its goal lies on the line, because ratios of 0.2 and of 15
have no scale in common. Guarantees: well-formed SVG without scripts, fonts or addresses of elsewhere, to be
read on light and on dark ground; the file appears whole or not at all.
"""

from collections.abc import Iterable
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from bench.report import describe, number
from bench.results import Document, Result

WIDTH = 880
LABEL = 262
PLOT = 400
ROW = 30
BAR = 14
TOP = 52
BOTTOM = 34
SCALE_MIN, SCALE_MAX = 1.5, 3.0
"""The right end of the plot, in goals; what is beyond is cut off and marked."""

_STYLE = """
text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 } .small { font-size: 11px; fill: #59636e }
.reached { fill: #2da44e } .missed { fill: #bf8700 } .spread { stroke: #1f2328; stroke-width: 1.5 }
text.label { text-anchor: end } text.middle { text-anchor: middle }
.goal { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 4 3 } .ground { fill: #8c959f; opacity: .15 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .reached { fill: #3fb950 } .missed { fill: #d29922 }
  .spread { stroke: #e6edf3 } text.label { text-anchor: end } text.middle { text-anchor: middle }
.goal { stroke: #ff7b72 }
}
"""


def write(document: Document, path: Path) -> None:
    """Draw the results into a file. Raises OSError."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(draw(document), "utf-8")
    unfinished.replace(path)


def draw(document: Document) -> str:
    """The picture; figures that have no goal are not in it."""
    shown = [(result, result.goal) for result in document.results if result.goal is not None]
    height = TOP + ROW * len(shown) + BOTTOM
    scale = min(max([SCALE_MIN, *(1.05 * result.ratio.max / goal for result, goal in shown)]), SCALE_MAX)
    goal_at = LABEL + PLOT / scale
    svg = Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {height}", role="img")
    _add(svg, "title", "Holdfast beside its references, as ratios")
    _add(svg, "desc", "; ".join(_sentences(document.results)))
    _add(svg, "style", _STYLE)
    _add(svg, "text", "Holdfast beside its references: ours / theirs", "title", x=12, y=22)
    _add(svg, "text", "goal", "small middle", x=goal_at, y=42)
    legend = "bar: median; across it: least to greatest; ≤ less is better"
    _add(svg, "text", legend, "small label", x=WIDTH - 12, y=22)
    for place, (result, goal) in enumerate(shown):
        _row(svg, result, goal, TOP + ROW * place, scale)
    _add(svg, "line", "", "goal", x1=goal_at, x2=goal_at, y1=TOP - 4, y2=height - BOTTOM + 2)
    about = f"{document.measured_at[:10]}, {describe(document.machine)}"
    _add(svg, "text", about, "small", x=12, y=height - 12)
    indent(svg)
    return tostring(svg, encoding="unicode") + "\n"


def _add(parent: Element, tag: str, text: str = "", style: str = "", **attributes: float | str) -> None:
    written = {
        name: value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
        for name, value in attributes.items()
    }
    element = SubElement(parent, tag, ({"class": style} if style else {}) | written)
    if text:
        element.text = text


def _row(svg: Element, result: Result, goal: float, top: int, scale: float) -> None:
    """One figure: what it is, the bar to its median, the spread across it, and the numbers."""

    def at(ratio: float) -> float:
        return LABEL + PLOT * min(ratio / goal, scale) / scale

    ratio, bar, middle = result.ratio, top + (ROW - BAR) / 2, top + ROW / 2
    sign = "≥" if result.better == "higher" else "≤"
    mark = "✓" if result.met else "✗"
    beyond = " »" if ratio.max / goal > scale else ""
    numbers = f"{mark} {number(ratio.median)} ({number(ratio.min)} – {number(ratio.max)}{beyond})"
    whiskers = "".join(f"M{at(end):.1f} {middle - 4:g} v8 " for end in (ratio.min, ratio.max))
    width = at(ratio.median) - LABEL
    style = "reached" if result.met else "missed"
    _add(svg, "rect", "", "ground", x=LABEL, y=bar, width=PLOT, height=BAR)
    _add(svg, "rect", "", style, x=LABEL, y=bar, width=width, height=BAR)
    _add(svg, "path", "", "spread", d=f"{whiskers}M{at(ratio.min):.1f} {middle:g} H{at(ratio.max):.1f}")
    _add(svg, "text", f"{result.benchmark} · {result.figure}", "label", x=LABEL - 10, y=middle + 4)
    _add(svg, "text", numbers, x=LABEL + PLOT + 12, y=middle + 4)
    _add(svg, "text", f"{sign} {goal:g}", "small label", x=WIDTH - 12, y=middle + 4)


def _sentences(results: Iterable[Result]) -> list[str]:
    """The same for who cannot see it."""
    return [
        f"{result.benchmark} {result.figure}: {number(result.ratio.median)}, "
        f"goal {'at least' if result.better == 'higher' else 'at most'} {result.goal:g}"
        for result in results
        if result.goal is not None
    ]
