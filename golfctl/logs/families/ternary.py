"""Ternary, binary and XNOR studies, and the JEPA ones: short keys.

step:1000/10000 loss:3.3139 t:91682ms avg:91.7ms
step:100/10000 loss:4.7822 jepa:0.0322 ce:4.7221 t:13362ms step_avg:133.6ms
"""

from golfctl.logs.grammar import TIME, Family, Key

FAMILY = Family(
    name="ternary",
    head=r"step:(?P<step>0|[1-9]\d*)(?:/(?P<steps>\d+))?(?= .*\b(?:loss|t|avg):)",
    keys={
        "loss": Key("train_loss"),
        "train_loss": Key("train_loss"),
        "val_loss": Key("val_loss"),
        "val_bpb": Key("val_bpb"),
        "t": Key("ms", TIME),
        "train_time": Key("ms", TIME),
        "avg": Key("avg_ms", TIME),
        "step_avg": Key("avg_ms", TIME),
    },
)
