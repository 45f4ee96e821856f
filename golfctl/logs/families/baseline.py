"""The contest's baseline, nearly all forks of it, the nanoGPT speedrun, MLX, and the bundled trainer.

step:13780/20000 val_loss:2.0606 val_bpb:1.2172 train_time:600038ms step_avg:43.54ms
step:1480/1480 val_loss:3.2789 train_time:209123ms step_avg:142.26ms
"""

from golfctl.logs.grammar import TIME, Family, Key

FAMILY = Family(
    name="baseline",
    head=r"step:(?P<step>0|[1-9]\d*)(?:/(?P<steps>\d+))?(?= .*\b(?:train_loss|val_loss|train_time):)(?!.* (?:loss|t|avg):)",
    gap=r": ?",
    keys={
        "train_loss": Key("train_loss"),
        "val_loss": Key("val_loss"),
        "val_bpb": Key("val_bpb"),
        "train_time": Key("ms", TIME),
        "step_avg": Key("avg_ms", TIME),
    },
)
