"""The manifests as a cluster would get them: built by kubectl, read as YAML, taken apart."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from app import config

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = ("dev", "staging", "production")
PLATFORM = tuple(sorted(path.parent.name for path in MANIFESTS.glob("platform/*/kustomization.yaml")))
COMPONENTS = tuple(sorted(path.parent.name for path in MANIFESTS.glob("components/*/kustomization.yaml")))
COLLECTOR = "http://traces.observability:4318"
"""The address that an overlay with the component `traces` names."""

Object = dict[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "Job", "CronJob", "WorkerDeployment")


def tool(name: str) -> str:
    """A program of the development environment. It is never skipped: without it nothing here is proven."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    assert found, f"{name} is not installed: run `make`, which installs what the manifests' tests need"
    return found


def build(folder: Path) -> str:
    """What `kubectl kustomize` makes of a folder."""
    done = subprocess.run(
        [tool("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return done.stdout


@cache
def render(place: str, *components: str) -> tuple[Object, ...]:
    """The objects of a folder of manifests, with further components at the end of the overlay's list."""
    if not components:
        return objects(build(MANIFESTS / place))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "manifests"
        shutil.copytree(MANIFESTS, copy)
        file = copy / place / "kustomization.yaml"
        overlay = yaml.safe_load(file.read_text(encoding="utf-8"))
        overlay["components"] = overlay.get("components", []) + [f"../../components/{c}" for c in components]
        if "traces" in components:  # refused without it
            settings = next(one for one in overlay["configMapGenerator"] if one["name"] == "settings")
            settings["literals"].append(f"OTEL_EXPORTER_OTLP_ENDPOINT={COLLECTOR}")
        file.write_text(yaml.safe_dump(overlay, sort_keys=False), encoding="utf-8")
        return objects(build(copy / place))


def objects(text: str) -> tuple[Object, ...]:
    """The documents of a YAML stream."""
    return tuple(document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document)


def components_of(place: str) -> set[str]:
    """The components that an overlay has by itself."""
    overlay = yaml.safe_load((MANIFESTS / place / "kustomization.yaml").read_text(encoding="utf-8"))
    return {path.rpartition("/")[2] for path in overlay.get("components", [])}


def named(object_: Object) -> str:
    """`Kind/name`, for whoever reads a failure."""
    return f"{object_['kind']}/{object_['metadata']['name']}"


def of_kind(all_: tuple[Object, ...], *kinds: str) -> list[Object]:
    """The objects of these kinds."""
    return [one for one in all_ if one["kind"] in kinds]


class Pod(NamedTuple):
    """What an object makes pods of."""

    owner: Object
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def component(self) -> str:
        """Its part in the platform."""
        return self.labels["app.kubernetes.io/component"]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of them, those of the start included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods(all_: tuple[Object, ...]) -> list[Pod]:
    """Each workload's pod."""
    found = []
    for owner in of_kind(all_, *WORKLOADS):
        spec = owner["spec"]["jobTemplate"]["spec"] if owner["kind"] == "CronJob" else owner["spec"]
        template = spec["template"]
        found.append(Pod(owner, template["metadata"]["labels"], template["spec"]))
    return found


def is_ours(container: dict[str, Any]) -> bool:
    """Whether it runs this program."""
    return re.match(r"(.*/)?holdfast(-sandbox)?([:@]|$)", container["image"]) is not None


def environment(all_: tuple[Object, ...], container: dict[str, Any]) -> dict[str, str | None]:
    """The variables of a container; None where the value is in a Secret that these manifests do not hold."""
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(all_, "ConfigMap")}
    found: dict[str, str | None] = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    for entry in container.get("env", []):
        held = entry.get("valueFrom", {}).get("configMapKeyRef")
        found[entry["name"]] = maps[held["name"]][held["key"]] if held else entry.get("value")
    return found


def selects(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    """Whether a label selector takes these labels. An empty one takes all, none at all takes nothing."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for rule in selector.get("matchExpressions") or []:
        is_in = labels.get(rule["key"]) in rule["values"]
        if is_in != {"In": True, "NotIn": False}[rule["operator"]]:
            return False
    return True


def seconds(all_: tuple[Object, ...], pod: Pod) -> tuple[int, float, int]:
    """preStop, SHUTDOWN_TIMEOUT_S and the grace period of a pod of ours."""
    container = pod.spec["containers"][0]
    before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    default = next(s.default for s in config.SETTINGS if s.name == "SHUTDOWN_TIMEOUT_S")
    told = environment(all_, container).get("SHUTDOWN_TIMEOUT_S") or default
    return before, float(told or 0), pod.spec["terminationGracePeriodSeconds"]


@cache
def derived() -> dict[str, dict[str, Any]]:
    """`group/version/Kind` → the schema that was derived from its operator's definition (crds/)."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted((Path(__file__).parent / "crds").glob("*.json")):
        found |= json.loads(file.read_text(encoding="utf-8"))["schemas"]
    return found


def combinations() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every overlay as it is; every component with development and, where it adds something, with production.

    With KEDA, the Deployments of single queues need `worker-queues-keda`; development has network paths of
    its own in place of `services`, and no bucket for `archive`.
    """
    yield from ((overlay, ()) for overlay in OVERLAYS)
    in_production = components_of("overlays/production")
    together = {"worker-queues", "worker-queues-keda"}
    for component in sorted(set(COMPONENTS) - together):
        if component not in {"services", "archive"}:
            yield "dev", (component,)
        if component not in in_production:
            yield "production", (component,)
    yield "dev", ("worker-queues",)
    yield "dev", ("keda", "worker-versioning")
    yield "staging", ("keda", "worker-queues", "worker-queues-keda")
    yield "staging", ("archive", "traces", "worker-versioning")
    yield "production", ("worker-queues", "worker-queues-keda")
