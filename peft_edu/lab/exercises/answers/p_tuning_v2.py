"""Lesson 06: what is said to a guess, and answers to compare with."""

from peft_edu.lab.exercises.model_answers import HINTS, model_answer

HINTS["Full fine-tuning has an F1 of nearly 100. What has the prompt of 64 positions at the input?"] = {
    "too high": "A long prompt at the input has to work through four frozen layers, and is hard to train.",
    "too low": "It does far more than a task head alone, which has about 52.",
}
HINTS["75 steps with your 4 positions in each layer: what F1?"] = {
    "too low": "In pretraining the model has learned who gives and who gets. The prompts have to bring it out.",
}
HINTS["Prompts of 4 positions in the top layers alone: what accuracy on reviews?"] = {
    "too high": "One layer alone can change what attention gives there, and no more is computed behind it.",
    "too low": "From the second layer on it is nearly as good as all four.",
}
HINTS["Reviews, 8,192 parameters: how many points are deep prompts ahead of shallow ones?"] = {
    "too high": "The shallow ones are far above chance all the same.",
    "too low": "A longer prompt at the input gets no better here, a deeper one does.",
}
model_answer(
    "P-tuning v2 takes over prefix tuning's keys and values. What is different, then?",
    """Nothing in what is computed: with the same numbers both give the same answers. What is different is what it is
    used for, and how. Prefix tuning was made for models that write, and the model's own language-model head gives the
    words. P-tuning v2 is for understanding: an encoder, and a new linear task head over each word or over the whole
    text, trained beside the prompts. It drops the words that P-tuning and prompt tuning answer with, so that it can
    tag. And it finds that neither the MLP nor all layers are always needed.""",
    "the keys and values, and their place, are the same",
    "a linear task head answers, and no word of the vocabulary: so each word can get a tag",
    "the MLP and the layers are choices that depend on the task",
)
model_answer(
    "Why may a prompt in an upper layer be worth more than one below?",
    """A prompt changes what attention adds to the residual stream in its own layer. Above it come frozen layers, which
    were not trained with it. They pass on what they know how to read, and the rest may be lost: like the direction
    that W could not see in section 2. A prompt near the top has less to pass through, and what stands there is nearer
    to what the task head reads. But the topmost layer alone is not enough: what it reads must have been put into
    the stream below, and no layer comes after it to use what it found. This is a likely reason, and no proof.""",
    "what is put in below has to pass through the frozen layers above",
    "upper layers hold what a task head can use",
    "one layer alone leaves no layer to work on what it changed",
)
model_answer(
    "A prompt at the input stays behind. Can it not say what is asked, or can it not be trained to?",
    """Look at the sentences that it learns from. If it could not express the task, or if training got stuck, it would
    fail on these, too. Here it has nearly all of them right, and its loss is near zero. So it can say it for these
    sentences, and training gets there. What it lacks is that this carries over: on new sentences it is some points
    behind. To tell this from a prompt that is only trained badly, one would give it more sentences, and more
    steps, and see whether the gap closes.""",
    "the training sentences tell: it has nearly all of them right",
    "so what is missing is how much carries over to new sentences",
    "more sentences or steps would be the next measurement",
)
