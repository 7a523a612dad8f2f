"""Lesson 03: what is said to a guess, and answers to compare with."""

from peft_edu.lab.exercises.model_answers import HINTS, model_answer

HINTS["With the best of five such instructions, what share of the facts does it tell, in per cent?"] = {
    "too high": "It writes as it is used to, and forgets or invents.",
    "too low": "In pretraining it has seen such openings.",
    "right": "Words help, up to a point.",
}
HINTS["A prefix of twenty zero keys and zero values: what does it do to the model's loss on new text?"] = {
    "nothing": "What share does a key of zero get? Say it in the box below.",
    "it rises a little": "Twenty of them stand beside a few tokens of text. Say why that counts in the box below.",
    "it more than doubles": "Now say why, in the box below.",
}
HINTS["Where does the trained prefix of 20 get most of the attention?"] = {
    "layer 1": "Before training, yes. Afterwards others look at the prefix more.",
    "layer 2": "The layers above it look at the prefix more.",
    "layer 3": "Some of it, but another layer pays more.",
    "layer 4": "There the model decides which word comes next.",
}
HINTS["Facts told of unseen venues after 150 steps, by the length of the prefix"] = {
    "too high": "Short prefixes tell less than half, and at 5 and 10 single seeds stay far behind.",
    "too low": "Twenty positions are enough for nearly all facts.",
    "right": "And behind some of the means lie seeds that are far apart.",
}
model_answer(
    "Why does a prefix of zeros change what the model writes?",
    """A key of zero gives every query the score 0, and e to the 0 is 1. So each of the twenty zero keys takes a share
    of the softmax, like any other key. What it brings for that share is a value of zero. The head's output is (1 -
    lambda) times what the text alone would give: it shrinks, in every head of every layer, and the more the
    less text there is. Only a key with the score minus infinity would take no share. No other fixed prefix leaves
    the model as it was either: its values would have to be, for each query, what the text gives anyway.""",
    "a score of 0 is no share of 0: e to the 0 is 1",
    "the share goes to values of zero, so the output of the text shrinks",
    "it happens in every layer, and hits the first tokens most",
)
model_answer(
    "A layer gives the prefix much of its attention. What does that tell you, and what not?",
    """It tells how much of a head's output comes from the prefix: lambda is the weight of the prefix's values in the
    sum. It does not tell what these values do. A prefix that gets little attention may bring large values, and one
    that gets much may bring values that hardly matter later. Before training the note got much attention in layer 1,
    and the facts were told badly all the same. Whether what a prefix says is good, only the task tells. And this is
    an average over heads, tokens and rows: a single head may look at nothing but the prefix.""",
    "lambda is a weight, not an effect: what counts is weight times value",
    "attention was high before training, too, and the score was not",
    "an average hides single heads and tokens",
)
model_answer(
    "Why do the seeds lie so far apart at lengths 5 and 10?",
    """The seed decides here in which order the rows come; the start is the same note. A short prefix has few parameters
    and takes a high learning rate, so a run makes large steps, and the first batches can throw it into a region from
    which 150 steps do not lead back. Then a run either finds the way to tell the facts or does not, and the mean of
    three says little: it lies where no run is. With twice the steps the stragglers come closer (section 12). To be sure
    one would need more seeds, and to look at the loss of each run.""",
    "runs find it or do not: look at the share of runs that do, not at the mean",
    "high learning rate and few steps: where a run goes is decided early",
    "three seeds are few: nothing is told about 5 against 10",
)
