"""Technique tags of a record, from what its author wrote about it. A table of data and one function."""

from __future__ import annotations

import re

_TABLE = (
    ("quantisation:ternary", r"\bternary\b|b1\.58"),
    ("quantisation:binary", r"\bbinary u-?net|\bbinary asym|xnor|\b1[- ]bit\b"),
    ("quantisation:int4", r"\bint4\b"),
    ("quantisation:int5", r"\bint5"),
    ("quantisation:int6", r"(?:all|mlp)?int6"),
    ("quantisation:int7", r"\bint7\b"),
    ("quantisation:int8", r"\bint8\b|step=4 rounding"),
    ("quantisation:fp8", r"\bfp8\b"),
    ("fp16-embedding", r"fp16[ _]?(?:tied[ _])?emb"),
    ("qat", r"\bqat\b|[a-z0-9_ ]qat(?:[ _@]|\b)|\bste\b"),
    ("gptq", r"gptq"),
    ("sd-clip", r"sd-?clip|clip[ _]?sigmas|mlpclip|\bmlp clip"),
    ("lqer", r"lqer"),
    ("compression:zstd", r"zstd"),
    ("compression:lzma", r"lzma"),
    ("compression:brotli", r"brotli"),
    ("compression:lrzip", r"lrzip"),
    ("smeargate", r"smear"),
    ("bigram-hash", r"bigram"),
    ("ngram-tilt", r"n-?gram (?:token )?tilt"),
    ("xsa", r"\bxsa|[_ ]xsa|exclusive self[- ]attention|partialxsa"),
    ("ortho-init", r"ortho(?:gonal)?[- ]?(?:weight )?init"),
    ("overtone-init", r"overtone"),
    ("partial-rope", r"partial[- ]?rope"),
    ("ln-scale", r"\bln scale"),
    ("leaky-relu", r"leaky-?relu"),
    ("swiglu", r"swiglu"),
    ("value-embedding", r"\bve\d{2,3}\b|value embedding"),
    ("u-net", r"\bu[- ]?net\b"),
    ("skip-gates", r"gated (?:unet )?skips|skip gates"),
    (
        "attention-gate",
        r"gated ?att(?:ention|n)|sparsegate|attentionoutputgate"
        r"|(?:sparse|attention|attn)[ -]?(?:attn |attention )?(?:output )?-?gate",
    ),
    ("quant-gate", r"quant ?gate"),
    ("qk-gain", r"\bqk[-_ ]?(?:gain|\d)|qk_gain"),
    ("varlen-attention", r"var-?len"),
    ("depth-recurrence", r"recur|\bloop ?\d|loop layers|loop45"),
    ("parallel-residuals", r"parallel[- ]?resid|parallel decoder|parresid"),
    ("ema", r"\bema\b|[ _]ema[_ (]"),
    ("swa", r"\bswa\b|[_ ]swa\d*|stochastic weight averag"),
    (
        "muon-wd",
        r"muon[- ]?(?:optimizer with decoupled )?(?:wd|weight decay)|(?<!ttt[ _])weight decay"
        r"|\bwd ?=? ?0\.?0?\d{2,3}\b|\bwd taper|high wd",
    ),
    ("muoneq-r", r"muoneq|row-normalized muon"),
    ("parallel-muon", r"parallel ?muon"),
    ("neomuon", r"neomuon"),
    ("polar-express", r"polar"),
    ("min-lr", r"min[_ ]?lr"),
    ("warmdown", r"warmdown|[_ ]wd3600"),
    ("long-context", r"seq(?:_?len)?[ =]?(?:2048|4096)|long[- ]?context|train@2048"),
    ("sliding-window", r"sliding"),
    ("ttt", r"ttt\b|ttt\d|ttt_|test-time training"),
    ("phased-ttt", r"phas(?:ed|ing)[ -]?(?:global sgd )?(?:during phased )?ttt|multi-?phase"),
    ("lora-ttt", r"lora[ -]ttt|lora[^.]{0,30}test-time|doc-independent ttt|lora alpha"),
    ("caseops", r"caseops"),
    ("vocab:4096", r"sp4096|vocab ?4096|4096[- ]vocab"),
    ("vocab:8192", r"sp8192|8192[ -]?(?:bpe|token)"),
    ("byte-level", r"\bbyte[- ]level|byte260|bytejepa|vocab=256"),
    ("coprime-loader", r"co-?prime"),
    ("fused-mlp", r"fused mlp"),
    ("fused-ce", r"fused ?(?:softcapped )?ce\b|fusedce"),
    ("jepa", r"jepa"),
    ("state-space", r"mamba|\bssm\b|\bgdn\b"),
    ("diffusion", r"diffusion"),
    ("h-net", r"\bh-?net\b"),
)
_COMPILED = [(tag, re.compile(pattern, re.IGNORECASE)) for tag, pattern in _TABLE]
_NEGATED = re.compile(r"\b(?:no|without)\b[ -][^,.;+()\n]*(?:\([^()\n]*\))?", re.IGNORECASE)


def tags(text: str) -> list[str]:
    """Tags of the techniques a text names, in the order of the table; what it says it does without is left out."""
    said = _NEGATED.sub(" ", text.replace("²", "2"))
    return [tag for tag, pattern in _COMPILED if pattern.search(said) or pattern.search(said.replace("_", " "))]
