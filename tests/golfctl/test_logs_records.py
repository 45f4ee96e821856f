"""The real logs of the field, read in place: what a careful reader found in each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from golfctl.logs import read_file
from golfctl.logs.asjson import describe
from tests.golfctl.logdamage import FORMS, reading, wrong

RECORDS = Path(__file__).resolve().parents[2].parent / "shared" / "records"
TRUTH = [json.loads(line) for line in (RECORDS / "truth.jsonl").read_text().splitlines()] if RECORDS.exists() else []
FIELDS = [
    "seed",
    "world_size",
    "grad_accum",
    "model_params",
    "iterations_planned",
    "steps_done",
    "train_time_ms",
    "stopped_early",
    "code_bytes",
    "model_bytes",
    "artifact_bytes",
    "codec",
    "prequant_val_bpb",
    "prequant_val_loss",
    "evals",
    "headline_label",
    "headline_val_bpb",
    "headline_val_loss",
    "peak_mem_mib",
    "reserved_mem_mib",
    "n_train_points",
    "n_val_points",
    "total_eval_time_s",
    "copies",
]

pytestmark = pytest.mark.skipif(not TRUTH, reason="../shared/records is not there")


def name(row: dict[str, Any]) -> str:
    return str(row["dev_path"])[-60:]


@pytest.mark.parametrize("row", TRUTH, ids=name)
def test_real_log_says_what_a_careful_reader_found(row: dict[str, Any]) -> None:
    """Every field, every evaluation, the runs before it; it ended well."""
    found = describe(read_file(RECORDS / row["dev_path"]))
    assert {field: found[field] for field in FIELDS} == {field: row[field] for field in FIELDS}
    step_avg = row["step_avg_ms_printed"] or row["step_avg_ms_derived"]
    assert found["step_avg_ms"] == pytest.approx(step_avg, abs=1e-4)
    assert found["step_avg_source"] == ("printed" if row["step_avg_ms_printed"] else "derived")
    others = [{key: value for key, value in run.items() if key != "outcome"} for run in found["other_runs"]]
    assert others == (row.get("other_runs") or [])
    assert found["outcome"] == "ok"


@pytest.mark.parametrize("row", TRUTH[::4], ids=name)
def test_form_of_a_real_log_changes_nothing(row: dict[str, Any]) -> None:
    """Source code in front, CRLF, colours, UTF-16."""
    content = (RECORDS / row["dev_path"]).read_bytes()
    whole = reading(content)
    for form, change in FORMS.items():
        found = reading(change(content))
        assert list(wrong(found, whole)) == [], form
        assert [key for key in whole if whole[key] is not None and found[key] is None] == [], form
