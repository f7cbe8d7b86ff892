"""Every overlay and component builds, and every object is one that a cluster takes, to the last field."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from referencing import Registry, Resource

from tests.architecture.rendered import (
    COMPONENTS,
    MANIFESTS,
    OVERLAYS,
    PLATFORM,
    Object,
    combinations,
    derived,
    named,
    of_kind,
    render,
)

CURRENT = kubernetes_validate.latest_version()
SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{CURRENT}-local-strict"
PLACES = [
    *(f"overlays/{name}" for name in OVERLAYS),
    *(f"platform/{name}" for name in PLATFORM),
    "platform/redis/monitors",
]


@cache
def registry() -> Registry:
    """Kubernetes' own definitions, read once."""
    definitions = json.loads((SCHEMAS / "_definitions.json").read_text(encoding="utf-8"))
    return Resource.from_contents(definitions) @ Registry()


@cache
def validator(api: str, kind: str) -> jsonschema.Draft202012Validator:
    """The strict validator of one kind: no field that there is not."""
    group, _, version = api.rpartition("/")
    file = SCHEMAS / f"{kind.lower()}-{'-'.join([p for p in (group.split('.')[0], version) if p])}.json"
    if file.is_file():
        schema = json.loads(file.read_text(encoding="utf-8"))
        return jsonschema.Draft202012Validator(schema, registry=registry())
    assert f"{api}/{kind}" in derived(), (
        f"no schema of {api} {kind}: derive one (tests/architecture/crds/derive.py)"
    )
    return jsonschema.Draft202012Validator(derived()[f"{api}/{kind}"])


def wrong(object_: Object) -> list[str]:
    """What a cluster would refuse, each with its place."""
    errors = validator(object_["apiVersion"], object_["kind"]).iter_errors(object_)
    return [f"{named(object_)} {'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in errors]


@pytest.mark.parametrize(("overlay", "components"), list(combinations()), ids=str)
def test_every_combination_builds_and_holds_what_a_cluster_takes(overlay: str, components: tuple[str, ...]):
    """Each object against the schema of its kind; no field that the kind does not have."""
    objects = render(f"overlays/{overlay}", *components)
    assert [line for object_ in objects for line in wrong(object_)] == []
    assert len({(named(object_)) for object_ in objects}) == len(objects)


@pytest.mark.parametrize(
    "place", ["base", "platform/redis/monitors", *(f"platform/{name}" for name in PLATFORM)]
)
def test_base_and_platform_hold_what_a_cluster_takes(place: str):
    """As above, for what is applied by itself."""
    assert [line for object_ in render(place) for line in wrong(object_)] == []


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the keys are that the manifests' authors could have misspelt."""
    found = []
    if isinstance(value, dict):
        found = [at] if value else []
        for key, inner in value.items():
            if key not in {"metadata", "data", "stringData", "matchLabels", "nodeSelector"}:
                found += paths(inner, (*at, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            found += paths(inner, (*at, number))
    return found


# Maps whose keys are anybody's.
FREE = {"requests", "limits", "parameters", "data", "labels", "annotations"}
FREE |= {"namespaceSelector", "podSelector"}


def of_every_kind() -> dict[str, Object]:
    """One object of each kind that is anywhere in the manifests."""
    found: dict[str, Object] = {}
    for overlay, components in combinations():
        found |= {one["kind"]: one for one in render(f"overlays/{overlay}", *components)}
    for place in PLACES:
        found |= {one["kind"]: one for one in render(place)}
    return found


def unnoticed(object_: Object) -> list[tuple[Any, ...]]:
    """The places where a field that there is not would pass."""
    silent = []
    for path in paths(object_):
        is_free = FREE & set(path) or (object_["kind"] == "Service" and path[-1:] == ("selector",))
        if is_free or (path[-1:] == ("metadata",) and "triggers" in path):
            continue
        broken = copy.deepcopy(object_)
        inner: Any = broken
        for step in path:
            inner = inner[step]
        inner["mispelt"] = "x"
        if not wrong(broken):
            silent.append(path)
    return silent


def test_a_field_that_is_misspelt_anywhere_is_noticed():
    """A validator that lets an unknown field pass proves nothing: one is planted at every place there is."""
    kinds = of_every_kind()
    assert len(kinds) > 20
    assert {kind: found for kind, one in kinds.items() if (found := unnoticed(one))} == {}


def test_a_wrong_type_is_noticed():
    """A number where a name belongs, and the other way round."""
    deployment = copy.deepcopy(of_kind(render("overlays/production"), "Deployment")[0])
    deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = "45"
    assert wrong(deployment)


def test_every_file_is_used():
    """A file that no kustomization names would be read by people and by nobody else."""
    used = set()
    for file in MANIFESTS.rglob("kustomization.yaml"):
        known = yaml.safe_load(file.read_text(encoding="utf-8"))
        for key in ("resources", "components", "configurations"):
            used |= {(file.parent / path).resolve() for path in known.get(key, [])}
        for entry in known.get("configMapGenerator", []):
            used |= {(file.parent / path.rpartition("=")[2]).resolve() for path in entry.get("files", [])}
    applied = {(MANIFESTS / place / "kustomization.yaml") for place in PLACES}
    chosen = {MANIFESTS / "components" / name for name in COMPONENTS}
    helm = set(MANIFESTS.glob("platform/*/values.yaml"))
    for file in {path for path in MANIFESTS.rglob("*") if path.is_file()} - applied - helm:
        by_folder = file.name == "kustomization.yaml" and (file.parent in used or file.parent in chosen)
        assert by_folder or file in used or file.name == "README.md", file


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_the_overlays_own_namespace(overlay: str):
    """Two environments on one cluster never meet."""
    outside = [
        named(object_)
        for object_ in render(f"overlays/{overlay}")
        if object_["kind"] != "Namespace" and object_["metadata"].get("namespace") != f"holdfast-{overlay}"
    ]
    assert outside == []


def test_development_needs_no_operator():
    """An empty cluster knows Kubernetes' own kinds and no others."""
    groups = {object_["apiVersion"].rpartition("/")[0] for object_ in render("overlays/dev")}
    assert groups <= {"", "apps", "batch", "policy", "networking.k8s.io"}


def test_the_charts_values_are_keys_that_it_reads():
    """A key that a chart does not know is silently nothing; each is held against the chart's own values."""
    values = yaml.safe_load((MANIFESTS / "platform/temporal/values.yaml").read_text(encoding="utf-8"))
    schema = jsonschema.Draft202012Validator(derived()["values"])
    assert [error.message for error in schema.iter_errors(values)] == []
    values["server"]["history"]["resource"] = {}
    assert not schema.is_valid(values)
