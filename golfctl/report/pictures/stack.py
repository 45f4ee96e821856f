"""Picture 2: how each technique layers from the first baseline to the base and the active plans, with what each brought."""

from __future__ import annotations

from golfctl.report.model import Layer, Report
from golfctl.report.pictures.axes import SMALL, Scale, digits, padded
from golfctl.report.pictures.scene import Box, Card, Item, Scene, Shape, Words
from golfctl.report.pictures.text import cut

MOST = 40
"""Layers that are drawn; the table below the picture has all."""
ROW = 40.0


def draw(report: Report, wide: float) -> Scene:
    """The stack, `wide` units wide: a row for each layer, a bar from where the layer below stands to where it stands."""
    title = "Technique stack"
    layers = _chosen(report.layers)
    more = f" {len(report.layers) - len(layers)} more stand in the table." if len(layers) < len(report.layers) else ""
    text = (
        "From the first baseline down to the active plans: each bar goes from the score of the layer below to its own; "
        f"an outline is what a plan expects.{more}"
    )
    known = {layer.name: layer for layer in report.layers}
    values = [value for layer in layers for value in (layer.score, layer.low, layer.high) if value is not None]
    if not values:
        return Scene(wide, 60, title, text, (Words(0, 24, "No layer has a score yet.", "soft"),))
    narrow = wide < 600
    row = ROW + 16 if narrow else ROW
    left, right, top = (8.0 if narrow else 330.0), wide - 66.0, 30.0
    low, high = padded(values, 0.06)
    score = Scale(high, low, left, right)  # better lies to the right
    bottom = top + row * len(layers)
    items: list[Item] = [Words(left, 12, f"{report.score}, better to the right", "soft", SMALL)]
    at = Scale(low, high, right, left).ticks(4 if narrow else 7)
    exact = digits(at)
    for value in at:
        x = score(value)
        items.append(Shape(((x, top), (x, bottom)), stroke="grid"))
        items.append(Words(x, bottom + 16, f"{value:.{exact}f}", "soft", SMALL, "middle"))
    depths = {name: _depth(layer, known) for name, layer in known.items()}
    for number, layer in enumerate(layers):
        items.append(_row(layer, known, depths, score, top + row * number, row, wide, narrow))
        if layer.kind == "base" and number:
            y = top + row * number
            items.append(Shape(((0, y), (wide, y)), stroke="rule", dash=(2.0, 3.0)))
    return Scene(wide, bottom + 26, title, text, tuple(items))


def _chosen(layers: tuple[Layer, ...]) -> list[Layer]:
    """All, or the first record, the newest ones, the base and as many plans, those with scores first."""
    if len(layers) <= MOST:
        return _in_order(list(layers))
    records = [layer for layer in layers if layer.kind == "record"]
    records = records if len(records) <= MOST // 2 else [records[0], *records[1 - MOST // 2 :]]
    bases = [layer for layer in layers if layer.kind == "base"]
    plans = [layer for layer in layers if layer.kind == "plan"]
    best = sorted(plans, key=lambda layer: (layer.delta is None, layer.delta or 0.0))[
        : MOST - len(records) - len(bases)
    ]
    return _in_order([*records, *bases, *(plan for plan in plans if plan in best)])


def _in_order(layers: list[Layer]) -> list[Layer]:
    """Records and base as they are; each plan follows what it builds on."""
    plans = [layer for layer in layers if layer.kind == "plan"]
    names = {layer.name for layer in plans}
    found = [layer for layer in layers if layer.kind != "plan"]
    waiting = [layer for layer in reversed(plans) if layer.below not in names]
    while waiting:
        layer = waiting.pop()
        found.append(layer)
        waiting += [item for item in reversed(plans) if item.below == layer.name]
    return found


def _depth(layer: Layer, known: dict[str, Layer]) -> int:
    depth = 0
    while layer.kind == "plan" and layer.below in known and depth < 12:
        layer, depth = known[layer.below], depth + 1
    return depth


def _row(
    layer: Layer,
    known: dict[str, Layer],
    depths: dict[str, int],
    score: Scale,
    top: float,
    row: float,
    wide: float,
    narrow: bool,
) -> Card:
    below = known.get(layer.below)
    start = below.score if below and below.score is not None else None
    middle = top + (row - 13 if narrow else row / 2)
    indent = 14.0 * max(0, depths[layer.name] - 1)
    room = (wide if narrow else 312.0) - indent
    colour = {"record": "field", "base": "ink", "plan": "ours"}[layer.kind]
    name = layer.name[11:].replace("_", " ") if layer.kind == "record" else layer.name
    items: list[Shape | Box | Words] = [Box(0, top, wide, row - 1, "card", opacity=0)]
    if indent:
        items.append(Shape(((indent - 8, top + 2), (indent - 8, top + 13), (indent - 2, top + 13)), stroke="rule"))
    items.append(Words(indent, top + 16, cut(name, room, 12.5, True), colour, 12.5, bold=True))
    if layer.text:
        items.append(Words(indent, top + 30, cut(layer.text, room, SMALL), "soft", SMALL))
    if layer.low is not None and layer.high is not None:
        x1, x2 = score(layer.high), score(layer.low)
        items.append(Box(x1, middle - 8, max(2.0, x2 - x1), 16, "", "field", 1.2, 2, (3.0, 2.0)))
    label = _words(layer)
    if layer.score is None:
        items.append(Words(wide, middle + 4, "expected" if layer.low is not None else "no score", "soft", SMALL, "end"))
        return Card(layer.key, label, tuple(items))
    x = score(layer.score)
    if start is not None:
        better = layer.score <= start
        x0 = score(start)
        items.append(Box(min(x0, x), middle - 5, max(1.5, abs(x - x0)), 10, "good" if better else "bad", radius=2))
        items.append(Shape(((x0, middle - 9), (x0, middle + 9)), stroke="rule", width=1.5))
    items.append(Shape(((x, middle - 9), (x, middle + 9)), stroke=colour, width=2.5))
    said = f"{layer.delta:+.4f}" if layer.delta is not None else f"{layer.score:.4f}"
    tone = "ink" if layer.delta is None else "good" if layer.delta <= 0 else "bad"
    items.append(Words(wide, middle + 4, said, tone, 12, "end", True))
    return Card(layer.key, label, tuple(items))


def _words(layer: Layer) -> str:
    lines = [layer.name, layer.text]
    lines += [f"stands at {layer.score:.4f}"] if layer.score is not None else []
    lines += [f"{layer.delta:+.4f} against {layer.below}"] if layer.delta is not None else []
    lines += (
        [f"expected between {layer.low:.4f} and {layer.high:.4f}"]
        if layer.low is not None and layer.high is not None
        else []
    )
    return "\n".join(line for line in lines if line)
