"""The two pictures of docs/architecture.md: ``python docs/site/architecture_pictures.py`` writes them into docs/.

Plain SVG, so that they stay sharp, can be read in a diff, and need nothing to be drawn.
"""

from pathlib import Path
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parent.parent
_INK, _QUIET, _PAPER = "#1b1f24", "#5b6570", "#ffffff"
_RANKS = ("#dbe9ff", "#ffe6cf")
_SHARED, _LINE = "#e3f3e6", "#8a949e"
_FLOORS = [  # of CONTRIBUTING.md, the highest first: its rooms, and what each holds
    [("cli", "the front door: verbs, keys, Hydra")],
    [("doctor", "is a machine fit to train?")],
    [("bench", "what is measured, against what"), ("reproduce", "the paper's tables, run again")],
    [("train", "configuration tree, the step, the loop")],
    [
        ("evaluate", "embeddings to numbers"),
        ("prepare", "photographs to sets"),
        ("export", "ONNX, hub, int8"),
    ],
    [
        ("data", "records, order, loaders"),
        ("backbones", "images to embeddings"),
        ("heads", "margin softmax"),
        ("optim", "groups, schedules"),
        ("checkpoint", "whole or not at all"),
    ],
    [
        ("margins", "cosine to logit"),
        ("ops", "tensor functions, kernels"),
        ("runtime", "ranks, collectives, seeds"),
    ],
    [("errors", "what a user can mend")],
]


class _Drawing:
    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'font-family="system-ui, -apple-system, Segoe UI, DejaVu Sans, sans-serif">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0 L8 4 L0 8 z" fill="{_LINE}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" rx="8" fill="{_PAPER}"/>',
        ]

    def box(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        self.parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6" fill="{fill}" '
            f'stroke="{_LINE}"/>'
        )

    def text(self, x: float, y: float, text: str, size: int = 13, bold: bool = False, anchor: str = "middle") -> None:
        weight = ' font-weight="600"' if bold else ""
        color = _INK if bold or size > 12 else _QUIET
        self.parts.append(
            f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" fill="{color}"{weight}>'
            f"{escape(text)}</text>"
        )

    def arrow(self, x: float, y: float, to_x: float, to_y: float) -> None:
        self.parts.append(
            f'<path d="M{x:.0f} {y:.0f} L{to_x:.0f} {to_y:.0f}" stroke="{_LINE}" stroke-width="1.6" fill="none" '
            'marker-end="url(#tip)"/>'
        )

    def done(self) -> str:
        return "\n".join([*self.parts, "</svg>", ""])


def rooms() -> str:
    """Return the picture of the rooms: floors over one another, imports go down."""
    width, left, gap, floor_height = 940, 96, 10, 62
    height = 24 + floor_height * len(_FLOORS) + 34
    drawing = _Drawing(width, height, "The rooms of arcdist, floor over floor; a room imports those below it")
    for row, floor in enumerate(_FLOORS):
        y = 16 + row * floor_height
        drawing.text(20, y + 31, f"floor {len(_FLOORS) - 1 - row}", 12, anchor="start")
        space = (width - left - 46 - gap * (len(floor) - 1)) / len(floor)
        for place, (name, what) in enumerate(floor):
            x = left + place * (space + gap)
            drawing.box(x, y, space, floor_height - 12, _RANKS[row % 2])
            drawing.text(x + space / 2, y + 21, name, 14, bold=True)
            drawing.text(x + space / 2, y + 39, what, 12)
    drawing.arrow(width - 22, 20, width - 22, height - 44)
    drawing.text(
        width / 2, height - 14, "imports go down only: never up, never across to a room of one's own floor", 13
    )
    return drawing.done()


_STEP = [  # own: what each rank does with its own, and where; all: what goes between them
    ("own", ("rows 0 … B/2−1 of batch n", "rows B/2 … B−1 of batch n"), "data/order: from (seed, n)"),
    ("own", ("images [b, 3, 112, 112]", "images [b, 3, 112, 112]"), "data: decode, augment"),
    ("own", ("embeddings [b, D]", "embeddings [b, D]"), "backbones: the same weights on both"),
    ("all", ("all-gather: embeddings and labels, [B, D] on both",), ""),
    ("own", ("B rows × centers 0 … C/2−1", "B rows × centers C/2 … C−1"), "heads, ops: log-sum-exp"),
    ("all", ("two all-reduces: largest value; sum of exponentials, own cosine",), ""),
    ("own", ("margin, the loss of the B rows", "margin, the same loss"), "margins: elementwise, alike"),
    ("all", ("reduce-scatter: the embeddings' gradient, [b, D] each",), ""),
    ("own", ("backward pass of the backbone", "backward pass of the backbone"), "DDP"),
    ("all", ("all-reduce: the backbone's gradient, a mean over ranks (DDP)",), ""),
    ("own", ("weights; centers 0 … C/2−1", "weights; centers C/2 … C−1"), "optim: centers are never sent"),
]  # fmt: skip


def step() -> str:
    """Return the picture of a step over two ranks: what each does, and what travels."""
    width, column, left, row_height = 940, 330, 30, 58
    drawing = _Drawing(width, 56 + row_height * len(_STEP) + 12, "A training step over two ranks")
    xs = (left, left + column + 30)
    for rank, x in enumerate(xs):
        drawing.text(x + column / 2, 32, f"rank {rank}", 15, bold=True)
    for number, (kind, texts, where) in enumerate(_STEP):
        y = 48 + number * row_height
        if kind == "own":
            for rank, (x, text) in enumerate(zip(xs, texts)):
                drawing.box(x, y, column, 38, _RANKS[rank])
                drawing.text(x + column / 2, y + 24, text, 14)
            drawing.text(xs[1] + column + 14, y + 23, where.partition(": ")[0], 13, anchor="start")
            drawing.text(xs[1] + column + 14, y + 38, where.partition(": ")[2], 11, anchor="start")
        else:
            drawing.box(left, y, xs[1] + column - left, 38, _SHARED)
            drawing.text((left + xs[1] + column) / 2, y + 24, texts[0], 14, bold=True)
        if number + 1 < len(_STEP):
            for x in xs:
                drawing.arrow(x + column / 2, y + 39, x + column / 2, y + row_height - 1)
    return drawing.done()


PICTURES = {"rooms.svg": rooms, "step.svg": step}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (DOCS / name).write_text(draw(), encoding="utf-8")
