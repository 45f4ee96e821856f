"""README.md, research_log.md, submission.json and requirements.txt of a submission. Pure: material in, text out."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from shlex import quote
from typing import Any

from golfctl.report import text
from golfctl.report.markdown import block, code, escape, table
from golfctl.report.model import PlanReport, Report
from golfctl.store.notebook import Failure
from golfctl.submit.material import Material, Scored

DIGITS = 8
"""Of a score: as many as the log prints."""


def readme(material: Material, sizes: Mapping[int, int], code_bytes: int, scores_alone: bool) -> str:
    """What a reviewer reads first. sizes: bytes of each seed's model; code_bytes: of the one file that ships."""
    sample, plan = material.sample, material.plan
    spread = f" (sample sd {sample.sd:.6f}, n {sample.n})" if sample.sd is not None else " (one seed)"
    lines = [f"# {escape(plan.row.title or plan.id)}", "", f"**val_bpb {sample.mean:.{DIGITS}f}**{spread}", ""]
    head = ("seed", "val_bpb", "val_loss", "steps", "step_avg", "trained", "evaluated", "model bytes", "total bytes")
    lines += table(head, [_row(item, sizes.get(item.seed), code_bytes) for item in material.seeds])
    lines += ["", *_sizes(material, code_bytes), ""]
    lines += [f"{escape(plan.hypothesis.strip())}", ""] * bool(plan.hypothesis.strip())
    lines += ["## What changed", ""]
    lines += [f"- on base {code(material.base.name)}, compared with {code(plan.row.parent)}"]
    lines += [f"- {code(item)}" for item in plan.diffs] or ["- nothing: these are runs of the base"]
    lines += [
        "",
        "## Verdict",
        "",
        f"Gate {material.verdict.gate}: {material.verdict.answer}. {escape(material.verdict.reason)}",
        "",
    ]
    row = next((row for row in plan.row.gates if row.number == material.verdict.gate), None)
    lines += [f"- {escape(line)}" for line in (text.beside_lines(row) if row else [])]
    lines += ["", "## Run it", "", *block(_commands(material, scores_alone)), ""]
    lines += [
        "Every run that was started for this is in [research_log.md](research_log.md), dropped and failed ones too; "
    ]
    lines += ["[audit.md](audit.md) holds the checks this folder passed.", ""]
    return "\n".join(lines)


def _row(item: Scored, model: int | None, code_bytes: int) -> tuple[str, ...]:
    result = item.result
    return (
        str(item.seed),
        f"{item.bpb:.{DIGITS}f}",
        _number(result.val_loss, f".{DIGITS}f"),
        _number(result.steps, ","),
        _number(result.step_avg_ms, ".1f", " ms"),
        _number(result.train_time_ms and result.train_time_ms / 1000, ".1f", " s"),
        _number(result.eval_time_ms and result.eval_time_ms / 1000, ".1f", " s"),
        _number(model, ","),
        _number(model and model + code_bytes, ","),
    )


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "?" if value is None else f"{value:{form}}{unit}"


def _sizes(material: Material, code_bytes: int) -> list[str]:
    said = [f"Code: {code_bytes:,} bytes, one file, all of it counted."]
    counted = material.seeds[0].result.code_bytes
    if counted is not None and counted != code_bytes:
        said.append(
            f"The runs trained from a folder of {counted:,} bytes, which their logs count; this file is that folder with "
            "the settings of these runs and without what they do not use."
        )
    if material.self_reported:
        said.append("The score is self-reported: it is what the script itself printed.")
    return [" ".join(said)]


def _commands(material: Material, scores_alone: bool) -> list[str]:
    processes = material.seeds[0].run.spec.processes
    start = (
        "python train_gpt.py" if processes == 1 else f"torchrun --standalone --nproc-per-node={processes} train_gpt.py"
    )
    seed = material.seeds[0].seed
    if scores_alone:
        found = [f"{start} SEED={seed} DATA_PATH=data OUT_DIR=out  # train, write the artifact, score it"]
        return [
            *found,
            f"python train_gpt.py --score {artifact_name(seed)} DATA_PATH=data  # the score alone, no training data",
        ]
    spec, variables = material.seeds[0].run.spec, material.base.vars
    given = {name: value for name, value in spec.env.items() if name not in {variables["out"], variables["data"]}}
    return [" ".join([*(f"{name}={quote(value)}" for name, value in sorted(given.items())), start])]


def artifact_name(seed: int) -> str:
    """Of a seed's model in the folder."""
    return f"artifact_seed{seed}.golf"


def submission(
    material: Material, author: str, github_id: str, date: str, sizes: Mapping[int, int], code_bytes: int
) -> dict[str, Any]:
    """submission.json in the field's shape. bytes_total: the one file and the largest model, counted from the disk."""
    losses = [item.result.val_loss for item in material.seeds]
    known = [loss for loss in losses if loss is not None]
    largest = max(sizes.values(), default=None)
    sample = material.sample
    return {
        "author": author,
        "github_id": github_id,
        "name": material.plan.row.title or material.plan.id,
        "blurb": " ".join(material.plan.hypothesis.split()),
        "date": date,
        "val_loss": round(sum(known) / len(known), DIGITS) if len(known) == len(losses) else None,
        "val_bpb": round(sample.mean, DIGITS),
        "val_bpb_std": None if sample.sd is None else round(sample.sd, DIGITS),
        "seeds": [item.seed for item in material.seeds],
        "seed_results": {
            str(item.seed): {
                "val_bpb": round(item.bpb, DIGITS),
                "val_loss": None if item.result.val_loss is None else round(item.result.val_loss, DIGITS),
                "model_bytes": sizes.get(item.seed),
            }
            for item in material.seeds
        },
        "bytes_total": None if largest is None else largest + code_bytes,
        "bytes_code": code_bytes,
        "tokenizer": str(material.settings.get("TOKENIZER", "bytes")),
        "self_reported": material.self_reported,
        "plan": material.plan.id,
        "bundle": material.plan.bundle,
    }


def requirements(script: bytes, environment: Mapping[str, Any]) -> str:
    """What the script imports beside the standard library, with the versions its runs had where they say them."""
    lines = []
    for name in packages(script.decode("utf-8", "replace")):
        version = str(environment.get(name) or "").partition("+")[0]
        lines.append(f"{name}=={version}" if re.fullmatch(r"\d[\w.]*", version) else name)
    return "\n".join(lines) + "\n"


def packages(script: str) -> list[str]:
    """Of its inline metadata (PEP 723), else of its import statements."""
    declared = re.search(r"^# dependencies = (\[.*\])$", script, re.MULTILINE)
    if declared:
        return [str(name) for name in ast.literal_eval(declared[1])]
    try:
        tree = ast.parse(script)
    except (SyntaxError, ValueError):
        return []
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    return sorted({name.partition(".")[0] for name in found} - set(sys.stdlib_module_names))


# --- the research log ----------------------------------------------------------------------------------------------------
def research_log(material: Material) -> str:
    """All that was tried for it: the plan, what it builds on, the base's own runs, and what else the campaign tried."""
    report, stack = material.report, material.plan.stack or (material.plan.id,)
    plans = {plan.id: plan for plan in report.plans}
    lines = [
        "# Research log",
        "",
        "Written by golfctl from its ledger. Every run that was started is listed, whatever became of it.",
        "",
    ]
    for name in reversed(stack):
        lines += _plan(plans[name], report) if name in plans else []
    lines += _base(material)
    others = [plan for plan in report.plans if plan.id not in stack]
    if others:
        lines += ["## What else was tried in this campaign", ""]
        lines += table(
            ("plan", "what", "came to", "runs", "why it failed"),
            [(p.id, p.row.title, p.row.status, str(len(p.runs)), _whys(p.id, report.failures)) for p in others],
        )
        lines += [""]
    return "\n".join(lines)


def _plan(plan: PlanReport, report: Report) -> Iterator[str]:
    yield from (f"## {escape(plan.id)}: {escape(plan.row.title)}", "", f"{escape(plan.row.status)}", "")
    if plan.hypothesis.strip():
        yield from (f"- hypothesis: {escape(' '.join(plan.hypothesis.split()))}",)
    yield f"- changes: {', '.join(map(code, plan.diffs)) or 'none'}; compared with {code(plan.row.parent)}"
    for row in plan.row.gates:
        yield f"- {escape(text.gate_line(row))}"
    for row in plan.row.older:
        yield f"- revision {row.verdict.revision}, {escape(text.gate_line(row))}"
    for failure in report.failures:
        if failure.subject == plan.id:
            yield f"- failure at gate {failure.gate or '?'} ({escape(failure.cause)}): {escape(failure.why or 'nobody said why')}"
    yield ""
    for number, runs in text.runs_by_gate(plan, report).items():
        yield from (f"Gate {number}:", "")
        yield from table(text.SEED_HEAD, [text.seed_row(run) for run in runs])
        yield ""


def _base(material: Material) -> Iterator[str]:
    runs = [run for run in material.report.runs.values() if run.spec.owner == material.base.name]
    if not runs:
        return
    yield from (f"## Base {escape(material.base.name)}", "")
    yield from table(("gate", *text.SEED_HEAD), [(str(run.spec.gate), *text.seed_row(run)) for run in runs])
    yield ""


def _whys(plan: str, failures: Sequence[Failure]) -> str:
    return "; ".join(item.why or "not said" for item in failures if item.subject == plan) or "-"


def as_json(content: Mapping[str, Any]) -> str:
    """As it lies in the folder."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
