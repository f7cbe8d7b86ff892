"""Makes the small schemas of this folder from what operators publish; run by hand when a version is raised.

    python tests/architecture/crds/derive.py NAME SOURCE FILE... < rendered.yaml

FILEs are CustomResourceDefinitions (or, with `values` as NAME, the values.yaml of a Helm chart), SOURCE says
which release they are of; standard input is what the manifests use. Of each object that is used, the names
and types of all fields are kept, so that a misspelt one is noticed; what lies below fields that nobody uses
is left out, and so is every description.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

KEPT = ("type", "enum", "required", "pattern", "minimum", "maximum", "x-kubernetes-int-or-string")
FOLDER = Path(__file__).parent


def of_crd(schema: dict[str, Any], used: list[Any]) -> dict[str, Any]:
    """The part of a schema that says whether these values are right."""
    kept = {key: schema[key] for key in KEPT if key in schema}
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return kept
    objects = [value for value in used if isinstance(value, dict)]
    if "properties" in schema and objects:
        kept["additionalProperties"] = False
        kept["properties"] = {
            name: of_crd(field, [value[name] for value in objects if name in value])
            for name, field in schema["properties"].items()
        }
    elif isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = of_crd(
            schema["additionalProperties"], [item for value in objects for item in value.values()]
        )
    if "items" in schema:
        items = [item for value in used if isinstance(value, list) for item in value]
        kept["items"] = of_crd(schema["items"], items)
    return kept


UNSAID = ("dynamicConfig", "replicaCount")
"""Keys that Temporal's chart reads below `server` and its values.yaml does not name."""


def of_values(values: Any, used: Any) -> dict[str, Any]:
    """The keys that a chart's values know, where they are used; an empty default may hold anything."""
    if not isinstance(values, dict) or not values or not isinstance(used, dict):
        return {}
    # A security context is passed on as it is.
    known = {
        key: {} if key.endswith("ecurityContext") else of_values(value, used.get(key))
        for key, value in values.items()
    }
    known |= {key: {} for key in UNSAID if key in used}
    return {"type": "object", "additionalProperties": False, "properties": known}


def main() -> None:
    """Write NAME.json."""
    name, source, *files = sys.argv[1:]
    used = [document for document in yaml.safe_load_all(sys.stdin) if document]
    schemas: dict[str, Any] = {}
    for file in files:
        for document in yaml.safe_load_all(Path(file).read_text(encoding="utf-8")):
            if name == "values":
                schemas[name] = of_values(document, used[0])
                continue
            kind, group = document["spec"]["names"]["kind"], document["spec"]["group"]
            for version in document["spec"]["versions"]:
                api = f"{group}/{version['name']}"
                mine = [one for one in used if (one["apiVersion"], one["kind"]) == (api, kind)]
                if mine:
                    schema = of_crd(version["schema"]["openAPIV3Schema"], mine)
                    schema["properties"]["metadata"] = {"type": "object"}
                    schema["properties"].pop("status", None)
                    schemas[f"{api}/{kind}"] = schema
    text = json.dumps({"source": source, "schemas": schemas}, sort_keys=True, separators=(",", ":"))
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
