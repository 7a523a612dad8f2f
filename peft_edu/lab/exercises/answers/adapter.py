"""Lesson 02: what is said to a guess, and answers to compare with."""

from peft_edu.lab.exercises.model_answers import HINTS, model_answer

HINTS["Which one reaches more on the test sentences?"] = {
    "the top block": "It has far more parameters, but all of them above three frozen blocks.",
    "both alike": "In single runs they can be. Look at the means of five seeds above.",
}
product = "Two small maps are multiplied: what is added is of the order of the deviation squared."
HINTS["From which standard deviation on is the model worse than one that knows nothing?"] = dict.fromkeys(
    ("0.001", "0.01", "0.1"), product
)
HINTS["What does each bottleneck reach on reviews, the mean of five seeds?"] = {
    "too low": "Bottleneck 1 is still eight adapters, and the LayerNorms beside them.",
    "too high": "Some sentences stay hard for a model of four blocks.",
    "right": "What could have made it flat? Say it in the box below.",
}
HINTS["With trained head and LayerNorms, but without adapters: what accuracy is left, in per cent?"] = {
    "too low": "The LayerNorms were trained, too, and they stay.",
    "too high": "The head was trained on what the adapters make.",
}
model_answer(
    "Why must an adapter start near the identity, and why not with both maps at zero?",
    """The blocks were pretrained together: each one expects from the one below what it was given in pretraining. An
    adapter stands in the way of all of it. Near the identity nothing is lost at the start, and training begins at what
    the model can do. A large start mixes noise into every sub-layer's output, eight times in a row, and 200 sentences
    are too few to learn the language again. Both maps at zero would be the identity exactly, but each map's gradient
    has the other as a factor, so neither would ever move. Small random numbers, or one map at zero, do both.""",
    "everything passes through the adapter, so a large start destroys what was pretrained",
    "the gradient of each map has the other as a factor",
    "small random numbers are near enough, and can learn",
)
model_answer(
    "On reviews bottleneck 1 does as well as 64. What else than the bottleneck could have done the work?",
    """Three things. First the LayerNorms: all nine are trained, too, 2,304 parameters, and alone they reach nearly as
    much. Second the number of adapters: bottleneck 1 is still eight of them, one behind every sub-layer, each with a
    bias of the full width and a nonlinearity. Third the task: one decision a sentence, which needs few directions.
    A setting that makes no difference may mean that it does not matter, or that something else is enough.
    To tell these apart one has to switch the others off: freeze the LayerNorms, or take a harder task.""",
    "the LayerNorms are trained, too",
    "eight small adapters are not small together, and each has biases of full width",
    "a harder task may need more: one flat sweep says nothing about other tasks",
)
model_answer(
    "LoRA can be folded into the weights. Why can an adapter not?",
    """Folding works for what is linear in x. LoRA adds B A x to W x, and the sum is one matrix times x. An adapter
    without GELU is linear as well, only multiplied from the other side: (1 + W_up W_down) W. It could be folded, and
    the cell did it. GELU makes the difference: it treats an input and its opposite differently, and no matrix does.
    So the adapter must be computed for each text, after the sub-layer and before the next one: two small steps that
    the others wait for. That is what LoRA's authors wanted to avoid, and what they gave up for it is the
    nonlinearity.""",
    "only what is linear in x can become a part of a matrix",
    "GELU between the two maps is not linear: what it does to x is not minus what it does to -x",
    "the adapter stands in series, so everything waits for it",
)
