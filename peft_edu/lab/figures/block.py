"""The picture of one transformer block: how the data flow, what is frozen, and where the attached method acts.

The residual stream runs from left to right. Attention and feed-forward leave it, and what they give is summed back in.
Nothing is drawn by hand: `block_parts` reads the model, `svg` draws what it found. Each way to act has a shape:

    in parallel       two thin boxes beside a map, with a sum of their own           LoRA
    in series         a waisted box in the line itself                               adapters
    keys and values   a pill that no text flows into, below key and value            prefix tuning, P-tuning v2
    in front, among   tokens of their own, before the text or within it              prompt tuning, P-tuning v1
    own weights       filled boxes; where biases alone are trained, an edge          top blocks, full, BitFit
"""

from dataclasses import dataclass
from html import escape
from textwrap import wrap

from IPython.display import display
from transformers import PreTrainedModel

from peft_edu.lab.figures import style
from peft_edu.lab.figures.display import unseen
from peft_edu.lab.figures.pen import DEFS, FONT, Pen, Place, shortened, wide
from peft_edu.lab.measure.block_parts import (
    AMONG,
    IDLE,
    IN_FRONT,
    KEYS_VALUES,
    OTHER,
    PARALLEL,
    SERIES,
    Added,
    BlockParts,
    SubLayer,
    Weights,
    acting,
    block_parts,
    describe,
    which,
)
from peft_edu.method import unwrapped
from peft_edu.storage.checkpoint import count

# In pixels from the upper left

WIDTH, HEIGHT = 760, 412
_TOP, _PITCH, _STREAM, _STRIP = 104, 52, 296, 344  # the first row of maps, from row to row, the stream, what is below
_START, _END = 30, 730  # of the stream
_MIDDLE = _TOP + _PITCH  # of the rows


@dataclass(frozen=True)
class Room:
    """How wide things are: three branches, or norms on the stream itself, leave less room for each."""

    map: int
    end: int  # output, up, gate and down
    zone: int  # behind a map, where a sum or a box in the line finds its place
    core: int
    gap: int  # between the core and the output map
    act: int  # the activation
    bus: int  # from where a branch forks to its first maps
    norm: int


_BEFORE = Room(map=78, end=68, zone=30, core=78, gap=22, act=48, bus=18, norm=68)
_BEHIND = Room(map=72, end=66, zone=24, core=69, gap=13, act=36, bus=14, norm=66)  # norms take room on the stream
_NARROW = Room(map=52, end=50, zone=18, core=54, gap=9, act=30, bus=10, norm=40)


def svg(parts: BlockParts, title: str = "") -> str:
    """The picture as SVG: a title and a description for screen readers, a tip on each part for the mouse."""
    return drawn(parts, title)[0]


def drawn(parts: BlockParts, title: str = "") -> tuple[str, list[Place]]:
    """The picture, and the places in it: maps, norms, ends of sub-layers, keys and values, the text."""
    pen = Pen()
    pen.text(14, 18, title, "start", 13, bold=True)
    _frame(pen, parts)
    first = parts.sublayers[0].norm_first
    room = _NARROW if len(parts.sublayers) > 2 else _BEFORE if first else _BEHIND
    x = 24 + room.norm / 2 if first else 46
    pen.line((_START, _STRIP), (_START, _STREAM), (_END, _STREAM), (_END, _STRIP - 1), arrow=True, width=2.6)
    for sublayer in parts.sublayers:
        x = _branch(pen, parts, sublayer, room, x)
    pen.text(_START + 7, _STREAM + 18, _stream(parts), "start", colour=style.MUTED)
    pen.text(_END - 7, _STREAM + 18, _stream(parts), "end", colour=style.MUTED)
    _ends(pen, parts)
    _legend(pen, parts)
    words = describe(parts)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" font-family="{escape(FONT)}" style="max-width:100%;height:auto">'
    )
    about = f"<title>{escape(title or which(parts))}</title><desc>{escape(words)}</desc>"
    edge = f'width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="6" fill="{style.PAPER}" stroke="{style.GRID}"'
    ground = f'<rect x="0.5" y="0.5" {edge}/>'  # opaque: readable on a dark page too
    return "\n".join([head + about, DEFS, ground, *pen.shapes, "</svg>"]) + "\n", pen.places


def draw_block(model: PreTrainedModel, title: str = "", block: int | None = None) -> None:
    """Show one block of this model, and where the attached method acts in it.

    block: which one, from 0 at the bottom (default: the first in which something is trained); in T5 the decoder's come
        after the encoder's.
    """
    parts = block_parts(model, block)
    words = describe(parts)
    picture = svg(parts, title or str(count(unwrapped(model))))
    display({"image/svg+xml": picture, "text/plain": words}, metadata={"image/svg+xml": {"alt": words}}, raw=True)
    display({"text/html": unseen(f"Figure: {words}")}, raw=True)


def _frame(pen: Pen, parts: BlockParts) -> None:
    pen.shapes.append(
        f'<rect x="10" y="32" width="740" height="{_STREAM - 4}" rx="8" fill="none" stroke="{style.FROZEN_LINE}" '
        f'stroke-dasharray="2 3"/>'
    )
    pen.text(20, 46, which(parts), "start")
    numbers = f"{sum(parts.trained().values()):,} of its {parts.size:,} parameters are trained"
    pen.text(740, 46, numbers, "end")


def _stream(parts: BlockParts) -> str:
    return f"{_tokens(parts)} × {parts.width}"


def _tokens(parts: BlockParts) -> str:
    front = sum(each.size for each in parts.embedding.added if each.acts == IN_FRONT)
    return f"({front} + t)" if front and parts.kind != "decoder block" else "t"


def _branch(pen: Pen, parts: BlockParts, sublayer: SubLayer, room: Room, x: float) -> float:
    """A sub-layer that leaves the stream at x; where the next one may leave it."""
    pen.dot(x, _STREAM)
    if sublayer.name == "feed-forward":
        leg = _feed_forward(pen, parts, sublayer, room, x)
    else:
        leg = _attention(pen, parts, sublayer, room, x)
    if sublayer.norm_first:
        _norm(pen, sublayer.norm, room, x, _STREAM - 26)
    pen.place(f"behind {sublayer.name}", leg, 212, 40, 44)
    for i, added in enumerate(sublayer.behind):
        _in_series(pen, added, leg, 212 + 44 * i)
    pen.plus(leg, _STREAM, 8, "sum into the residual stream")
    if sublayer.norm_first:
        return leg + room.norm / 2 + 10
    _norm(pen, sublayer.norm, room, leg + 13 + room.norm / 2, _STREAM)
    return leg + 13 + room.norm + 10


def _norm(pen: Pen, norm: Weights, room: Room, x: float, y: float) -> None:
    pen.place("norms", x, y, room.norm, 22)
    pen.box(x, y, room.norm, 22, norm.look, f"{norm.name}: {norm.trained:,} of {norm.size:,} trained", radius=11)
    short = norm.name if wide(norm.name) < room.norm else "norm"
    pen.text(x, y, short)
    for added in norm.added:
        pen.box(x + room.norm / 2 + 3, y, 10, 26, "trained", _tip(added))


def _attention(pen: Pen, parts: BlockParts, sublayer: SubLayer, room: Room, x: float) -> float:
    """Query, key and value one below the other, the attention proper, the output map, and down to the stream."""
    cross = sublayer.name == "cross-attention"
    rows = {
        role: _TOP + i * _PITCH
        for i, role in enumerate(("value", "key", "query") if cross else ("query", "key", "value"))
    }
    left = x + room.bus
    core = left + room.map + room.zone + room.core / 2
    out = core + room.core / 2 + room.gap + room.end / 2
    leg = out + room.end / 2 + room.zone
    pen.text(left, 66, sublayer.name, "start", 12, bold=True)
    pen.line((x, _STREAM), (x, rows["query"] if cross else _TOP))
    if cross:
        pen.text(left, 82, f"from the encoder: {_source(parts)} × {parts.width}", "start", colour=style.MUTED)
        pen.line((left - 2, 82), (x, 82), (x, rows["key"]), dashed=True)
    for role, y in rows.items():
        _map(pen, sublayer.map(role), left + room.map / 2, y, room.map, room, x, core - room.core / 2)
    pen.place("keys and values", core, _MIDDLE + 12, room.core, 2 * _PITCH + 50)
    pen.box(core, _MIDDLE + 12, room.core, 2 * _PITCH + 50, "plain", "attention proper: it has no weights", radius=8)
    scores = _scores(parts, sublayer, cross, room)
    for dy, words in ((-46, f"{parts.heads} heads"), (-10, "softmax"), (6, "(QKᵀ) V")):
        pen.text(core, _MIDDLE + dy, words)
    for i, words in enumerate(scores):
        pen.text(core, _MIDDLE + 36 + 14 * i, words, colour=style.MUTED)
    _map(pen, sublayer.map("output"), out, _MIDDLE, room.end, room, core + room.core / 2, leg)
    pen.line((leg, _MIDDLE), (leg, _STREAM - 8), arrow=True)
    _around(pen, sublayer, x, leg)
    return leg


def _source(parts: BlockParts) -> str:
    front = sum(each.size for each in parts.embedding.added if each.acts == IN_FRONT)
    return f"({front} + s)" if front else "s"


def _scores(parts: BlockParts, sublayer: SubLayer, cross: bool, room: Room) -> list[str]:
    """The shape of the scores: queries times keys."""
    more = sum(each.size for each in sublayer.map("key").added if each.acts == KEYS_VALUES)
    keys = _source(parts) if cross else _tokens(parts)
    keys = f"({more} + {keys})" if more else keys
    whole = f"{_tokens(parts)} × {keys}"
    return [whole] if wide(whole) < room.core else [f"{_tokens(parts)} ×", keys]


def _feed_forward(pen: Pen, parts: BlockParts, sublayer: SubLayer, room: Room, x: float) -> float:
    """Up, the activation, down; in the gated kind two maps lead up, and their products go down."""
    gate, left = sublayer.map("gate"), x + room.bus
    act = left + room.end + room.zone + room.act / 2
    down = act + room.act / 2 + room.end / 2
    leg = down + room.end / 2 + room.zone
    pen.text(left, 66, sublayer.name, "start", 12, bold=True)
    heights = (_MIDDLE - 30, _MIDDLE + 30) if gate else (_MIDDLE,)
    pen.line((x, _STREAM), (x, heights[0]))
    for name, y in zip(("gate", "up") if gate else ("up",), heights, strict=True):
        _map(pen, sublayer.map(name), left + room.end / 2, y, room.end, room, x, act)
    if gate:
        pen.line((act, heights[0]), (act, heights[1]))
        pen.times(act, _MIDDLE)
    pen.bend(act, heights[0])
    pen.text(act, heights[0] - 36, "activation", colour=style.MUTED)
    pen.text(act, heights[0] - 21, f"{_tokens(parts)} × {sublayer.map('down').shape[1]}", colour=style.MUTED)
    start = act + (7 if gate else 9)
    _map(pen, sublayer.map("down"), down, _MIDDLE, room.end, room, start, leg)
    pen.line((leg, _MIDDLE), (leg, _STREAM - 8), arrow=True)
    _around(pen, sublayer, x, leg)
    return leg


def _map(pen: Pen, box: Weights, x: float, y: float, w: float, room: Room, start: float, end: float) -> None:
    """A map from the line at `start` to the line at `end`, with what stands beside it in the row's lower half."""
    rows, columns = box.shape
    right, joint = x + w / 2, x + w / 2 + room.zone / 2 - 1
    pen.line((start, y), (x - w / 2, y), arrow=True)
    pen.line((right, y), (end, y), arrow=box.name in ("query", "key", "value"))
    pen.place(box.name, x, y, w, 26)
    pen.box(x, y, w, 26, box.look, f"{box.name}: {columns} to {rows}, {box.trained:,} of {box.size:,} trained")
    pen.text(x, y, box.name)
    slot = y + 27
    if len(box.added) > 1:
        _several(pen, box.added, x, slot, w, start, (joint, y))
    for added in box.added if len(box.added) == 1 else ():
        if added.acts == PARALLEL:
            _beside(pen, added, x, slot, w, start, (joint, y))
        elif added.acts == KEYS_VALUES:
            _pill(pen, added, x, slot, w, end)
        elif added.acts == SERIES:
            pen.box(joint, y, 12, 22, "trained", _tip(added))
            pen.text(x, slot, shortened(added.name, w))
        else:
            pen.box(x, slot, w, 17, "trained", _tip(added))
            pen.text(x, slot, "no hook")


def _beside(pen: Pen, added: Added, x: float, y: float, w: float, start: float, joint: tuple[float, float]) -> None:
    """A and B: from the map's input, through the narrow rank, to a sum at the map's output."""
    tap = start if start < x - w / 2 - 11 else start + 5
    pen.line((tap, joint[1]), (tap, y), (x - w / 2 + 2, y), arrow=True)
    pen.line((x + w / 2 - 2, y), (joint[0], y), (joint[0], joint[1] + 7), arrow=True)
    look = "trained" if added.trained else "frozen"
    if added.size:
        left, right, side = x - w / 2 + 2, x + w / 2 - 2, 16
        pen.line((left, y), (right, y))
        pen.shape([(left, y - 9), (left + side, y - 5), (left + side, y + 5), (left, y + 9)], look, _tip(added))
        pen.shape([(right, y - 9), (right - side, y - 5), (right - side, y + 5), (right, y + 9)], look, _tip(added))
        rank = f"r={added.size}" if wide(f"r={added.size}") < w - 2 * side - 6 else f"{added.size}"
        plate = wide(rank) + 2
        pen.shapes.append(
            f'<rect x="{x - plate / 2:g}" y="{y - 7:g}" width="{plate:g}" height="14" fill="{style.PAPER}"/>'
        )
        pen.text(x, y, rank)
        for at, letter in zip((left + side / 2, right - side / 2), added.letters, strict=False):
            short = letter.rpartition("_")[2]
            pen.text(at, y, short if len(short) == 1 else "")
    else:
        pen.box(x, y, w - 4, 17, look, _tip(added))
        pen.text(x, y, shortened(added.name, w))
    pen.plus(*joint)


def _several(pen: Pen, every: tuple[Added, ...], x: float, y: float, w: float, start: float, joint: tuple) -> None:
    """What shares the place beside one map: a small box each, named by its tip and in the caption."""
    if any(added.acts == PARALLEL for added in every):
        pen.line((start, joint[1]), (start, y), (x, y), (joint[0], y), (joint[0], joint[1] + 7), arrow=True)
        pen.plus(*joint)
    share = w / len(every)
    for i, added in enumerate(every):
        look = "virtual" if added.acts == KEYS_VALUES else "trained"
        pen.box(x - w / 2 + share * (i + 0.5), y, share - 4, 17, look, _tip(added))


def _pill(pen: Pen, added: Added, x: float, y: float, w: float, end: float) -> None:
    """Virtual keys or values: they come from nowhere, and enter attention as those of the text do."""
    pen.line((x + w / 2, y), (end, y), arrow=True)
    pen.box(x, y, w, 18, "virtual", _tip(added), radius=9)
    words = f"+{added.size}"
    cells = 3 if 3 * 8 + wide(words) + 14 < w else 1
    left = x - (8 * cells + 3 + wide(words)) / 2
    for i in range(cells):
        pen.box(left + 4 + 8 * i, y, 6, 8, "token", radius=0)
    pen.text(left + 8 * cells + 3, y, words, "start")


def _in_series(pen: Pen, added: Added, x: float, y: float) -> None:
    """A bottleneck in the line itself: wide, narrow, wide."""
    look = "trained" if added.trained else "frozen"
    half, waist, high = 17, 6, 19
    corners = [(-half, -high), (half, -high), (waist, 0), (half, high), (-half, high), (-waist, 0)]
    if added.acts == IDLE:
        x += 40
    if not added.size:
        corners = [(-half, -high / 2), (half, -high / 2), (half, high / 2), (-half, high / 2)]
    pen.shape([(x + dx, y + dy) for dx, dy in corners], look, _tip(added))
    name = added.name if len(added.name) <= 11 else added.name[:10] + "…"
    pen.text(x - half - 6, y - 7 if added.size else y, name, "end")
    if added.size:
        pen.text(x - half - 6, y + 7, f"m={added.size}", "end")


def _around(pen: Pen, sublayer: SubLayer, x: float, leg: float) -> None:
    """What leads around a whole sub-layer."""
    for i, added in enumerate(sublayer.around):
        y = 232 + 22 * i
        middle = (x + leg) / 2
        if added.acts == PARALLEL:
            pen.line((x, y), (leg, y), arrow=True)
            pen.plus(leg, y)
        pen.box(middle, y, max(60, wide(added.name) + 10), 18, "trained", _tip(added))
        pen.text(middle, y, added.name)


def _tip(added: Added) -> str:
    made = f", {added.made:,} of them a network that makes it" if added.made else ""
    return f"{added.name}, {added.acts}: {added.trained:,} trained{made}"


def _ends(pen: Pen, parts: BlockParts) -> None:
    """Below the block: the text and its embedding on the left, what reads the last states on the right."""
    y = _STRIP + 12
    front = [each for each in parts.embedding.added if each.acts == IN_FRONT]
    among = [each for each in parts.embedding.added if each.acts == AMONG]
    x = 108 if front and parts.kind != "decoder block" else 56
    if x > 56:  # what is in front joins the stream behind the embedding
        pen.line((x, _STRIP), (x, _STRIP - 12), (_START, _STRIP - 12))
        pen.line((_START, _STRIP), (_START, _STRIP + 5))
        for i in range(3):
            pen.box(_START - 11 + 11 * i, y, 10, 14, "token", _tip(front[0]), radius=0)
        pen.text(_START, y + 20, f"{front[0].size}", bold=True)
        pen.text(_START - 16, y + 34, "virtual", "start", colour=style.MUTED)
    pen.box(x, y, 84, 24, parts.embedding.look, f"{parts.embedding.name}: {parts.embedding.size:,} parameters")
    pen.text(x, y, "embedding")
    tokens = (parts.tokens[:8] or (False, True) * 3) if among else (False,) * 5
    pen.line((x, y + 25), (x, y + 13), arrow=True)
    for i, virtual in enumerate(tokens):
        left = x + 11 * (i - (len(tokens) - 1) / 2)
        pen.box(left, y + 32, 9, 12, "token" if virtual else "plain", radius=0 if virtual else 3)
    pen.place("text", x, y + 37, 92, 30)
    words = f"text, {among[0].size} virtual" if among else "text: t tokens"
    pen.text(x, y + 47, words, colour=style.MUTED)
    nameless = not parts.final.trained and parts.final.name == OTHER  # DeBERTa's distances: they are read everywhere
    behind = [box for box in (parts.final, parts.head) if box.size and not (box is parts.final and nameless)]
    for i, box in enumerate(behind):
        look = "head" if box is parts.head and box.trained else box.look
        if i:
            pen.line((704, y + 12), (704, y + 21), arrow=True)
        pen.box(704, y + 33 * i, 84, 24, look, f"{box.name}: {box.trained:,} of {box.size:,} parameters trained")
        colour = style.PAPER if look == "head" else style.INK
        pen.text(704, y + 33 * i, box.name, colour=colour)
    if not behind:
        pen.text(746, y, "last hidden states", "end", colour=style.MUTED)


def _legend(pen: Pen, parts: BlockParts) -> None:
    """What the looks that are there mean, and what the method does, in a sentence."""
    y, x = _STRIP + 6, 184
    boxes = [box for each in parts.sublayers for box in (*each.maps, each.norm)] + [parts.embedding, parts.final]
    looks = {box.look for box in boxes if box.size}
    acts = {added.acts for box in boxes for added in box.added} | {each.acts for each in parts.elsewhere}
    acts |= {added.acts for each in parts.sublayers for added in (*each.behind, *each.around)}
    virtual = bool(acts & {KEYS_VALUES, IN_FRONT, AMONG})
    entries = {
        "frozen": bool(looks - {"trained"}),
        "trained": "trained" in looks or bool(acts & {PARALLEL, SERIES}),
        "partly": "partly" in looks,
        "biases": "biases" in looks,
        "token": virtual,
    }
    names = {"partly": "a part trained", "biases": "bias trained", "token": "virtual token, trained"}
    for look in (look for look, there in entries.items() if there):
        pen.box(x, y, *((10, 12) if look == "token" else (20, 13)), look, radius=0 if look == "token" else 3)
        name = names.get(look, look)
        pen.text(x + 19, y, name, "start")
        x += 47 + wide(name)
    told = "; ".join(acting(parts)) or "nothing in this block is trained"
    told = f"{parts.method or 'No method is attached'}: {told}".replace("rank ", "rank\N{NO-BREAK SPACE}")
    for i, line in enumerate(wrap(told, 68, break_on_hyphens=False, max_lines=3, placeholder=" …")):
        pen.text(174, y + 20 + 15 * i, line, "start", 11.5)
