"""A1 for runs of a campaign: which of the files that lie in a run's folder are its artifact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from golfctl.audit import sizes, target
from golfctl.store.claims import Claim
from golfctl.store.evidence import Log
from tests.golfctl.factories import gate, run


def test_size_of_a_run_is_that_of_the_files_its_base_names(tmp_path: Path) -> None:
    """Weights before they were packed do not count; a part of another ending does, and so does a file that is gone."""
    for name, size in (("model.ptz", 1500), ("table.json", 400), ("final_model.pt", 90_000)):
        (tmp_path / name).write_bytes(b"\0" * size)
    ours = run("D", gate(1), changes={"artifact_bytes": 2900, "model_bytes": 1900})
    named = {"artifact": {"globs": ["*.ptz", "table.json"], "max_bytes": 16_000_000}}
    ours = replace(ours, spec=replace(ours.spec, rules=named))
    found = target._model(tmp_path, ours)
    assert found == {"model.ptz": 1500, "table.json": 400}
    file = f"{ours.spec.name}/train.log"
    weights = {f"{ours.spec.name}/{path}": size for path, size in found.items()}
    whole = target.Target("D", target.RUN, tmp_path, [], Claim(), code={"a.py": b"#" * 1000}, runs={file: ours})
    log = Log(file, "", "ok")
    assert sizes._counted(replace(whole, weights=weights), log, 1000) == (2900, "recounted from disk")
    del weights[f"{ours.spec.name}/table.json"]
    assert sizes._counted(replace(whole, weights=weights), log, 1000) == (
        2900,
        "recounted when it was pulled; less lies here",
    )
