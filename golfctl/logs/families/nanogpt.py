"""nanoGPT: training and evaluation lines with words between blanks.

step 250: train loss 1.9736, val loss 2.0512
iter 250: loss 1.9402, time 512.33ms, mfu 12.31%
"""

from golfctl.logs.grammar import Family, Key

FAMILY = Family(
    name="nanogpt",
    head=r"(?:step|iter) (?P<step>\d+)(?=: (?:train loss|val loss|loss) )",
    between=r"[:,] ",
    gap=r" ",
    keys={
        "loss": Key("train_loss"),
        "val loss": Key("val_loss"),
    },
)
