"""Runs into an MLflow tracking store: a sqlite file, a server, a folder. However often it is exported, a run is one run there."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from golfctl.domain.run import Outcome, RunRecord
from golfctl.errors import HostError, InputError
from golfctl.hostside.files import one_line
from golfctl.store.exportruns import CURVES, Exported, listing

RUN, DIGEST, FILES = "golfctl.run", "golfctl.digest", "golfctl.files"
"""Tags: our name of the run, what was exported of it, and a hash of the list of its files that were brought there."""
MOST_METRICS, MOST_PARAMS, MOST_TAGS = 800, 100, 100
"""Of one request: MLflow takes 1,000 things at once."""
LONGEST = 5000
"""Letters of a tag or param; older servers take no more."""
_STATUS: dict[Outcome | None, str] = {Outcome.COMPLETED: "FINISHED", Outcome.ABORTED: "KILLED"}
_ODD = re.compile(r"[^\w\-. /]", re.ASCII)
_SQLITE = (".db", ".sqlite", ".sqlite3")


def address(dest: str) -> str:
    """The tracking address for what a person wrote: as it is, or a file `x.db`, or a folder."""
    if "://" in dest or dest.startswith(("sqlite:", "file:")):
        return dest
    path = Path(dest).expanduser().absolute()
    if path.suffix in _SQLITE:
        return f"sqlite:///{path}"
    return path.as_uri()


def shown(uri: str) -> str:
    """The address without a password."""
    parts = urlsplit(uri)
    return uri.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else uri


class Tracking:
    """An MLflow experiment of the campaign's name. Raises InputError where MLflow is missing, HostError where its store fails."""

    def __init__(self, dest: str, experiment: str) -> None:
        self.uri = address(dest)
        with _quiet(self.uri):
            self._client = _client(self.uri)
            found = self._client.get_experiment_by_name(experiment)
            if found is None:
                id_ = self._client.create_experiment(experiment, artifact_location=_artifacts_of(self.uri))
            elif found.lifecycle_stage == "deleted":
                raise InputError(
                    f"{shown(self.uri)}: its experiment {experiment} was deleted; restore it in MLflow first"
                )
            else:
                id_ = found.experiment_id
            self._experiment: str = id_
            self._known: dict[str, Any] = self._runs()

    def put(self, run: Exported, artifacts: bool) -> str:
        """Bring a run there, or up to date: `new`, `updated` or `same`."""
        spec = run.record.spec
        with _quiet(self.uri):
            known = self._known.get(spec.name)
            has = known.data.tags if known else {}
            done = has.get(DIGEST) == run.digest
            if known is None:
                tags = {RUN: spec.name, "mlflow.source.name": "golfctl", **_tags(run.record)}
                known = self._client.create_run(self._experiment, _ms(run.record), tags, spec.name)
            id_ = known.info.run_id
            files = run.files() if artifacts else []
            if files and has.get(FILES) != (mark := listing(run.folder, files)):
                for path in files:
                    folder = path.parent.relative_to(run.folder).as_posix()
                    self._client.log_artifact(id_, str(path), None if folder == "." else folder)
                self._client.set_tag(id_, FILES, mark)
            if done:
                return "same"
            self._log(id_, run, known)
        return "updated" if DIGEST in has else "new"

    def _log(self, id_: str, run: Exported, known: Any) -> None:
        """Params, metrics and tags that are not there yet; the digest comes last: a run that was cut short is gone on with."""
        from mlflow.entities import Metric, Param, RunTag

        record, has = run.record, known.data
        start, end = _ms(record), _ms(record) + round(1000 * (record.wall_s or 0.0))
        params = {_key(name): value[:LONGEST] for name, value in run.params.items()}
        metrics = [Metric(name, value, end, 0) for name, value in run.figures.items() if has.metrics.get(name) != value]
        there = {name: self._steps(id_, name) for name in CURVES if name in has.metrics}
        metrics += [
            Metric(name, value, start + round(ms or 0.0), step)
            for name, step, ms, value in run.points()
            if step not in there.get(name, ())
        ]
        fresh = [Param(name, value) for name, value in params.items() if name not in has.params]
        tags = [RunTag(name, value) for name, value in _tags(record).items() if has.tags.get(name) != value]
        parts = (_parts(metrics, MOST_METRICS), _parts(fresh, MOST_PARAMS), [tags] if tags else [])
        for some in zip_longest(*parts, fillvalue=()):
            self._client.log_batch(id_, *some)
        if record.finished:
            self._client.set_terminated(id_, _STATUS.get(record.outcome, "FAILED"), end)
        self._client.set_tag(id_, DIGEST, run.digest)

    def _steps(self, id_: str, name: str) -> set[int]:
        return {metric.step for metric in self._client.get_metric_history(id_, name)}

    def _runs(self) -> dict[str, Any]:
        """Our name to the run there. Runs that somebody deleted there are no more; of twins the first counts."""
        found: dict[str, Any] = {}
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs(
                [self._experiment], max_results=1000, order_by=["attributes.start_time ASC"], page_token=token or None
            )
            for run in page:
                found.setdefault(run.data.tags.get(RUN, ""), run)
            token = page.token or None
        return found


def _client(uri: str) -> Any:
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise InputError("--to mlflow: needs MLflow; pip install 'golfctl[mlflow]'") from None
    return MlflowClient(tracking_uri=uri)


@contextlib.contextmanager
def _quiet(uri: str) -> Iterator[None]:
    """MLflow without its telemetry and chatter; what it raises is one line of ours."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    if uri.startswith("file:"):  # MLflow no longer extends this kind of store and asks that it be wished for
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    try:
        yield
    except (InputError, HostError):
        raise
    except Exception as error:  # MLflow raises its own, SQLAlchemy's, requests' and the system's errors alike
        said = one_line(str(error).split("\n", 1)[0]).replace(uri, shown(uri))
        raise HostError(f"{shown(uri)}: {said[:300]}") from error


def _artifacts_of(uri: str) -> str | None:
    """Beside a sqlite file; servers and folders know their own place."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).absolute().parent / "mlartifacts").as_uri()


def _tags(record: RunRecord) -> Mapping[str, str]:
    spec, result = record.spec, record.result
    found = {
        "owner": spec.owner,
        "gate": str(spec.gate),
        "seed": str(spec.seed),
        "attempt": str(spec.attempt),
        "host": spec.host,
        "processes": str(spec.processes),
        "bundle": spec.bundle,
        "outcome": record.ending,
        "reason": record.reason,
        "excused": record.excused,
        "machine": record.machine,
        "data": (result.data if result else None) or "",
        "self_reported": str(result.self_reported).lower() if result else "",
        "warnings": "; ".join(result.warnings) if result else "",
    }
    found |= {f"environment.{_key(name)}": str(value) for name, value in (result.environment if result else {}).items()}
    return {f"golfctl.{name}": value[:LONGEST] for name, value in list(found.items())[: MOST_TAGS - 10] if value}


def _ms(record: RunRecord) -> int:
    """When it was launched, in milliseconds since 1970."""
    return round(1000 * datetime.fromisoformat(record.launched_at).timestamp())


def _key(name: str) -> str:
    return _ODD.sub("_", name)[:250]


def _parts(items: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + most] for start in range(0, len(items), most))
