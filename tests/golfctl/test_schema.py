"""The JSON Schema for editors comes from the models that check plans."""

from __future__ import annotations

from typing import Any

from golfctl.domain.gate import METRICS
from golfctl.store.schema import GateDiffFile, PlanFile, RequireFile, plan_schema


def nodes(value: Any) -> list[dict[str, Any]]:
    """Every mapping inside a schema."""
    if isinstance(value, list):
        return [node for item in value for node in nodes(item)]
    if isinstance(value, dict):
        return [value, *(node for item in value.values() for node in nodes(item))]
    return []


def test_schema_describes_every_key_of_a_plan() -> None:
    """An editor can show what each key means, also inside diffs and gates."""
    schema = plan_schema()
    for model in (schema, *schema["$defs"].values()):
        assert model["additionalProperties"] is False
        for name, item in model["properties"].items():
            assert item.get("description"), name
    assert set(schema["properties"]) == set(PlanFile.model_fields)
    assert schema["required"] == ["id", "title", "hypothesis"]


def test_schema_resolves_all_its_references() -> None:
    """Nothing points outside the document: it works without a network."""
    schema = plan_schema()
    references = [node["$ref"] for node in nodes(schema) if "$ref" in node]
    assert references
    assert all(reference.removeprefix("#/$defs/") in schema["$defs"] for reference in references)


def test_schema_allows_one_fallback_or_a_list_and_numbers_as_settings() -> None:
    """What the reader accepts, the editor must not mark."""
    schema = plan_schema()
    single, many = schema["properties"]["fallback"]["anyOf"]
    assert single == {"$ref": "#/$defs/DiffFile"}
    assert many["type"] == "array"
    settings = next(
        item for item in schema["$defs"]["DiffFile"]["properties"]["set"]["anyOf"] if item["type"] == "object"
    )
    assert "number" in settings["additionalProperties"]["type"]


def test_schema_knows_every_metric_and_no_fixed_gate_key() -> None:
    """The frame's metrics are all requirable; a gate's name, number and kind are golf.yaml's."""
    assert set(RequireFile.model_fields) == {*METRICS, "at_gpus"}
    assert not {"name", "number", "kind"} & set(GateDiffFile.model_fields)
