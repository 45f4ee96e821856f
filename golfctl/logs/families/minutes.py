"""The newer contest scripts: hyperparameters listed one a line, minutes instead of milliseconds, no step average.

5500/20000 train_loss: 2.5794 train_time: 9.8m tok/s: 7380595
"""

from golfctl.logs.grammar import Family, Key

FAMILY = Family(
    name="minutes",
    head=r"(?P<step>0|[1-9]\d*)/(?P<steps>\d+)(?= +(?:train_loss|val_loss): )",
    gap=r": ",
    keys={
        "train_loss": Key("train_loss"),
        "val_loss": Key("val_loss"),
        "val_bpb": Key("val_bpb"),
        "train_time": Key("ms", ("m",)),
    },
)
