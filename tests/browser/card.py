"""A card like those of the lessons, small: each part between two marks becomes a cell of the notebook `card`."""

# %%
import threading
import time
from io import BytesIO

import ipywidgets as widgets
from matplotlib.figure import Figure

# %%
title, result = widgets.HTML("<b>The card</b>"), widgets.HTML("rank 8")
rank = widgets.IntSlider(8, 1, 64, description="rank")
train, stop = widgets.Button(description="train"), widgets.Button(description="stop")
progress = widgets.IntProgress(max=500)
image = widgets.Image()
stopped = threading.Event()


# %%
def picture(rank):
    figure = Figure(figsize=(4, 1.5))
    figure.subplots().bar(["rank"], [rank])
    figure.savefig(buffer := BytesIO(), format="png")
    return buffer.getvalue()


def show(change):
    result.value = f"rank {change.new}"
    image.value = picture(change.new)


# %%
def steps():
    stopped.clear()
    for step in range(1, 501):
        if stopped.is_set():
            break
        progress.value = step
        result.value = f"step {step}"
        time.sleep(0.02)
    result.value = f"stopped after {step} steps" if step < 500 else "done"


# %%
rank.observe(show, "value")
train.on_click(lambda _: threading.Thread(target=steps).start())
stop.on_click(lambda _: stopped.set())
image.value = picture(rank.value)
widgets.VBox([title, widgets.HBox([rank, train, stop]), progress, result, image])
