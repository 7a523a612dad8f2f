"""From a key on the slider to the new figure, in Chromium on a real JupyterLab: `python benchmarks/slider_latency.py`.

The page itself takes the times, from the key's event to the event by which the browser has decoded the new picture.
Each move goes to a value that was not there before, so that each figure is drawn anew.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "browser")]

from classroom import NoChromium, classroom  # noqa: E402

STOPWATCH = """card => {
    card.waits = [];
    let pressed = null;
    card.addEventListener("keydown", () => { pressed = performance.now(); }, true);
    card.querySelector("img").addEventListener("load", () => {
        if (pressed !== null) { card.waits.push(performance.now() - pressed); pressed = null; }
    });
}"""


def measure(lesson, card, slider, moves):
    """Seconds from key to figure, one a move. The first move warms up and is left out."""
    lesson.run_all(seconds=300)
    card = lesson.card(card)
    card.shown.evaluate(STOPWATCH)
    for _ in range(moves + 1):
        with card.changing("figure"):
            card.move(slider, "ArrowRight")
    return [milliseconds / 1000 for milliseconds in card.shown.evaluate("card => card.waits")][1:]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lesson", default="07_lora")
    parser.add_argument("--card", default="LoRA's rank", help="a text in the card")
    parser.add_argument("--slider", default="rank", help="the slider's label")
    parser.add_argument("--moves", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.moves < 2:
        parser.error(f"--moves is {arguments.moves}, but must be at least 2")
    try:
        with tempfile.TemporaryDirectory() as folder, classroom(Path(folder)) as room, room.desk() as open_lesson:
            seconds = measure(open_lesson(arguments.lesson), arguments.card, arguments.slider, arguments.moves)
    except NoChromium as error:
        sys.exit(str(error))
    slow = quantiles(seconds, n=10)[-1]
    print(f"{arguments.lesson}: {len(seconds)} moves, median {median(seconds):.3f} s, nine in ten within {slow:.3f} s")
