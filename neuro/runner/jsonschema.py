"""JSON Schema of the workflow file, for editors."""

from __future__ import annotations

from typing import Any

from neuro.runner.registry import stages
from neuro.runner.workflow import Compute
from neuro.stage import Input, Stage

_REFERENCE = {"type": "string", "pattern": r"\$\{"}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a workflow with every stage that is installed.

    Returns
    -------
    dict
        Point an editor to a file with it to get completion, help and checks while writing YAML.
    """
    found = stages()
    definitions: dict[str, Any] = {}
    rules = [_rule(stage, definitions) for _, stage in sorted(found.items())]
    stage_node = {
        "type": "object",
        "required": ["use"],
        "properties": {"use": {"enum": sorted(found)}},
        "allOf": rules,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "neuro workflow",
        "type": "object",
        "required": ["version", "stages"],
        "additionalProperties": False,
        "properties": {
            "version": {"const": 1},
            "name": {"type": "string", "description": "The name of the run folder."},
            "seed": {
                "type": "integer",
                "description": "Reaches every stage that has a field 'seed'.",
            },
            "defaults": {
                "type": "object",
                "description": "Values for the fields of that name in every stage.",
            },
            "inputs": {"type": "object", "description": "Names to use as ${name} and to --set."},
            "stages": {"type": "object", "additionalProperties": stage_node},
        },
        "$defs": definitions,
    }


def _rule(stage: Stage, definitions: dict[str, Any]) -> dict[str, Any]:
    prefix = f"{stage.name}/"
    template = f"#/$defs/{stage.name}~1{{model}}"
    model = stage.params.model_json_schema(ref_template=template)
    for name, definition in model.get("$defs", {}).items():
        definitions[prefix + name] = definition
    fields = {name: _or_reference(value) for name, value in model.get("properties", {}).items()}
    properties = {
        "use": {"const": stage.name, "description": stage.help},
        "each": {"description": "A ${stage} or a glob of files: run once for each."},
        "sweep": {"type": "object", "additionalProperties": {"type": "array", "minItems": 1}},
        "compute": Compute.model_json_schema(),
        **{name: _input(wanted) for name, wanted in stage.inputs.items()},
        **fields,
    }
    return {
        "if": {"properties": {"use": {"const": stage.name}}},
        "then": {"properties": properties, "additionalProperties": False},
    }


def _or_reference(field: dict[str, Any]) -> dict[str, Any]:
    about = ("description", "default", "title")
    kept: dict[str, Any] = {name: field[name] for name in about if name in field}
    rest = {name: value for name, value in field.items() if name not in about}
    globs = [{"type": "string"}] if "'path'" in str(rest) else []
    return {**kept, "anyOf": [rest, *globs, _REFERENCE]}


def _input(wanted: Input) -> dict[str, Any]:
    one = {**_REFERENCE, "description": f"A {wanted.kind}: ${{stage}}"}
    return {"anyOf": [one, {"type": "array", "items": one}, {"type": "null"}]}
