"""What a submission is made from: a plan's last verdict, the runs it rests on, and everything that was tried on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from golfctl import stats
from golfctl.domain import rundir
from golfctl.domain.run import Outcome, RunRecord, RunResult
from golfctl.domain.verdict import Verdict
from golfctl.errors import InputError
from golfctl.report.build import report_of
from golfctl.report.model import PlanReport, Report
from golfctl.store import bases
from golfctl.store.bases import Base
from golfctl.store.marks import did_you_mean
from golfctl.store.status import open_state

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign


@dataclass(frozen=True)
class Scored:
    """A run that counts. folder: where its files lie here."""

    run: RunRecord
    result: RunResult
    folder: Path

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.run.spec.seed

    @property
    def bpb(self) -> float:
        """Its score."""
        assert self.result.score is not None, self.run.spec.name
        return self.result.score


@dataclass(frozen=True)
class Material:
    """A plan at its last verdict. seeds: the runs its score is the mean of, by seed. others: started for it and not counted."""

    campaign: Campaign
    plan: PlanReport
    report: Report
    base: Base
    verdict: Verdict
    last_gate: bool
    seeds: tuple[Scored, ...]
    others: tuple[RunRecord, ...]

    @property
    def sample(self) -> stats.Sample:
        """Mean and sample sd of the score, bpb."""
        return stats.summarise([item.bpb for item in self.seeds])

    @property
    def settings(self) -> Mapping[str, object]:
        """All settings of the runs, resolved, as the first of them states them."""
        return self.seeds[0].result.settings

    @property
    def self_reported(self) -> bool:
        """Whether nothing of ours scored its artifacts."""
        return any(item.result.self_reported for item in self.seeds)


def gather(campaign: Campaign, name: str) -> Material:
    """The material of a plan. Raises InputError: unknown, not judged yet, no score, or files of its runs that are not here."""
    state = open_state(campaign)
    revision = state.revision(name)
    if revision is None:
        raise InputError(f"{name}: no such plan has run here{did_you_mean(name, sorted(state.revisions))}")
    judged = [key for key in state.verdicts if key[:2] == (name, revision.number)]
    if not judged:
        raise InputError(f"{name}: no gate has judged it yet; `golfctl plan next {name}` says what is due")
    verdict = state.verdicts[max(judged)]
    runs = [state.runs[run] for run in verdict.runs]
    seeds = []
    for run in sorted(runs, key=lambda run: (run.spec.seed, run.spec.attempt)):
        folder = campaign.runs_folder / run.spec.name
        if run.outcome is Outcome.COMPLETED and run.result is not None and run.scored and not run.excused:
            if not (folder / rundir.LOG).is_file():
                raise InputError(f"{campaign.relative(folder)}: its log is not here; `golfctl runs fetch` brings it")
            seeds.append(Scored(run, run.result, folder))
    if not seeds:
        raise InputError(f"{name}: none of the runs of gate {verdict.gate} has a score; there is nothing to submit")
    report = report_of(campaign)
    plan = next(item for item in report.plans if item.id == name)
    counted = {item.run.spec.name for item in seeds}
    return Material(
        campaign=campaign,
        plan=plan,
        report=report,
        base=bases.load(campaign, str(revision.frozen.get("base") or plan.base)),
        verdict=verdict,
        last_gate=verdict.gate == max(gate["number"] for gate in revision.frozen["gates"]),
        seeds=tuple(seeds),
        others=tuple(
            run
            for run in map(report.runs.__getitem__, plan.runs)
            if run.spec.gate == verdict.gate and run.spec.name not in counted
        ),
    )
