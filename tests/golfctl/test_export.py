"""Exports: every run with its params, metrics and files, in tables and in real MLflow stores; twice is once."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from golfctl.domain import rundir
from golfctl.domain.event import Type
from golfctl.domain.state import fold
from golfctl.errors import InputError
from golfctl.store import exporttables
from golfctl.store.campaign import Campaign
from golfctl.store.exportmlflow import address, shown
from golfctl.store.exportruns import exported, listing
from golfctl.store.ledger import Ledger
from tests.golfctl.campaigns import golfctl
from tests.golfctl.factories import gate, result, spec
from tests.golfctl.plankit import make
from tests.golfctl.runlab import wait_until

LOG = "step:0/2 val_loss:5.0 val_bpb:3.0 train_time:0ms step_avg:0.00ms\n"
MORE = (
    "step:1/2 train_loss:4.0 train_time:50ms step_avg:50.00ms\n"
    "step:2/2 train_loss:nan train_time:100ms step_avg:50.00ms\n"
    "step:2/2 val_loss:3.5 val_bpb:2.0 train_time:100ms step_avg:50.00ms\n"
)
HOSTILE = '=cmd|"<script>"\n\u202e'


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    """A finished run, a crashed one with a hostile reason, and one under way."""
    made = make(tmp_path / "campaign")
    launch(made, 1)
    finish(made, 1)
    launch(made, 2)
    event = {"run": "D.g1.s2.a1", "outcome": "crashed", "reason": HOSTILE, "wall_s": 3.0, "result": None}
    ledger(made).append(Type.RUN_FINISHED, event)
    launch(made, 3)
    heard = made.state_folder / "tails" / "D.g1.s3.a1.log"
    heard.parent.mkdir(parents=True)
    heard.write_text(LOG)
    return made


def ledger(made: Campaign) -> Ledger:
    return Ledger(made.ledger_folder, made.state_folder)


def launch(made: Campaign, seed: int) -> None:
    """Record that a run was started."""
    data = asdict(spec("D", gate(1), seed)) | {"env": {"RATE": "0.1", "STEPS": "2"}}
    ledger(made).append(Type.RUN_INTENT, {"spec": data})
    ledger(made).append(Type.RUN_STARTED, {"run": data["name"]})


def finish(made: Campaign, seed: int) -> None:
    """Bring a run home and record its end."""
    folder = made.runs_folder / f"D.g1.s{seed}.a1"
    (folder / "deep").mkdir(parents=True)
    (folder / rundir.LOG).write_text(LOG + MORE)
    (folder / "deep" / "weights.bin").write_bytes(b"\0" * 100)
    found = asdict(result(1.9, settings={"RATE": 0.1, "STEPS": 2, "ODD=NAME": [1]}))
    event = {"run": folder.name, "outcome": "completed", "reason": "", "wall_s": 2.5, "usd": 0.25, "result": found}
    ledger(made).append(Type.RUN_FINISHED, event)


def write(made: Campaign, folder: Path, suffix: str, artifacts: bool = False) -> dict[str, int]:
    runs = list(exported(made, fold(ledger(made).events())))
    return exporttables.write(runs, folder, made.name, suffix, artifacts)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


CURVE = [
    ("train_loss", 1, 50.0, 4.0),
    ("val_loss", 0, 0.0, 5.0),
    ("val_loss", 2, 100.0, 3.5),
    ("val_bpb", 0, 0.0, 3.0),
    ("val_bpb", 2, 100.0, 2.0),
]
"""Of the finished run: a loss that is no number is left out."""


def test_csv_holds_every_run_and_its_curve(campaign: Campaign, tmp_path: Path) -> None:
    """Runs without a score, too; a text that looks like a formula is none."""
    counts = write(campaign, tmp_path / "out", "csv", artifacts=True)
    runs = table(tmp_path / "out" / "runs.csv")
    assert [(run["name"], run["outcome"], run["score"]) for run in runs] == [
        ("D.g1.s1.a1", "completed", "1.9"),
        ("D.g1.s2.a1", "crashed", ""),
        ("D.g1.s3.a1", "", ""),
    ]
    assert runs[1]["reason"].startswith("'=cmd") and "\u202e" not in runs[1]["reason"]
    metrics = table(tmp_path / "out" / "metrics.csv")
    curve = [row for row in metrics if row["step"] and row["run"] == "D.g1.s1.a1"]
    assert [(row["name"], int(row["step"]), float(row["ms"]), float(row["value"])) for row in curve] == CURVE
    assert {row["name"]: row["value"] for row in metrics if not row["step"]}["artifact_bytes"] == "3000.0"
    params = {row["name"]: row["value"] for row in table(tmp_path / "out" / "params.csv") if row["run"] == "D.g1.s1.a1"}
    assert params == {"RATE": "0.1", "STEPS": "2", "ODD=NAME": "[1]"}
    assert counts == {"runs": 3, "params": 5, "metrics": len(metrics), "files": 2}
    assert (tmp_path / "out" / "artifacts" / "D.g1.s1.a1" / "deep" / "weights.bin").stat().st_size == 100


def test_tables_written_twice_are_the_same(campaign: Campaign, tmp_path: Path) -> None:
    """And a run that ended meanwhile is brought up to date."""
    out = tmp_path / "out"
    write(campaign, out, "csv")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    write(campaign, out, "csv")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    finish(campaign, 3)
    assert write(campaign, out, "csv")["runs"] == 3
    assert table(out / "runs.csv")[2]["score"] == "1.9"


def test_parquet_says_what_csv_says(campaign: Campaign, tmp_path: Path) -> None:
    """With types: a missing score is null, not zero and not text."""
    parquet = pytest.importorskip("pyarrow.parquet")
    write(campaign, tmp_path / "out", "parquet")
    runs = parquet.read_table(tmp_path / "out" / "runs.parquet").to_pylist()
    assert [(run["name"], run["seed"], run["score"]) for run in runs] == [
        ("D.g1.s1.a1", 1, 1.9),
        ("D.g1.s2.a1", 2, None),
        ("D.g1.s3.a1", 3, None),
    ]
    assert runs[1]["reason"] == HOSTILE and json.loads(runs[0]["env"]) == {"RATE": "0.1", "STEPS": "2"}
    rows = parquet.read_table(tmp_path / "out" / "metrics.parquet").to_pylist()
    found = [tuple(row.values())[1:] for row in rows if row["step"] is not None and row["run"] == "D.g1.s1.a1"]
    assert found == CURVE


def test_export_refuses_a_folder_with_other_things(campaign: Campaign, tmp_path: Path) -> None:
    """A slip must not put tables among a campaign's files, nor mix two campaigns."""
    with pytest.raises(InputError, match="holds other files"):
        write(campaign, campaign.root, "csv")
    write(campaign, tmp_path / "out", "csv")
    (tmp_path / "out" / exporttables.MARK).write_text('{"campaign": "other"}')
    with pytest.raises(InputError, match="of campaign other"):
        write(campaign, tmp_path / "out", "csv")


def test_export_tells_campaigns_of_one_name_apart(campaign: Campaign, tmp_path: Path) -> None:
    """Two campaigns of one preset share a name: the second must not replace the first one's tables, nor a damaged mark help."""
    out = tmp_path / "out"
    write(campaign, out, "csv")
    before = (out / "runs.csv").read_bytes()
    other = make(tmp_path / "other")
    launch(other, 1)
    assert other.name == campaign.name
    with pytest.raises(InputError, match="of another campaign named"):
        write(other, out, "csv")
    for damage in ("", "[]", "{}", "nonsense"):
        (out / exporttables.MARK).write_text(damage)
        with pytest.raises(InputError, match="is damaged"):
            write(campaign, out, "csv")
    assert (out / "runs.csv").read_bytes() == before


def test_number_beyond_a_column_is_missing(campaign: Campaign, tmp_path: Path) -> None:
    """One absurd count in one run's result must not cost the whole Parquet export."""
    parquet = pytest.importorskip("pyarrow.parquet")
    found = asdict(result(1.9)) | {"steps": 10**30}
    event = {"run": "D.g1.s3.a1", "outcome": "completed", "reason": "", "result": found}
    ledger(campaign).append(Type.RUN_FINISHED, event)
    write(campaign, tmp_path / "out", "parquet")
    (run,) = [
        row for row in parquet.read_table(tmp_path / "out" / "runs.parquet").to_pylist() if row["name"] == "D.g1.s3.a1"
    ]
    assert run["steps"] is None and run["score"] == 1.9


def test_run_is_exported_again_once_its_files_are_here(campaign: Campaign) -> None:
    """A fresh clone has the ledger alone: the curves, fetched later, must still get into the store."""
    folder = campaign.runs_folder / "D.g1.s1.a1"
    aside = folder.rename(folder.with_name("aside"))
    bare = next(exported(campaign, fold(ledger(campaign).events())))
    assert bare.points() == [] and bare.files() == []
    aside.rename(folder)
    whole = next(exported(campaign, fold(ledger(campaign).events())))
    assert len(whole.points()) == len(CURVE) and whole.digest != bare.digest
    files = whole.files()
    assert listing(folder, files) == listing(folder, list(reversed(files))) != listing(folder, files[:1])


def test_missing_packages_are_named_in_one_line(campaign: Campaign, tmp_path: Path) -> None:
    """With the command that installs them."""
    for package, to in (("mlflow", "mlflow"), ("pyarrow", "parquet")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError")
        done = golfctl(
            campaign.root, "export", "--to", to, "-o", str(tmp_path / "out"), expect=2, PYTHONPATH=str(tmp_path)
        )
        assert done.stderr.count("\n") == 1 and f"pip install 'golfctl[{to}]'" in done.stderr


def test_addresses_are_read_as_people_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a folder, an address; a password in one is never shown."""
    monkeypatch.chdir(tmp_path)
    assert address("x.db") == f"sqlite:///{tmp_path}/x.db"
    assert address("mlruns") == f"file://{tmp_path}/mlruns"
    assert address("https://host:5000") == "https://host:5000"
    assert shown("http://me:secret@host:5000/a") == "http://host:5000/a"


# --- MLflow -------------------------------------------------------------------------------------------------------------
READ = """
import json, os, sys
from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
(experiment,) = [item for item in client.search_experiments() if item.name == "kit"]
found = {}
for run in client.search_runs([experiment.experiment_id]):
    history = {name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics}
    files = [item.path for folder in ("", "deep") for item in client.list_artifacts(run.info.run_id, folder)]
    found.setdefault(run.data.tags["golfctl.run"], []).append(
        {"id": run.info.run_id, "status": run.info.status, "params": run.data.params, "tags": run.data.tags, "history": history,
         "files": files, "name": run.info.run_name, "took": (run.info.end_time or 0) - run.info.start_time})
    if run.data.tags["golfctl.run"] in sys.argv[2:]:
        client.delete_tag(run.info.run_id, "golfctl.digest")
print(json.dumps(found))
"""
SERVE = """
import sys
from mlflow.server import app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), app)
"""
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}


def read(uri: str, cut: str = "") -> dict[str, list[dict[str, Any]]]:
    """What MLflow itself says is in a store, by our name of the run. cut: a run that then looks as a killed export leaves it."""
    done = subprocess.run(
        [sys.executable, "-c", READ, uri, cut],
        env=os.environ | QUIET,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """MLflow's own tracking server on a sqlite file; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/served.db",
        "_MLFLOW_SERVER_REGISTRY_STORE": f"sqlite:///{folder}/served.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(folder / "files"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "false",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(port)], env=os.environ | QUIET | store, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: process.poll() is not None or healthy(port), 90)
        assert process.poll() is None, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def healthy(port: int) -> bool:
    with contextlib.suppress(OSError):
        return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200)
    return False


@pytest.mark.service
@pytest.mark.parametrize("kind", ["sqlite", "folder", "server"])
def test_mlflow_holds_each_run_once(campaign: Campaign, tmp_path: Path, kind: str) -> None:
    """Exported, again after an export that was cut short, again after a run has ended: each run and point once."""
    pytest.importorskip("mlflow")
    with contextlib.ExitStack() as stack:
        # In memory where that is possible: MLflow makes its tables in a hundred steps, each of which waits for the disk.
        memory = Path("/dev/shm")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path)))
        if kind == "server":
            pytest.importorskip("flask")
            dest = uri = stack.enter_context(server(folder))
        else:
            dest = str(folder / {"sqlite": "tracking.db", "folder": "mlruns"}[kind])
            uri = address(dest)

        def export(*words: str) -> dict[str, Any]:
            done = golfctl(campaign.root, "export", "--to", "mlflow", "-o", dest, "--json", *words)
            found: dict[str, Any] = json.loads(done.stdout)
            return found

        assert {"new": 3, "updated": 0, "same": 0}.items() <= export().items()
        first = read(uri, cut="D.g1.s1.a1")
        assert {"new": 1, "updated": 0, "same": 2}.items() <= export().items()
        assert first["D.g1.s3.a1"][0]["status"] == "RUNNING" and not first["D.g1.s3.a1"][0]["params"]
        finish(campaign, 3)
        assert {"new": 0, "updated": 1, "same": 2}.items() <= export("--artifacts").items()
        found = read(uri)
        assert {name: len(runs) for name, runs in found.items()} == dict.fromkeys(first, 1)
        assert found["D.g1.s2.a1"][0]["status"] == "FAILED"
        for name in ("D.g1.s1.a1", "D.g1.s3.a1"):
            (run,) = found[name]
            assert run["id"] == first[name][0]["id"] and run["name"] == name and run["status"] == "FINISHED"
            assert run["params"] == {"RATE": "0.1", "STEPS": "2", "ODD_NAME": "[1]"}
            assert sorted(
                (key, step, value)
                for key in ("train_loss", "val_loss", "val_bpb")
                for step, value in run["history"][key]
            ) == sorted((key, step, value) for key, step, _, value in CURVE)
            assert run["history"]["score"] == [[0, 1.9]]
            assert run["took"] == 2500 and run["tags"]["golfctl.owner"] == "D"
            assert set(run["files"]) == {rundir.LOG, "deep", "deep/weights.bin"}


@pytest.mark.service
def test_unreachable_store_is_one_line(campaign: Campaign) -> None:
    """No traceback, no password, exit code 3."""
    pytest.importorskip("mlflow")
    done = golfctl(
        campaign.root, "export", "--to", "mlflow", "-o", "http://me:secret@127.0.0.1:9", expect=3,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )  # fmt: skip
    assert done.stderr.count("\n") == 1 and "secret" not in done.stderr and "127.0.0.1:9" in done.stderr
