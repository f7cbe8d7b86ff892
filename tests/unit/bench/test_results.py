"""The document of a run, and its picture."""

import xml.etree.ElementTree as ET

import msgspec
import pytest

from bench import chapter, picture, results
from bench.harness import Figure, Silent, run_contest
from bench.machine import this_machine
from bench.samples import BenchmarkFailed
from tests.unit.bench.sides import RUNS, Nowhere, Scripted, contest

# As the public contract shows it.
CONTRACT = {
    "machine": ...,
    "results": [
        {
            "benchmark": "redis",
            "figure": "get_vs_redis_py",
            "ours": 1,
            "reference": 1,
            "unit": "1/s",
            "ratio": {"median": 1, "min": 1, "max": 1},
            "goal": 12,
            "better": "higher",
        }
    ],
}


async def document(name: str = "redis", ratio: float = 2.0, **changes) -> results.Document:
    """Of one contest."""
    sides = [Scripted("hot path", [100 * ratio] * RUNS), Scripted("redis-py", [100.0] * RUNS)]
    changes = {"figures": [Figure("get_vs_redis_py", goal=12)], "peers": [Nowhere("glide")]} | changes
    measured = await run_contest(contest(*sides, **changes), Silent())
    return results.Document(this_machine(), results.results_of(name, [measured]), [], "2026-11-21T12:00:00Z")


def holds(expected: object, found: object) -> bool:
    """Whether every field of `expected` is in `found`, with a value of the same kind."""
    if expected is ...:
        return True
    if isinstance(expected, dict):
        return all(name in found and holds(part, found[name]) for name, part in expected.items())
    if isinstance(expected, list):
        return all(holds(expected[0], part) for part in found)
    return isinstance(found, (int, float) if isinstance(expected, int) else type(expected))


async def test_the_document_has_the_fields_of_the_contract(tmp_path):
    """Other programs read it by these names."""
    path = tmp_path / "results.json"
    results.write(await document(), path)
    written = msgspec.json.decode(path.read_bytes())
    assert holds(CONTRACT, written)
    assert written["results"][0]["ratio"] == {"median": 2, "min": 2, "max": 2}
    assert written["results"][0]["met"] is False


async def test_the_document_says_what_stood_beside_and_what_it_cost():
    """Every side with its role, its spread and its processor time."""
    result = (await document()).results[0]
    assert [(side.name, side.role) for side in result.sides] == [
        ("hot path", "ours"),
        ("redis-py", "reference"),
    ]
    assert result.sides[1].cpu_us_per_operation == {"client": pytest.approx(5000)}
    assert result.missing_peers == {"glide": "no wheel for this platform"}


async def test_the_machine_is_described():
    """A figure without its machine says little."""
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.memory_bytes > 1 << 27
    assert all((machine.cpu, machine.python, machine.kernel))


@pytest.mark.parametrize("ratio", [0.001, 2.0, 12.0, 500.0])
async def test_the_picture_is_well_formed_and_complete(ratio: float):
    """Whatever the ratio, every bar lies within its plot."""
    drawn = ET.fromstring(picture.draw(await document(ratio=ratio)))
    text = " ".join(drawn.itertext())
    assert "redis · get_vs_redis_py" in text
    assert "≥ 12" in text
    bars = [element for element in drawn.iter() if element.get("class") in {"reached", "missed"}]
    assert [bar.get("class") for bar in bars] == ["reached" if ratio >= 12 else "missed"]
    assert 0 <= float(bars[0].get("width")) <= picture.PLOT


async def test_the_picture_holds_nothing_that_runs_or_comes_from_elsewhere():
    """It is shown in documents, on light and on dark ground."""
    drawn = picture.draw(await document("<script>&"))
    elements = list(ET.fromstring(drawn).iter())
    assert {element.tag.rpartition("}")[2] for element in elements} <= {
        *("svg", "title", "desc", "style", "text", "rect", "path", "line")
    }
    assert "prefers-color-scheme: dark" in drawn
    assert "url(" not in drawn
    assert drawn.count("://") == 1  # the name of the format


async def test_a_figure_for_information_is_not_in_the_picture():
    """It has no goal to be drawn beside."""
    shown = await document(figures=[Figure("one_lock", goal=None)])
    assert shown.results[0].met is None
    assert "one_lock" not in picture.draw(shown)


async def test_results_are_put_into_a_document_between_its_marks(tmp_path):
    """And nothing else of it changes."""
    path = tmp_path / "BENCHMARKS.md"
    path.write_text(f"# Before\n{chapter.BEGIN}\nold | table\n{chapter.END}\nafter\n", "utf-8")
    chapter.rewrite(await document(), path)
    text = path.read_text("utf-8")
    assert text.startswith(f"# Before\n{chapter.BEGIN}\nMeasured 2026-11-21")
    assert text.endswith(f"{chapter.END}\nafter\n")
    assert "| `redis` `get_vs_redis_py` | 200/s | 100/s | **2** (2 – 2) | ≥ 12 | **missed** |" in text
    assert "old" not in text


async def test_a_document_without_the_marks_is_left_alone(tmp_path):
    """It is not one that holds results."""
    path = tmp_path / "README.md"
    path.write_text("no place", "utf-8")
    with pytest.raises(BenchmarkFailed, match="no place for results"):
        chapter.rewrite(await document(), path)
    assert path.read_text("utf-8") == "no place"


async def test_earlier_results_are_taken_together(tmp_path):
    """Each benchmark as it was measured last, in the order of the registry."""
    paths = [tmp_path / f"{number}.json" for number in range(3)]
    for path, name, ratio in zip(paths, ("lock", "redis", "lock"), (2, 3, 4), strict=True):
        results.write(await document(name, ratio=ratio), path)
    together = results.read(paths)
    assert [(result.benchmark, result.ratio.median) for result in together.results] == [
        ("redis", 3),
        ("lock", 4),
    ]
