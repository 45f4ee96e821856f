"""From a plan to a folder: written beside its place, audited, scored again from itself alone, and only then renamed.

gather -> stage (script, logs, artifacts, texts) -> audit (A, S), probes (R1-R4), clean room (R5) -> audit.md -> rename to DIR
                                                    a FAIL, or an error                        -> rename to DIR.failed, exit 1
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from golfctl.audit import again, cleanroom, every, probes, words
from golfctl.audit.contest import Contest
from golfctl.audit.result import Answer, Audit, Check
from golfctl.audit.target import of_campaign, of_record
from golfctl.domain import rundir
from golfctl.domain.gate import Answer as Gated
from golfctl.errors import InputError
from golfctl.hostside.files import one_line
from golfctl.store import bundle
from golfctl.store.campaign import Campaign
from golfctl.store.ledger import now
from golfctl.store.status import open_state
from golfctl.submit import texts
from golfctl.submit.mask import Mask
from golfctl.submit.material import Material, Scored, gather

SCRIPT = "train_gpt.py"
FAILED = ".failed"
EXPORT_SECONDS = 600
PROBED = probes.Limits(tokens=1024)
"""How much of the text is changed to see whether the model looks ahead."""
CODE_FORMS = {"compressed": ["--compress"], "plain": [], "readable": ["--readable"]}


@dataclass(frozen=True)
class Ask:
    """What is wanted. data: folder with validation data, None: where the runs had theirs. seeds: how many are scored again."""

    author: str
    github_id: str
    form: str = "compressed"
    data: Path | None = None
    seeds: int | None = 1
    python: str = sys.executable
    limits: cleanroom.Limits = field(default_factory=cleanroom.Limits)
    standing: float | None = None


@dataclass(frozen=True)
class Made:
    """What came of it. folder: DIR, or DIR.failed. questions: what a reviewer will ask."""

    folder: Path
    audit: Audit
    questions: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether a check said FAIL."""
        return self.audit.answer is Answer.FAIL


def make(campaign: Campaign, plan: str, folder: Path, contest: Contest, ask: Ask) -> Made:
    """Make the folder. Raises InputError: it is there and not empty, or there is nothing to submit or no way to export it."""
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there and not empty; nothing is overwritten")
    if not folder.parent.is_dir():
        raise InputError(f"{folder.parent}: no such folder")
    material = gather(campaign, plan)
    stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _fill(material, stage, ask)
        found = _checked(material, stage, contest, ask)
        (stage / "audit.md").write_text(Mask(campaign)(words.markdown([found])), encoding="utf-8")
        stage.chmod(0o755)
        failed = found.answer is Answer.FAIL
        place = _free(folder) if failed else folder
        stage.replace(place)  # onto an empty folder, or none
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    return Made(place, found, tuple(_questions(material, found, contest)))


def _free(folder: Path) -> Path:
    """DIR.failed, or with the first number that is not taken."""
    number = 1
    while (place := folder.with_name(f"{folder.name}{FAILED}{number if number > 1 else ''}")).exists():
        number += 1
    return place


# --- the files -----------------------------------------------------------------------------------------------------------
def _fill(material: Material, stage: Path, ask: Ask) -> None:
    mask, seeds = Mask(material.campaign), material.seeds
    script = _script(material, ask.form)
    (stage / SCRIPT).write_bytes(script)
    sizes = {item.seed: item.result.model_bytes for item in seeds if item.result.model_bytes is not None}
    for item in seeds:
        log = (item.folder / rundir.LOG).read_text(encoding="utf-8", errors="replace")
        (stage / f"train_seed{item.seed}.log").write_text(mask(log), encoding="utf-8")
        if len(script) + sizes.get(item.seed, 0) <= material.campaign.rules.artifact_cap_bytes:
            for name, path in _artifacts(material, item).items():
                shutil.copyfile(path, stage / name)
    alone = again.scores_alone(script)
    said = texts.submission(material, ask.author, ask.github_id, now()[:10], sizes, len(script))
    pages = {
        "README.md": texts.readme(material, sizes, len(script), alone),
        "research_log.md": texts.research_log(material),
        "submission.json": texts.as_json(said),
        "requirements.txt": texts.requirements(script, seeds[0].result.environment),
    }
    for name, text in pages.items():
        (stage / name).write_text(mask(text), encoding="utf-8")


def _artifacts(material: Material, item: Scored) -> dict[str, Path]:
    """Name in the folder to file of a run, for what of its model was kept here."""
    found = {path for pattern in material.base.artifact for path in item.folder.glob(pattern) if path.is_file()}
    return {
        texts.artifact_name(item.seed) if path.name == rundir.ARTIFACT else f"seed{item.seed}_{path.name}": path
        for path in sorted(found)
    }


def _script(material: Material, form: str) -> bytes:
    """The one file that ships: the bundle's trainer with the settings of the runs, or a foreign base's own script."""
    campaign, sha = material.campaign, material.seeds[0].run.spec.bundle
    if material.base.kind != "trainer":
        tree = bundle.tree_of(campaign, sha)
        paths = tree.matching(material.base.code)
        if len(paths) != 1:
            raise InputError(f"base {material.base.name}: {len(paths)} files of code; a submission is one script")
        return tree.files[paths[0]].content
    with again.code_of(campaign, sha) as folder:
        settings = {name: value for name, value in material.settings.items() if name not in {"SEED", "OUT_DIR"}}
        (folder / "submitted.json").write_text(json.dumps(settings), encoding="utf-8")
        line = [sys.executable, "-m", "trainer.pack", "made.py", "--settings", "submitted.json", *CODE_FORMS[form]]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        try:
            done = subprocess.run(
                line, cwd=folder, env=kept, capture_output=True, text=True, check=False, timeout=EXPORT_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"the one-file export took longer than {EXPORT_SECONDS} s") from None
        if done.returncode or not (folder / "made.py").is_file():
            said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise InputError(f"bundle {sha[:12]}: its trainer can't be exported as one file ({one_line(said)})")
        return (folder / "made.py").read_bytes()


# --- the checks ----------------------------------------------------------------------------------------------------------
def _checked(material: Material, stage: Path, contest: Contest, ask: Ask) -> Audit:
    """All checks on the folder as it lies there, the probes of an artifact of its runs, and the clean room."""
    target = replace(of_record(stage), name=material.plan.id)
    found = every.audit(target, contest, standing=ask.standing)
    source = str(ask.data.resolve()) if ask.data is not None else _data_of(material)
    return replace(found, checks=(*found.checks, *_probes(material, source), _rerun(material, stage, ask, source)))


def _probes(material: Material, source: str | None) -> tuple[Check, ...]:
    """source: folder with the validation data, "" for the embedded text, None where it is not here."""
    if source is None:
        return probes.checks("its validation data are not on this machine; --data DIR says where they are", SCRIPT)
    runs = of_campaign(material.campaign, open_state(material.campaign), material.plan.id)
    return probes.of_runs(runs, material.campaign, Path(source) if source else None, PROBED)


def _rerun(material: Material, stage: Path, ask: Ask, source: str | None) -> Check:
    if source is None:
        return cleanroom.check({SCRIPT: "its validation data are not on this machine; --data DIR says where they are"})
    if not again.scores_alone((stage / SCRIPT).read_bytes()):
        return cleanroom.check({SCRIPT: f"it takes no {again.SCORE} ARTIFACT"})
    target = of_record(stage)
    how = {"hidden": again.away(material.campaign, source), "limits": ask.limits, "python": ask.python}
    with again.validation(source, again.tokenizer_of(target)) as data:
        return again.record(target, stage, data, how, ask.seeds)


def _data_of(material: Material) -> str | None:
    """DATA_PATH of the runs where it is a folder here; "" for the embedded corpus; None where it is elsewhere."""
    spec = material.seeds[0].run.spec
    host = material.campaign.hosts.get(spec.host)
    path = spec.env.get(material.base.vars["data"], "").replace("{data}", host.data if host else "")
    if not path:
        return ""
    return path if Path(path).is_dir() else None


def _questions(material: Material, found: Audit, contest: Contest) -> Iterator[str]:
    """What a reviewer will ask, worst first."""
    verdict, wanted = material.verdict, max(contest.limits.seeds, 1)
    if verdict.answer is not Gated.PASS:
        yield f"gate {verdict.gate} said {verdict.answer}: {verdict.reason}"
    if not material.last_gate:
        yield f"the last gate has not judged it; this is gate {verdict.gate}"
    if len(material.seeds) < max(wanted, 2):
        yield f"{len(material.seeds)} seed{'s' if len(material.seeds) > 1 else ''}; a spread needs more"
    if material.self_reported:
        yield "the score is self-reported: nothing of ours scored the artifact"
    for run in material.others:
        yield f"seed {run.spec.seed} is not counted: {run.ending} {run.reason or run.excused}".strip()
    for row in material.plan.row.gates:
        if row.waived:
            yield f"gate {row.number} was waived: {row.waived}"
    numbers = verdict.numbers
    for name, value in (numbers.get("margin_readings_bpb") or {}).items():
        gain = numbers["parent"]["mean"] - material.sample.mean if numbers.get("parent") else None
        reached = "" if gain is None else f"; the gain is {gain:.4f}: {'reached' if gain >= value else 'not reached'}"
        yield f"the record margin read {name.replace('_', ' ')} is {value:.4f} bpb{reached}"
    for check in found.checks:
        if check.answer is Answer.WARN or (check.id in {"R1", "R5"} and check.answer is Answer.NOT_CHECKABLE):
            worst = next(item for item in check.evidence if item.answer is check.answer)
            yield f"{check.id} {check.title}: {worst.text}"
