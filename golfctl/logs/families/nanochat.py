"""nanochat: fields between bars.

step 00250/21400 (1.17%) | loss: 4.123456 | lrm: 1.00 | dt: 512.33ms | tok/sec: 1,023,410 | mfu: 46.10 | total time: 1.98m
Step 00250 | Validation bpb: 1.2345
"""

from golfctl.logs.grammar import Family, Key

FAMILY = Family(
    name="nanochat",
    head=r"[sS]tep (?P<step>\d+)(?:/(?P<steps>\d+))?(?: \([\d.]+%\))?(?= \|)",
    between=r" \| ",
    gap=r": ",
    keys={
        "loss": Key("train_loss"),
        "Validation bpb": Key("val_bpb"),
        "total time": Key("ms", ("m",)),
    },
)
