"""Lesson 10: what is said to a guess, and answers to compare with."""

from peft_edu.lab.exercises.model_answers import HINTS, model_answer

HINTS["Each weight is rounded to one of sixteen numbers. By how many per cent does the loss grow?"] = {
    "too high": "On the whole the weights move by 9 to 10% of their size (rms), up or down. In a sum of hundreds such "
    "moves mostly cancel.",
    "too low": "It is not for nothing: something is lost. The next sections show how to lose little.",
}
HINTS["Which sixteen levels lose least on the weights of a real model?"] = {
    "equal steps": "Most weights are small: more than half of these levels serve a fifth of the weights.",
    "as floating-point numbers": "They are too close around 0, and too far apart where the weights are.",
    "quantiles of the normal distribution": "The levels are where the weights are.",
}
HINTS[
    "An update of 3% of the weights' size is added to packed weights, and packed again. How many per cent survive?"
] = {
    "too high": "A packed weight lies on a level. What moves it by less than half a step is rounded back.",
    "too low": "The largest weight of each block is its scale, and keeps its update. A few others lie near a border.",
}
model_answer(
    "Why is LoRA not rounded to levels, as the weights beside it are?",
    """A step of training changes a parameter by a small part of its size. Between two of sixteen levels there is no
    room for that: each step would be rounded away, and nothing would ever be learned. So what is trained needs fine
    numbers. What is frozen does not: its error stays the same all the time, and A and B can even learn to make up for
    a part of it. And A and B are few: in 16 or 32 bits they hardly count.""",
    "a training step is much smaller than the gap between two levels",
    "frozen weights need not move, so their error stays as it is",
    "A and B are so few that 16 or 32 bits each cost nearly nothing",
)
model_answer(
    "Why does the package refuse to merge into 4 bits, and what do you do instead?",
    """Packed weights lie on their levels, and an update of a few per cent does not take them over the border to the
    next one: rounding brings them back, and the update is gone. Of a large update most survives, but mixed with new
    noise, and nobody tells. So keep the model as it was. Load the LoRA into it, merge there, and pack the
    result if you like: then the weights are rounded once, from W + BA, which lies on no levels. Or do not merge at all:
    beside packed weights the LoRA costs little.""",
    "packed weights lie on levels: small moves are rounded back",
    "merge into the weights as they were before packing",
    "or leave the LoRA beside the packed weights",
)
