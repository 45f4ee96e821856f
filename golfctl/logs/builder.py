"""Puts the runs of a file together from its lines: where one ends and the next begins, what is said twice."""

from __future__ import annotations

import math
from dataclasses import fields

from golfctl.logs import numbers
from golfctl.logs.damage import grown
from golfctl.logs.endings import Signs, outcome
from golfctl.logs.grammar import Reading
from golfctl.logs.headline import choose
from golfctl.logs.record import Eval, RunLog

MAX_WARNINGS = 50
"""Warnings kept of one run; the rest is counted."""
_NAN = math.nan
MOST_RUNS = 1000
LONGEST_SUMMARY, MOST_SAID, MOST_COMPARED = 5000, 1000, 50
FEW = 3
"""So many lines with equal digits after the point make a format."""


class _Run:
    """A run under construction."""

    def __init__(self) -> None:
        self.log, self.signs = RunLog(), Signs()
        self.said: set[str] = set()
        self.scored: dict[str, Eval] = {}
        self.restarted = False
        self.total: tuple[int, int] | None = None
        self.timed_step: int | None = None
        self.negative = False
        self.last_line = 0
        self.more_warnings = 0

    def warn(self, text: str) -> None:
        if len(self.log.warnings) < MAX_WARNINGS:
            self.log.warnings.append(text)
        else:
            self.more_warnings += 1


class Builder:
    """Takes what lines say, in order; `finish` gives the runs. One builder for each name that lines are marked with.

    open_end: the line at hand may have been cut at its end.
    """

    def __init__(self, label: str | None = None) -> None:
        self._label = label
        self._runs: list[_Run] = []
        self.open_end = False
        self._formats: dict[tuple[str, str], tuple[int, int]] = {}

    @property
    def run(self) -> _Run:
        if not self._runs:
            self._runs.append(_Run())
        return self._runs[-1]

    # -- what lines say

    def header(self, line: int) -> None:
        """A program started here."""
        if not self.run.log.empty:
            self._begin(line)
        self.run.restarted = bool(self.run.said)

    def fact(self, name: str, value: float | None, line: int, text: str = "") -> None:
        """A number that describes the run. text: the whole line; said again after progress, it is another run's."""
        if value is None:
            self.damaged(line, text or name)
            return
        if text and text in self.run.said and (self.run.restarted or not self.run.log.empty):
            self._begin(line)
        run = self.run
        if text and len(run.said) < MOST_SAID:
            run.said.add(text)
        known = getattr(run.log, name)
        if known is None:
            self._set(name, value, line)
        elif known != value:
            run.warn(f"line {line}: {name} is {value:g} here and {known:g} in line {run.log.lines[name]}, which counts")

    def progress(self, line: int, reading: Reading) -> None:
        """A training or validation line."""
        run = self._at(reading.step, line)
        log, values = run.log, dict(reading.values)
        for text in reading.damaged:
            run.warn(f"line {line}: {text!r} is damaged and left out")
        for meaning, text in reading.texts.items():
            if not self._usual(reading, meaning, text):
                run.warn(f"line {line}: {meaning} {text} has not the usual digits and is left out")
                values.pop(meaning)
        log.family = log.family or reading.family
        if values.get("train_loss", 0) < 0 and not run.negative:
            run.negative = True
            run.warn(f"line {line}: the training loss is negative here")
        self._latest(run, line, reading.step, values.get("ms"), values.get("avg_ms"), reading.steps)
        ms = values.get("ms", _NAN)
        if "train_loss" in values:
            log.train.add(reading.step, line, values["train_loss"], _NAN, ms)
        if "val_loss" in values or "val_bpb" in values:
            log.val.add(reading.step, line, values.get("val_loss", _NAN), values.get("val_bpb", _NAN), ms)

    def many(self, first: Reading, lines: list[int], columns: dict[str, list[float]], steps: list[int]) -> None:
        """Lines of one form whose steps rise. columns by meaning, times in the unit they are printed in."""
        run = self._at(steps[0], lines[0])
        run.log.family = run.log.family or first.family
        count = len(steps)
        nothing = [_NAN] * count
        ms = columns.get("ms", nothing)
        if "train_loss" in columns:
            run.log.train.extend(steps, lines, columns["train_loss"], nothing, ms)
        if "val_loss" in columns or "val_bpb" in columns:
            run.log.val.extend(steps, lines, columns.get("val_loss", nothing), columns.get("val_bpb", nothing), ms)
        last_ms = columns["ms"][-1] if "ms" in columns else None
        last_avg = columns["avg_ms"][-1] if "avg_ms" in columns else None
        self._latest(run, lines[-1], steps[-1], last_ms, last_avg, first.steps)

    def evaluation(self, found: Eval) -> None:
        """A named evaluation line."""
        known = self.run.scored.get(found.label)
        if known and (known.val_loss, known.val_bpb) == (found.val_loss, found.val_bpb):
            return
        self.run.scored[found.label] = found
        self.run.log.evals.append(found)
        self.run.last_line = found.line

    def size(self, field: str, size: int | None, line: int, codec: str | None = None) -> None:
        """Bytes of `raw`, `model`, `code` or `total`."""
        if size is None:
            self.damaged(line, f"{field} size")
            return
        run = self.run
        run.last_line = line
        if field == "total":
            run.total = (size, line)
            run.log.total_bytes = size
            if codec and run.log.codec and (grown(run.log.codec, codec) or grown(codec, run.log.codec)):
                run.warn(f"line {line}: codec {codec!r} here, {run.log.codec!r} in line {run.log.lines['codec']}")
        else:
            self._set({"raw": "raw_model_bytes", "model": "model_bytes", "code": "code_bytes"}[field], size, line)
        if field == "model" and codec:
            run.log.codec, run.log.lines["codec"] = codec, line

    def rounded_artifact(self, codec: str, megabytes: float | None, line: int) -> None:
        """A size in megabytes of two digits: no number of bytes."""
        log = self.run.log
        log.codec, log.lines["codec"] = codec, line
        if megabytes is not None:
            self._set("artifact_mb_rounded", megabytes, line)

    def stopped(self, ms: float | None, step: int | None, line: int) -> None:
        """The script stopped itself before its planned steps."""
        if ms is not None:
            self._set("train_time_ms", ms, line)
        self.run.log.stopped_early = True
        self.run.log.lines["stopped_early"] = line
        if step is not None and self.run.log.steps_done is None:
            self._set("steps_done", step, line)
        self.run.timed_step = self.run.log.steps_done

    def footer(self, key: str, value: str, line: int) -> None:
        """A line of a closing summary (`val_bpb:   1.1228`); it counts where nothing better is said."""
        number = numbers.real(value)
        if number is None:
            self.damaged(line, f"{key}: {value}")
            return
        log = self.run.log
        if key == "val_bpb" and not log.evals:
            self.evaluation(Eval(key, _NAN, number, None, numbers.places(value), line))
        elif key == "peak_vram_mb" and log.peak_mem_mib is None:
            self._set("peak_mem_mib", number, line)
        elif key == "num_steps" and log.steps_done is None:
            self._set("steps_done", int(number), line)
        elif key == "training_seconds" and log.train_time_ms is None:
            self._set("train_time_ms", number * 1000, line)

    def damaged(self, line: int, text: str) -> None:
        """A line that has the form of something but not its numbers."""
        self.run.warn(f"line {line}: can't be read and is left out: {text.strip()[:80]!r}")

    def odd(self, line: int, text: str) -> None:
        """A line that was read, and yet looks as if something had been written into it or cut off."""
        self.run.warn(f"line {line}: has not the form of its like, perhaps damaged: {text.strip()[:80]!r}")

    def sign(self, kind: str, line: int) -> None:
        """Something that tells how the run ended, unless it went on."""
        self.run.signs.add(kind, line)

    # -- bookkeeping

    def _begin(self, line: int) -> None:
        """Another run, while there is room: nobody wrote thousands into one file."""
        if len(self._runs) < MOST_RUNS:
            self._runs.append(_Run())
        else:
            self.run.warn(f"line {line}: more than {MOST_RUNS} runs in one file: the rest is read as one")

    def _set(self, name: str, value: float, line: int) -> None:
        log = self.run.log
        setattr(log, name, value)
        log.lines[name] = line
        self.run.last_line = max(self.run.last_line, line)

    def _at(self, step: int, line: int) -> _Run:
        """The run a step belongs to: one that begins anew is another run."""
        run = self.run
        done = run.log.steps_done
        if done is not None and step < done:
            if step <= 1 < done:
                self._begin(line)
            else:
                run.warn(f"line {line}: goes on at step {step} after step {done}: resumed?")
        return self.run

    def _latest(
        self, run: _Run, line: int, step: int, ms: float | None, average: float | None, steps: int | None
    ) -> None:
        log, lines = run.log, run.log.lines
        run.last_line = line
        log.steps_done, lines["steps_done"] = step, line
        if ms is not None and not log.stopped_early:
            log.train_time_ms, lines["train_time_ms"] = ms, line
            run.timed_step = step
        if average is not None and not math.isnan(average):
            log.step_avg_printed, lines["step_avg_ms"] = average, line
        if steps is not None and log.iterations_planned is None:
            log.iterations_planned, lines["iterations_planned"] = steps, line

    def _usual(self, reading: Reading, meaning: str, text: str) -> bool:
        """Whether a number has the digits after the point that its kind has shown so far.

        At an end that may be cut a number counts only if a like one says how many digits it must have.
        """
        if not text[0].isdigit():
            return True
        digits = numbers.places(text)
        usual, seen = self._formats.get((reading.family, meaning), (digits, 0))
        if self.open_end and reading.at_end == meaning:
            pair = reading.texts.get({"val_bpb": "val_loss"}.get(meaning, ""), "")
            return (seen > 0 and digits == usual) or (bool(pair) and numbers.places(pair) == digits)
        if digits == usual:
            self._formats[(reading.family, meaning)] = (usual, seen + 1)
            return True
        if seen < FEW:
            self._formats[(reading.family, meaning)] = (digits, 1)
            return True
        return usual > 8

    # -- the end

    def finish(self, cut: bool) -> list[tuple[int, RunLog]]:
        """(last line, run) of each run that says anything. cut: the file ends in the middle of a line."""
        found = []
        kept: list[_Run] = []
        for run in self._runs:
            if not (run.log.empty and not run.said) and not (
                kept and not run.said and _reprints(run.log, kept[-1].log)
            ):
                kept.append(run)
        self._runs = kept
        for index, run in enumerate(kept):
            self._derive(run, cut and index == len(self._runs) - 1)
            found.append((run.last_line, run.log))
        return found

    def _derive(self, run: _Run, cut: bool) -> None:
        log, lines = run.log, run.log.lines
        if log.code_bytes is not None and log.model_bytes is not None:
            log.artifact_bytes, lines["artifact_bytes"] = log.code_bytes + log.model_bytes, lines["model_bytes"]
            if run.total and run.total[0] != log.artifact_bytes:
                run.warn(f"line {run.total[1]}: total {run.total[0]:,} is not code + model = {log.artifact_bytes:,}")
        elif run.total and log.model_bytes is not None and run.total[0] >= log.model_bytes:
            log.artifact_bytes, lines["artifact_bytes"] = run.total
            log.code_bytes, lines["code_bytes"] = run.total[0] - log.model_bytes, run.total[1]
        elif run.total:
            log.artifact_bytes, lines["artifact_bytes"] = run.total
            if log.code_bytes is not None:
                log.model_bytes, lines["model_bytes"] = log.artifact_bytes - log.code_bytes, run.total[1]
        if log.val:
            loss, bpb = log.val.loss[-1], log.val.bpb[-1]
            log.prequant_val_loss = None if math.isnan(loss) and not math.isnan(bpb) else loss
            log.prequant_val_bpb = None if math.isnan(bpb) and not math.isnan(loss) else bpb
            lines["prequant_val_loss"] = lines["prequant_val_bpb"] = log.val.line[-1]
        if log.train_time_ms and run.timed_step:
            log.step_avg_derived = log.train_time_ms / run.timed_step
        log.headline, log.headline_reason = choose(log.evals, self._label)
        log.outcome, reason = outcome(log, run.signs, cut)
        if reason:
            run.warn(reason)
        if run.more_warnings:
            log.warnings.append(f"and {run.more_warnings} more warnings")


def _reprints(later: RunLog, run: RunLog) -> bool:
    """Whether a summary at the end repeats lines of the run, and says nothing of its own."""
    if len(later.train) + len(later.val) > LONGEST_SUMMARY:
        return False
    known = {(item.val_loss, item.val_bpb) for item in run.evals}
    said = [set(zip(points.step, points.loss.tolist(), strict=True)) for points in (run.train, run.val)]
    again = [set(zip(points.step, points.loss.tolist(), strict=True)) for points in (later.train, later.val)]
    return (
        again[0] <= said[0]
        and again[1] <= said[1]
        and all((item.val_loss, item.val_bpb) in known for item in later.evals)
    )


def merge_copies(runs: list[RunLog]) -> list[RunLog]:
    """A run that was printed twice stands once, with what either copy says."""
    kept: dict[int, RunLog] = {}
    alike: dict[tuple[int, int, float], list[int]] = {}
    for place, run in enumerate(runs):
        points = run.train or run.val
        same = alike.setdefault((len(run.train), len(run.val), points.loss[-1] if points else 0.0), [])
        twin_at = next((at for at in same[-MOST_COMPARED:] if _twins(kept[at], run)), None)
        kept[place] = run
        same.append(place)
        if twin_at is None:
            continue
        same.remove(twin_at)
        twin = kept.pop(twin_at)
        run.copies = twin.copies + 1
        if twin.outcome in {"crashed", "oom", "killed"}:
            run.outcome = twin.outcome  # a copy of the log behind a traceback does not undo it
        for item in fields(RunLog):
            if getattr(run, item.name) is None and (value := getattr(twin, item.name)) is not None:
                setattr(run, item.name, value)
                run.lines |= {item.name: twin.lines[item.name]} if item.name in twin.lines else {}
    return list(kept.values())


def _twins(one: RunLog, two: RunLog) -> bool:
    if not len(one.train) + len(one.val) or {one.seed, two.seed} - {None, one.seed}:
        return False
    scores = [[(item.label, item.val_loss, item.val_bpb) for item in run.evals] for run in (one, two)]
    return scores[0] == scores[1] and one.train.same_as(two.train) and one.val.same_as(two.val)
