"""Which scores a configuration asks for, by the name of their final line: the one place where settings become modes."""

from __future__ import annotations

from torch import nn

from trainer import contract
from trainer.config import Config
from trainer.evaluate.documents import Documents
from trainer.evaluate.lora import DocumentLora
from trainer.evaluate.mixing import Counts, Hedge, Mixed, Tilt, Uniform
from trainer.evaluate.sliding import Sliding
from trainer.evaluate.ttt import Ttt
from trainer.evaluate.walk import Mode


def wanted(config: Config) -> list[str]:
    """Labels of the scores to print, the static one first: no adaptive score stands without it."""
    found = [contract.FINAL_SLIDING]
    if config.eval_flat:
        found.append(contract.FINAL_FLAT)
    if config.eval_documents:
        found.append(contract.FINAL_DOCUMENTS)
    if config.ttt:
        found.append(contract.FINAL_TTT if config.ttt_optimizer == "adam" else contract.FINAL_TTT_SGD)
    if config.lora:
        found.append(contract.FINAL_PHASED if config.phases else contract.FINAL_LORA)
    if config.mix_ngrams:
        found.append(contract.FINAL_NGRAMS)
    if config.hedge:
        found.append(contract.FINAL_HEDGE)
    return found


def build(label: str, model: nn.Module, config: Config, chunk: int) -> tuple[Mode, str]:
    """The mode behind a label, and what its final line says of it. chunk: TTT_CHUNK_BYTES in tokens."""
    how = {"seq_len": config.train_seq_len, "patch": config.patch_size, "temperature": config.eval_temperature}
    batch = {"batch": config.eval_batch_seqs}
    suffix = "" if config.eval_temperature == 1.0 else f" temperature:{config.eval_temperature:g}"
    if label == contract.FINAL_SLIDING:
        return Sliding(model, stride=config.eval_stride, **batch, **how), f"stride:{config.eval_stride}{suffix}"
    if label == contract.FINAL_FLAT:
        return Sliding(model, stride=config.train_seq_len, **batch, **how), f"context:{config.train_seq_len}{suffix}"
    if label == contract.FINAL_DOCUMENTS:
        return Documents(model, stride=config.eval_stride, **batch, **how), f"stride:{config.eval_stride}{suffix}"
    if label in {contract.FINAL_TTT, contract.FINAL_TTT_SGD}:
        optimizer = "adam" if label == contract.FINAL_TTT else "sgd"
        return _ttt(model, config, chunk, optimizer, how | batch), f"chunk:{config.ttt_chunk_bytes}{suffix}"
    if label in {contract.FINAL_LORA, contract.FINAL_PHASED}:
        phases = config.phases if label == contract.FINAL_PHASED else 0
        said = f"rank:{config.lora_rank} chunk:{config.lora_chunk}{f' phases:{phases}' if phases else ''}{suffix}"
        return _lora(model, config, phases, how), said
    mixed = _counts(_inner(model, config, chunk, how | batch), config)
    orders = f"orders:{config.mix_low}-{config.mix_high} over:{config.mix_over}"
    if label == contract.FINAL_NGRAMS:
        return mixed, f"{orders}{suffix}"
    assert label == contract.FINAL_HEDGE, f"{label}: no such score"
    alone = Uniform(mixed.inner, [Counts(1, config.mix_high, config.mix_most, 1.0)])
    hedge = Hedge(mixed.inner, [None, mixed, alone], config.hedge_eta)
    return hedge, f"experts:{len(hedge.experts)} eta:{config.hedge_eta:g} {orders}{suffix}"


def _ttt(model: nn.Module, config: Config, chunk: int, optimizer: str, how: dict[str, object]) -> Ttt:
    return Ttt(
        model,
        stride=config.eval_stride,
        chunk=chunk,
        epochs=config.ttt_epochs,
        matrix_lr=config.ttt_matrix_lr,
        table_lr=config.ttt_table_lr,
        optimizer=optimizer,
        momentum=config.ttt_momentum,
        clip=config.ttt_clip,
        cosine=config.ttt_schedule == "cosine",
        **how,
    )


def _lora(model: nn.Module, config: Config, phases: int, how: dict[str, object]) -> DocumentLora:
    return DocumentLora(
        model,
        chunk=config.lora_chunk,
        docs=config.lora_docs,
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        lr=config.lora_lr,
        decay=config.lora_decay,
        warm=config.lora_warm,
        pauses=phases,
        pause=config.phase_docs,
        phase_lr=config.phase_lr,
        momentum=config.ttt_momentum,
        clip=config.ttt_clip,
        **how,
    )


def _inner(model: nn.Module, config: Config, chunk: int, how: dict[str, object]) -> Mode:
    """What mixtures correct."""
    if config.mix_over == "ttt":
        return _ttt(model, config, chunk, config.ttt_optimizer, how)
    return Sliding(model, stride=config.eval_stride, **how)


def _counts(inner: Mode, config: Config) -> Mixed:
    tilt = [Tilt(config.mix_high, config.mix_tilt)] if config.mix_tilt else []
    return Mixed(inner, [*tilt, Counts(config.mix_low, config.mix_high, config.mix_most, config.mix_strength)])
