"""Where the texts and boxes of an SVG lie, in pixels: what a test asks to know whether a picture can be read."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import combinations

NAMESPACE = "{http://www.w3.org/2000/svg}"
Box = tuple[float, float, float, float]  # left, top, right, bottom


def texts(picture: str) -> Iterator[tuple[str, float, Box]]:
    """Each text with its size and a rough box."""
    for each in ElementTree.fromstring(picture).iter(f"{NAMESPACE}text"):
        x, y, size = (float(each.get(name)) for name in ("x", "y", "font-size"))
        wide = 0.56 * size * len(each.text or "")
        left = x - {"start": 0, "middle": wide / 2, "end": wide}[each.get("text-anchor")]
        yield each.text, size, (left, y - 0.8 * size, left + wide, y + 0.2 * size)


def rectangles(picture: str) -> Iterator[Box]:
    for each in ElementTree.fromstring(picture).findall(f"{NAMESPACE}rect"):
        x, y, w, h = (float(each.get(name)) for name in ("x", "y", "width", "height"))
        yield x, y, x + w, y + h


def shared(one: Box, other: Box) -> tuple[float, float]:
    """How wide and how high two boxes overlap."""
    return min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])


def texts_are_readable(picture: str, width: float, height: float) -> None:
    """They are large enough, lie within the picture, touch no other text, and stand in a box or beside it."""
    words = list(texts(picture))
    assert all(size >= 11 for _, size, _ in words)
    for text, _, (left, top, right, bottom) in words:
        assert left >= 5 and right <= width - 5 and top >= 0 and bottom <= height, text
    for (text, _, box), (other, _, another) in combinations(words, 2):
        assert min(shared(box, another)) <= 0, (text, other)
    boxes = [box for box in rectangles(picture) if box[2] - box[0] < 700 and box[2] - box[0] > 12]
    for text, _, box in words:
        for rectangle in boxes:
            w, h = shared(box, rectangle)
            inside = w >= box[2] - box[0] - 4 and h >= box[3] - box[1] - 4
            assert inside or min(w, h) <= 1, (text, rectangle)
