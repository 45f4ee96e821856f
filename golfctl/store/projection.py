"""What a plan's artifact will weigh, before anything is trained: measured bytes of its parent, plus what it changes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from golfctl import stats
from golfctl.domain.run import Outcome, RunRecord
from golfctl.domain.state import State
from golfctl.store import bases, bundle
from golfctl.store.patches import SETTINGS_FILE
from golfctl.store.tensors import TABLE, WEIGHT, Models, Tensor, describes, trained_alike
from golfctl.store.tree import Tree

if TYPE_CHECKING:
    from golfctl.domain.plan import Plan, ResolvedPlan
    from golfctl.store.campaign import Campaign

MB = 1e6
SLACK_BITS = 0.4
"""Bits a value the codec saves on trained weights, where no run without n-gram tables shows it (benchmarks/projection.py)."""
TOLERANCE_BITS = 0.25
"""Doubt about the coded size of each weight that changes: wider than any miss of benchmarks/projection.py."""
TRAINING_BITS = 0.15
"""The same for each weight that stays and is trained in another way: another rate, decay or code leaves other values."""


@dataclass(frozen=True)
class Span:
    """Bytes: the best guess, and an interval around it."""

    point: float
    low: float
    high: float

    def plus(self, point: float, low: float | None = None, high: float | None = None) -> Span:
        """This span moved by a number, or by another span."""
        return Span(
            self.point + point,
            self.low + (point if low is None else low),
            self.high + (point if high is None else high),
        )


@dataclass(frozen=True)
class Known:
    """A model that was trained: its tensors, and the bytes of its packed weights in each finished run."""

    tensors: Mapping[str, Tensor]
    model_bytes: Sequence[int]


def project(nearest: Known, others: Sequence[Known], after: Mapping[str, Tensor], alike: bool = True) -> Span:
    """Bytes of packed weights of a model with the tensors `after`, from runs of one with other tensors. Pure.

    alike: both are trained the same way, by the same code with the same rates.

    What stays the same weighs what was measured. A weight that changes weighs its bits less the codec's slack, which is learnt
    from runs without tables. Tables compress by how many rows training touches: without a run that has them, anything up to
    their full size is possible.
    """
    slack = _slack([nearest, *others])
    before = nearest.tensors
    gone = [item for name, item in before.items() if after.get(name) != item]
    come = [item for name, item in after.items() if before.get(name) != item]
    measured = stats.summarise([float(value) for value in nearest.model_bytes])
    # Seeds differ; the spread of one or two of them is hardly known, so it is at least a tenth of a percent.
    spread = max(2 * (measured.sd or 0.0), measured.mean / 1000)
    doubt = TOLERANCE_BITS / 8 * max(_values(gone), _values(come)) + spread
    if not alike:
        doubt += TRAINING_BITS / 8 * _values([item for name, item in before.items() if after.get(name) == item])
    change = sum(_coded(item, slack) for item in come) - sum(_coded(item, slack) for item in gone)
    span = Span(measured.mean, measured.mean, measured.mean).plus(change, change - doubt, change + doubt)
    rest = measured.mean - sum(_coded(item, slack) for item in before.values())
    span = _with_tables(span, gone, come, max(0.0, rest))
    return Span(*(max(0.0, value) for value in (span.point, span.low, span.high)))


def _with_tables(span: Span, gone: Sequence[Tensor], come: Sequence[Tensor], coded: float) -> Span:
    """The span with tables taken out and put in. coded: what the former ones weighed."""
    old = next((item for item in gone if item.kind == TABLE), None)
    new = next((item for item in come if item.kind == TABLE), None)
    if old is not None:
        span = span.plus(-coded)
    if new is not None and old is None:
        span = span.plus(_full(new) / 2, 0.0, _full(new))
    elif new is not None and old is not None:
        point = coded * _full(new) / _full(old)
        span = span.plus(point, min(coded, point), max(_full(new), point))
    return span


def _full(table: Tensor) -> float:
    return table.values * table.bits / 8 + table.scale_bytes


def _values(items: Sequence[Tensor]) -> int:
    return sum(item.values for item in items if item.kind == WEIGHT)


def _coded(item: Tensor, slack: float) -> float:
    """Bytes of a weight or vector after the codec; tables are dealt with apart."""
    return 0.0 if item.kind == TABLE else item.coded(slack) + item.scale_bytes


def _slack(known: Sequence[Known]) -> float:
    """Bits a value that the codec saves on weights whose bits it has not shown yet."""
    least = SLACK_BITS
    for item in known:
        tensors = list(item.tensors.values())
        if free := _values([tensor for tensor in tensors if not tensor.known]):
            mean = stats.summarise([float(value) for value in item.model_bytes]).mean
            saved = (sum(_coded(tensor, 0.0) for tensor in tensors) - mean) * 8 / free
            if all(tensor.kind != TABLE for tensor in tensors):
                return saved
            least = max(least, saved)  # tables weigh something, too
    return least


# --- of a campaign's plans -----------------------------------------------------------------------------------------------
def byte_notes(
    campaign: Campaign, plans: Mapping[str, Plan], resolved: Mapping[str, ResolvedPlan], state: State
) -> list[str]:
    """A line for each plan whose size is not measured yet and can be told. Raises InputError as bundles do."""
    shelf, found = _Shelf(campaign, _measured(state), Models(campaign.state_folder / "tensors.json")), []
    for plan in resolved.values():
        if plan.bundle == plan.parent_bundle or plan.bundle in shelf.measured:
            continue
        side, sha = plan.parent, plan.parent_bundle
        if sha not in shelf.measured:
            side, sha = plan.base, plan.base_bundle
        if sha in shelf.measured:
            found.append(f"{plan.id}: {_told(shelf, plans, plan, side, sha)}")
    return found


def _measured(state: State) -> dict[str, list[RunRecord]]:
    """Bundle to its completed runs with a size, those of the highest gate."""
    found: dict[str, list[RunRecord]] = {}
    for run in state.runs.values():
        if run.outcome is Outcome.COMPLETED and run.result and run.result.model_bytes and run.result.artifact_bytes:
            found.setdefault(run.spec.bundle, []).append(run)
    return {sha: [run for run in runs if run.spec.gate == _last(runs)] for sha, runs in found.items()}


def _last(runs: Sequence[RunRecord]) -> int:
    return max(run.spec.gate for run in runs)


@dataclass(frozen=True)
class _Shelf:
    """Bundles of a campaign, each unpacked once, and the runs that measured them."""

    campaign: Campaign
    measured: Mapping[str, Sequence[RunRecord]]
    models: Models
    trees: dict[str, Tree] = field(default_factory=dict)

    def tree(self, sha: str) -> Tree:
        """The files of a bundle. Raises InputError as bundles do."""
        if sha not in self.trees:
            self.trees[sha] = bundle.tree_of(self.campaign, sha)
        return self.trees[sha]

    def settings(self, sha: str) -> dict[str, str]:
        """The settings frozen in a bundle."""
        content = json.loads(self.tree(sha).files[SETTINGS_FILE].content)
        return {str(name): str(value) for name, value in content.items()}

    def model(self, plan: ResolvedPlan, sha: str, number: int) -> dict[str, Tensor]:
        """The tensors of a bundle as a gate of the plan trains them: the gate's own settings win."""
        own = next((gate.env for gate in plan.gates if gate.number == number), {})
        return self.models.tensors({**self.settings(sha), **own})

    def known(self, plan: ResolvedPlan, sha: str) -> Known:
        """A measured bundle: its tensors and weights."""
        runs = self.measured[sha]
        weights = [run.result.model_bytes for run in runs if run.result and run.result.model_bytes]
        return Known(self.model(plan, sha, _last(runs)), weights)

    def alike(self, before: str, after: str) -> bool:
        """Whether two bundles train the same way: the same code, and settings that differ in sizes alone."""
        old, new = ({**self.tree(sha).files, SETTINGS_FILE: None} for sha in (before, after))
        return old == new and trained_alike(self.settings(before), self.settings(after))


def _told(shelf: _Shelf, plans: Mapping[str, Plan], plan: ResolvedPlan, side: str, sha: str) -> str:
    """What is to be said of one plan. sha: the measured bundle that is nearest, side: whose it is."""
    base, runs = bases.load(shelf.campaign, plan.base), shelf.measured[sha]
    artifact = [float(run.result.artifact_bytes) for run in runs if run.result and run.result.artifact_bytes]
    now = stats.summarise(artifact)
    where = f"{side} at gate {_last(runs)}: {now.mean / MB:.2f} MB, n {now.n}"
    shas = {plan.bundle, sha, plan.base_bundle}
    if base.kind == "trainer" and all(describes(shelf.tree(item)) for item in shas):
        others = [shelf.known(plan, plan.base_bundle)] if plan.base_bundle in shelf.measured else []
        after = shelf.model(plan, plan.bundle, _last(runs))
        span = project(shelf.known(plan, sha), others, after, shelf.alike(sha, plan.bundle))
        span, how = span.plus(bundle.code_bytes_of(shelf.campaign, plan.bundle, base)), "from its settings and"
    else:
        above = plan.stack[plan.stack.index(side) + 1 :] if side in plan.stack else plan.stack
        expected = [plans[name].expect.get("bytes") for name in above]
        if silent := [name for name, item in zip(above, expected, strict=True) if item is None]:
            return f"its bytes can't be told: {', '.join(silent)} says no expect.bytes ({where})"
        spread = 2 * (now.sd or 0.0)
        low, high = sum(item[0] for item in expected if item), sum(item[1] for item in expected if item)
        span = Span(now.mean, now.mean - spread, now.mean + spread).plus((low + high) / 2, low, high)
        how = "from the plan's own expect.bytes and"
    return f"{_verdict(span, now.mean, shelf.campaign.rules.artifact_cap_bytes)} ({how} {where})"


def _verdict(span: Span, before: float, cap: int) -> str:
    """`projected 15.62 MB +- 0.08 (-1.50), cap 16.00`."""
    change = f"{(span.point - before) / MB:+.2f}"
    half = max(span.high - span.point, span.point - span.low)
    even = abs((span.high - span.point) - (span.point - span.low)) < 0.01 * MB
    around = f"+- {max(half / MB, 0.01):.2f}" if even else f"between {span.low / MB:.2f} and {span.high / MB:.2f}"
    said = f"projected {span.point / MB:.2f} MB {around} ({change}), cap {cap / MB:.2f}"
    if span.low > cap:
        return f"it cannot fit: {said}"
    return f"it may not fit: {said}" if span.high > cap else said
