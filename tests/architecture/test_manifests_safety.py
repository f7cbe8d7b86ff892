"""What runs in a pod may do as little as it needs: our own rules, the strictest standard, and a scanner's."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.architecture.rendered import (
    MANIFESTS,
    OVERLAYS,
    PLATFORM,
    ROOT,
    Pod,
    is_ours,
    named,
    of_kind,
    pods,
    render,
    tool,
)

PLACES = [
    *((f"overlays/{name}",) for name in OVERLAYS),
    *((f"platform/{name}",) for name in PLATFORM),
    ("overlays/production", "archive", "traces", "ingress", "worker-queues", "worker-queues-keda"),
    ("overlays/production", "archive", "worker-versioning"),
]
"""Everything there is, as it is applied: the last two have the components that no overlay has by itself."""
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
"""Kinds of volume that the restricted standard allows."""
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}\Z")
TAG = re.compile(r"(?P<image>[^:@]+(:\d+/[^:@]+)?):(?P<tag>[\w][\w.-]*)\Z")


def of_the_pod(spec: dict[str, Any]) -> Iterator[str]:
    """What a pod as a whole is not allowed."""
    own = spec.get("securityContext", {})
    if own.get("runAsNonRoot") is not True or not own.get("runAsUser"):
        yield "may be root"
    if own.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "is in the host's namespaces"
    if spec.get("automountServiceAccountToken") is not False or not spec.get("serviceAccountName"):
        yield "has a token, or the default account"
    if spec.get("enableServiceLinks") is not False:
        yield "gets variables of services"
    if not {key for volume in spec.get("volumes", []) for key in volume} <= VOLUMES | {"name"}:
        yield "has a volume that is not allowed"


def of_a_container(container: dict[str, Any]) -> Iterator[str]:
    """What a container is not allowed, or has not."""
    context, resources = container.get("securityContext", {}), container.get("resources", {})
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "may become more than it is"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield "has capabilities"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "may write to its image"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "has a port of the host"
    if any(not set(resources.get(kind, {})) >= {"cpu", "memory"} for kind in ("requests", "limits")):
        yield "has no requests or limits"


def offences(pod: Pod) -> list[str]:
    """What the restricted Pod Security Standard, and we, do not allow."""
    ours = [f"{one['name']} {what}" for one in pod.containers for what in of_a_container(one)]
    return [*of_the_pod(pod.spec), *ours]


@pytest.mark.parametrize("place", PLACES, ids="+".join)
def test_every_pod_keeps_the_restricted_standard(place: tuple[str, ...]):
    """No root, no token, no capability, no writing to its image, and a limit to what it takes."""
    assert {named(pod.owner): found for pod in pods(render(*place)) if (found := offences(pod))} == {}


@pytest.mark.parametrize("place", PLACES, ids="+".join)
def test_every_namespace_enforces_it(place: tuple[str, ...]):
    """So that whatever comes later keeps it, too."""
    for namespace in of_kind(render(*place), "Namespace"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("place", PLACES, ids="+".join)
def test_no_account_has_a_token(place: tuple[str, ...]):
    """Nothing here asks anything of the cluster."""
    objects = render(*place)
    for account in of_kind(objects, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False, named(account)
    known = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
    assert {pod.spec["serviceAccountName"] for pod in pods(objects)} <= known


@pytest.mark.parametrize("place", PLACES, ids="+".join)
def test_every_image_says_exactly_which_it_is(place: tuple[str, ...]):
    """Our own by digest where it was promoted; others by a tag with all its numbers; `latest` nowhere."""
    for pod in pods(render(*place)):
        for image, ours in ((c["image"], is_ours(c)) for c in pod.containers):
            if ours and place != ("overlays/dev",):
                assert DIGEST.search(image), image
                continue
            tag = TAG.match(image.partition("@")[0])
            assert tag, image
            assert tag["tag"] == "dev" if ours else re.match(r"v?\d+\.\d+", tag["tag"]), image


def test_no_file_speaks_of_the_latest():
    """Not even where no test reads an image from it: values of charts, comments with commands."""
    for file in MANIFESTS.rglob("*.yaml"):
        assert not re.search(r":latest\b|tag: *latest", file.read_text(encoding="utf-8")), file


def test_staging_and_production_name_the_image_in_one_place():
    """Which `holdfast promote` edits."""
    for overlay in ("staging", "production"):
        text = (MANIFESTS / f"overlays/{overlay}/kustomization.yaml").read_text(encoding="utf-8")
        images = yaml.safe_load(text)["images"]
        assert [set(image) for image in images] == [{"name", "newName", "digest"}]
        assert len(re.findall(r"sha256:[0-9a-f]{64}", text)) == 1


def file_of(place: tuple[str, ...]) -> str:
    """Where the scanner finds it."""
    return "+".join(place).replace("/", "-") + ".yaml"


def scan(folder: Path) -> dict[str, list]:
    """What the policy scanner says about all files of a folder."""
    subprocess.run(["sh", "requirements/tool.sh", "policy"], cwd=ROOT, check=True, timeout=600)
    command = [ROOT / ".venv/policy/bin/python", ROOT / "tests/architecture/scan_policies.py", folder]
    return json.loads(subprocess.run(command, capture_output=True, timeout=300, check=True).stdout)


@pytest.mark.timeout(900)  # the first time the scanner is installed
def test_the_policy_scanner_finds_nothing_that_is_not_excepted_with_a_reason(tmp_path: Path):
    """Exceptions stand in the files, each with why; one that excepts nothing any more is noticed, too."""
    for place in PLACES:
        file = tmp_path / file_of(place)
        file.write_text(yaml.safe_dump_all(render(*place)), encoding="utf-8")
    (tmp_path / "planted.yaml").write_text(PLANTED, encoding="utf-8")
    said = scan(tmp_path)
    assert said["unread"] == []
    assert {path for path, *_ in said["passed"]} >= {f"/overlays-{name}.yaml" for name in OVERLAYS}
    failed = {(path, resource, check) for path, resource, check, _ in said["failed"]}
    planted = {one for one in failed if one[0] == "/planted.yaml"}
    assert {check for _, _, check in planted} >= {"CKV_K8S_14", "CKV_K8S_20", "CKV_K8S_38", "CKV_K8S_11"}
    assert sorted(failed - planted) == []
    reasons = [reason for *_, reason in said["excepted"]]
    assert reasons
    assert min(map(len, reasons)) > 20
    assert excepted() - {(path, check) for path, _, check, _ in said["excepted"]} == set()


def excepted() -> set[tuple[str, str]]:
    """Each exception that some object of a place asks for."""
    return {
        (f"/{file_of(place)}", value.partition("=")[0])
        for place in PLACES
        for object_ in render(*place)
        for key, value in object_["metadata"].get("annotations", {}).items()
        if key.startswith("checkov.io/skip")
    }


PLANTED = """
apiVersion: v1
kind: Pod
metadata: {name: planted, namespace: planted}
spec:
  containers:
    - {name: planted, image: "planted:latest"}
"""


def test_the_linter_of_containerfiles_finds_nothing(tmp_path: Path):
    """Exceptions stand in the file with their reasons; a defect that is planted is found."""
    bad = tmp_path / "Containerfile"
    bad.write_text("FROM debian\nRUN cd /tmp && sudo apt-get install curl\n", encoding="utf-8")
    linter = tool("hadolint")
    assert subprocess.run([linter, bad], capture_output=True, timeout=60, check=False).returncode != 0
    files = [path for path in (ROOT / "Containerfile", ROOT / "Dockerfile") if path.is_file()]
    for file in files:
        done = subprocess.run([linter, file], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout
