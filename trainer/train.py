"""The training loop: batches in, an artifact out. Every number that decides is the same on all ranks."""

from __future__ import annotations

import contextlib
import hashlib
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trainer import artifact, calibrate, contract, opened, schedule
from trainer.config import Config, SettingsError
from trainer.data.dataset import Dataset
from trainer.data.preread import open_loader
from trainer.dist import Group
from trainer.evaluate import sliding
from trainer.evaluate.bpb import Score
from trainer.losses import Losses
from trainer.metrics import Metrics
from trainer.model import backends, depth
from trainer.model.gpt import GPT
from trainer.optim.average import average_of
from trainer.optim.groups import Optimizers
from trainer.options.calibration import calibrates
from trainer.options.schedule import context_phases
from trainer.packing import codecs
from trainer.quant.gptq import Inputs

WARMUP_PASSES = 3
"""Untimed passes before the clock starts when the model is compiled: they trigger every compilation of the run."""


class Diverged(RuntimeError):
    """The loss or a score is no longer a finite number. One line, with the step."""


def check(config: Config, world: int) -> None:
    """Raise SettingsError unless the global batch splits evenly over the ranks and their micro-batches, and the artifact that
    is asked for can be written and stays under the cap."""
    if not codecs.installed(config.codec):
        raise SettingsError(
            f"CODEC={config.codec} needs a package that is not installed here (pip install 'brotli>=1.2')"
        )
    target, code = config.model_bytes_target, contract.code_bytes(contract.code_root())
    if target and target + code > contract.CAP_BYTES:
        raise SettingsError(
            f"MODEL_BYTES_TARGET={target} and {code} bytes of code are over the cap of {contract.CAP_BYTES}; at most "
            f"{contract.CAP_BYTES - code} are left for the artifact"
        )
    parts = world * config.grad_accum_steps
    for length, _ in context_phases(config):
        rows = config.train_batch_tokens // length
        if rows % parts:
            raise SettingsError(
                f"TRAIN_BATCH_TOKENS={config.train_batch_tokens} holds {rows} sequences of {length}; with {world} processes "
                f"it must be a multiple of {parts * length} (processes x GRAD_ACCUM_STEPS x context length)"
            )


@dataclass
class Clock:
    """Seconds of training, without the time spent evaluating. Reads wait for the device first."""

    group: Group
    _spent: float = 0.0
    _since: float | None = field(default=None)

    def start(self) -> None:
        self.group.synchronise()
        self._since = time.perf_counter()

    def stop(self) -> None:
        self._spent = self.read()
        self._since = None

    def read(self) -> float:
        if self._since is None:
            return self._spent
        self.group.synchronise()
        return self._spent + time.perf_counter() - self._since


class Run:
    """One training run in progress: the model, what trains it, and where its lines go."""

    def __init__(self, config: Config, dataset: Dataset, group: Group, metrics: Metrics) -> None:
        check(config, group.world)
        self.config, self.dataset, self.group, self.metrics = config, dataset, group, metrics
        self.model = GPT(config, dataset.vocab_size).to(group.device)
        self.parameters = list(self.model.parameters())
        self.optimizers = Optimizers(self.model, config, group)
        self.average = average_of(self.parameters, config)
        self.phases = context_phases(config)
        self.loaders = {length: open_loader(config, dataset.train, length, dataset.bos) for length, _ in self.phases}
        self.shape = schedule.SHAPES[config.warmdown_shape]
        self.losses = Losses(config, self.model.bos, group)
        self.budget = config.max_wallclock_seconds  # for training; calibration takes its reserve out
        self.pace = 0.0  # seconds of a batch of calibration
        if dataset.bos != self.model.bos and (self.model.look_back_stops or self.losses.extra is not None):
            raise SettingsError(
                f"TOKENIZER={config.tokenizer}: documents of this data open with id {dataset.bos}, not {self.model.bos} as "
                "the alphabet's should; switch off what stops at documents"
            )
        self.backend: backends.Backend | None = None  # for training alone: scores are taken with torch's own attention
        self.attention = ""
        if config.attention_backend != "sdpa":
            self.backend, self.attention = backends.choose(config, group)
        self.clock = Clock(group)
        self.logits: Callable[..., Tensor] = self.model
        self.forwards: dict[bool, Callable[..., Tensor]] = {False: self.model}  # by whether weights are rounded (QAT)
        if config.qat_start < 1.0:
            self.forwards[True] = artifact.as_stored(self.model, config)
        self.traced = 0  # graphs at the end of the warm-up
        self.done = 0.0
        self.before = 0.0  # seconds of training when the last step began
        self.deepest = 0
        self.rounded_from: int | None = None  # first step on rounded weights
        self.loss = math.nan
        self.scale = 1.0

    def announce(self) -> int:
        """Say what is about to run, before step 0. Returns the number of parameters."""
        count = sum(parameter.numel() for parameter in self.parameters)
        config, data, say = self.config, self.dataset, self.metrics.say
        say(
            f"seed:{config.seed} world_size:{self.group.world} device:{self.group.device.type} "
            f"threads:{torch.get_num_threads()} params:{count}"
        )
        say(
            f"tokenizer:{data.tokenizer} vocab_size:{data.vocab_size} train_tokens:{len(data.train)} "
            f"val_tokens:{len(data.val)} val_bytes:{int(data.val_bytes.sum(dtype='int64'))}"
        )
        say(f"train_sha256:{data.train_sha256} val_sha256:{data.val_sha256} val_text_sha256:{data.val_text_sha256}")
        say(
            f"iterations:{config.iterations} max_wallclock_seconds:{config.max_wallclock_seconds:g} "
            f"train_batch_tokens:{config.train_batch_tokens} train_seq_len:{config.train_seq_len}"
        )
        if self.attention:
            say(self.attention)
        return count

    def compile(self) -> None:
        """Compile the model and run it a few times off the clock. No weight changes, no batch is skipped."""
        torch._dynamo.reset()  # graphs of another run in this process would count against the limit of this one's
        self.forwards = {on: torch.compile(f, dynamic=False, fullgraph=True) for on, f in self.forwards.items()}
        stages = [(loops, length) for loops in depth.stages(self.config) for length, _ in self.phases]
        graphs = [(on, *stage) for on in self.forwards if on or self.config.qat_start > 0.0 for stage in stages]
        # Every graph may be traced twice, with rotary tables made and with tables found; torch gives up after 8.
        torch._dynamo.config.recompile_limit = max(8, 2 * len(graphs))
        for on, loops, length in graphs * min(len(graphs), 2):  # twice: the run begins with the first one again
            self.logits = self.forwards[on]
            self.model.set_loops(loops)
            for _ in range(WARMUP_PASSES):
                self.gradients(0, length)
        if self.config.compile_optimizer:
            self.optimizers.compile()
        self.optimizers.clear()
        self.losses.clear()
        self.traced = graphs_traced()

    def gradients(self, step: int, length: int) -> Tensor:
        """Reduce and clip the gradients of a step's global batch, cut into windows of `length` tokens.

        Returns this rank's mean loss, not yet read.
        """
        config, group = self.config, self.group
        self.optimizers.clear()
        self.losses.clear()
        total = torch.zeros((), device=group.device)
        for micro in range(config.grad_accum_steps):
            batch = self.loaders[length].batch(step, group.rank, group.world, micro, config.grad_accum_steps)
            ids, targets = map(group.bring, batch)
            model = self.logits
            if self.backend is not None:
                bounds = backends.bounds_of(self.backend, batch[0], self.model.bos, config, group)
                model = partial(model, backend=self.backend, bounds=bounds)
            base, whole = self.losses(model, ids, targets, self.done, step)
            (whole / config.grad_accum_steps).backward()
            total += base.detach() / config.grad_accum_steps
        self.optimizers.reduce()
        self.losses.reduce()
        return total

    def loop(self) -> int:
        """Train until the budget is used; returns the number of steps. Raises Diverged when the loss is not finite."""
        config, step, logged = self.config, 0, 0
        self.clock.start()
        while True:
            done = self.done = self._progress(step)
            if done >= 1.0:
                break
            loops = depth.loops_at(config, done)
            self.deepest = max(self.deepest, loops)
            self.model.set_loops(loops)
            self.logits = self.forwards[done >= config.qat_start]
            if self.rounded_from is None and done >= config.qat_start:
                self.rounded_from = step
                self.metrics.say(f"qat:on step:{step} (from here on the forward pass sees rounded weights)")
            self.scale = schedule.lr_scale(done, config.warmdown_fraction, config.min_lr, self.shape)
            self.scale *= schedule.warmup(step, config.lr_warmup_steps)
            momentum = schedule.momentum(
                step, config.muon_momentum_start, config.muon_momentum, config.muon_momentum_steps
            )
            decay = schedule.taper(done, config.muon_wd_taper_at, config.muon_wd_taper)
            loss = self.gradients(step, schedule.context(done, self.phases))
            self.optimizers.step(scale=self.scale, momentum=momentum, decay=decay)
            self.losses.step(self.scale)
            step += 1
            self.average.follow(step, schedule.warmdown_left(done, config.warmdown_fraction))
            due = config.train_log_every and (step == 1 or step % config.train_log_every == 0)
            # Reading the loss stalls a GPU's queue, so there it is read only where it is printed.
            if due or self.group.device.type == "cpu":
                self._read_loss(loss, step)
            if due:
                self._log_step(step)
                logged = step
            if config.val_loss_every and step % config.val_loss_every == 0 and step < config.iterations:
                self.clock.stop()
                with self.average.applied():
                    self.validate(step)
                self.clock.start()
        if step:
            self._read_loss(loss, step)
        self.clock.stop()
        if config.train_log_every and step > logged:
            self._log_step(step)
        return step

    def _progress(self, step: int) -> float:
        """Share of the budget used. With a time limit rank 0's clock speaks for all; no step is begun that would end late."""
        budget = self.budget
        if not budget:
            return schedule.progress(step, self.config.iterations)
        (elapsed,) = self.group.broadcast_floats([self.clock.read()])
        # Steps get dearer where loops or longer windows begin, so the last one counts as well as the mean.
        if step and elapsed + max(elapsed / step, elapsed - self.before) > budget:
            return 1.0
        self.before = elapsed
        return schedule.progress(step, self.config.iterations, elapsed, budget)

    def _read_loss(self, loss: Tensor, step: int) -> None:
        self.loss = self.group.sum_(loss.clone()).item() / self.group.world
        if not math.isfinite(self.loss):
            raise Diverged(f"train_loss is {self.loss} at step {step}: no result; lower the rates or clip gradients")

    def _timing(self, step: int) -> tuple[float, float]:
        """Milliseconds of training so far, and per step."""
        spent = self.clock.read() * 1e3
        return spent, spent / max(step, 1)

    def _log_step(self, step: int) -> None:
        spent, average = self._timing(step)
        self.metrics.say(
            f"step:{step}/{self.config.iterations} train_loss:{self.loss:.4f} train_time:{spent:.0f}ms "
            f"step_avg:{average:.2f}ms"
        )
        self.metrics.record(
            {
                "step": step,
                "train_loss": self.loss,
                "train_time_ms": round(spent, 3),
                "step_avg_ms": round(average, 3),
                "lr_scale": self.scale,
            }
        )

    def calibrate(self, step: int) -> calibrate.Calibration:
        """What goes into the matrices after `step` steps, within what is left of the limit. Has a line of its own."""
        config, limit = self.config, self.config.max_wallclock_seconds or math.inf
        loader = self.loaders[config.train_seq_len]
        left = limit - self.clock.read()
        seen = calibrate.calibrate(self.model, loader, config, self.group, step, left, self.pace)
        self.metrics.say(seen.line())
        return seen

    def validate(self, step: int) -> Score:
        """Score the weights in memory as the artifact will be scored, and say so. Raises ScoreError if it is not finite."""
        config, data = self.config, self.dataset
        self.model.set_loops(config.num_loops)  # the depth the artifact has, however early this is
        with opened.phase("evaluation"):
            score = sliding.score(
                self.model,
                data.val,
                data.val_bytes,
                seq_len=config.train_seq_len,
                stride=config.eval_stride,
                batch=config.eval_batch_seqs,
                bos=data.bos,
                device=self.group.device,
                group=self.group,
                patch=config.patch_size,
            )
        spent, average = self._timing(step)
        self.metrics.say(
            f"step:{step}/{config.iterations} val_loss:{score.loss:.4f} val_bpb:{score.bpb:.4f} "
            f"train_time:{spent:.0f}ms step_avg:{average:.2f}ms"
        )
        return score


def run(config: Config, dataset: Dataset, group: Group, metrics: Metrics) -> dict[str, Any]:
    """Train and write the artifact into the metrics' folder. Returns this module's part of result.json.

    Raises SettingsError if the batch does not split or documents can't be told apart, Diverged or ScoreError if a loss or
    weight stops being finite, OSError if the disk refuses.
    """
    going = Run(config, dataset, group, metrics)
    with opened.phase("opening"):  # how long the streams are
        params = going.announce()
    if config.compile:
        going.compile()
    if calibrates(config):
        if config.max_wallclock_seconds:
            going.pace = calibrate.pace(going.model, going.loaders[config.train_seq_len], config, group)
        going.budget -= calibrate.reserve(config, going.pace)
    group.barrier()
    steps = going.loop()
    late = graphs_traced() - going.traced if config.compile else 0
    if config.compile:
        metrics.say(f"graphs:{going.traced} recompiles_after_warmup:{late}")
    spent, average = going._timing(steps)
    if taken := going.average.taken():
        only = " (the average is the last weights)" if taken == 1 else ""
        metrics.say(f"average:{config.average} checkpoints:{taken}{only}")
    going.average.keep()
    seen = going.calibrate(steps) if calibrates(config) else None
    for loader in going.loaders.values():
        loader.close()
    score = going.validate(steps)
    sizes = _write(going, steps, seen.inputs if seen is not None else None) if group.rank == 0 else {}
    group.barrier()
    return {
        "params": params,
        "steps": steps,
        "train_time_ms": round(spent, 3),
        "step_avg_ms": round(average, 3),
        "train_loss": going.loss if steps else None,
        **({"average_checkpoints": taken} if taken else {}),
        **({"loops_trained": going.deepest} if config.num_loops else {}),
        **({"qat_from_step": going.rounded_from} if config.qat_start < 1.0 else {}),
        "prequant": {"val_loss": score.loss, "val_bpb": score.bpb},
        **({"calibration": seen.as_dict()} if seen is not None else {}),
        **({"recompiles_after_warmup": late} if config.compile else {}),
        "peak_mem_mib": round(peak_mem_mib(group), 1),
        **sizes,
    }


def _write(going: Run, steps: int, inputs: Mapping[str, Inputs] | None) -> dict[str, Any]:
    """Write the artifact, count what is shipped, and say the sizes. Rank 0 only."""
    config, data, say = going.config, going.dataset, going.metrics.say
    path, code = going.metrics.out_dir / contract.ARTIFACT, contract.code_root()
    meta = {
        "metric_version": contract.METRIC_VERSION,
        "steps": steps,
        "tokenizer": data.tokenizer,
        "tokenizer_sha256": data.tokenizer_sha256,
        "train_sha256": data.train_sha256,
        # Bytes a token, by which test-time training cuts its chunks: see score.chunk_tokens.
        "tune_tokens": len(data.tune),
        "tune_bytes": int(data.tune_bytes.sum(dtype="int64")),
    }
    try:
        model_bytes = artifact.write(path, going.model, config, data.vocab_size, meta, inputs, say)
    except ValueError as error:
        kept = ""
        if config.model_bytes_target:  # what was trained may have cost hours: it is kept, whatever it weighs
            with contextlib.suppress(ValueError):
                size = artifact.write(path, going.model, config, data.vocab_size, meta, inputs, say, fit=False)
                kept = f"; {path.name} holds the model without the target, {size} bytes"
        raise Diverged(f"after {steps} steps: {error}{kept}") from None
    code_bytes, scheme = contract.code_bytes(code), artifact.scheme_name(config)
    total = code_bytes + model_bytes
    say(f"Code size: {code_bytes} bytes")
    say(f"Serialized model {scheme}: {model_bytes} bytes")
    say(f"Total submission size {scheme}: {total} bytes")
    word = "under" if total <= contract.CAP_BYTES else "OVER"
    say(f"total_bytes:{total} cap_bytes:{contract.CAP_BYTES} headroom_bytes:{contract.CAP_BYTES - total} cap:{word}")
    return {
        "code_bytes": code_bytes,
        "model_bytes": model_bytes,
        "total_bytes": total,
        "cap_bytes": contract.CAP_BYTES,
        "code_sha256": contract.code_sha256(code),
        "artifact_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def graphs_traced() -> int:
    """How many graphs torch.compile has traced in this process. One that is traced within the clock costs seconds of it."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def peak_mem_mib(group: Group) -> float:
    """Most memory this rank held so far, in MiB: allocated on the GPU, or resident on a CPU."""
    if group.device.type == "cuda":
        return torch.cuda.max_memory_allocated(group.device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
