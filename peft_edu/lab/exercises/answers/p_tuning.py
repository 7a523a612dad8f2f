"""Lesson 05: what is said to a guess, and answers to compare with."""

from peft_edu.lab.exercises.model_answers import HINTS, model_answer

HINTS["How many birthplaces does 'Georg Balford was born in [MASK].' find, in per cent?"] = {
    "too high": "The corpus has 'was born on a Monday', and never says where with these words.",
    "too low": "A few are found by chance: there are 24 towns.",
    "right": "Of 84 people that is five. And yet the model knows all 84.",
}
HINTS["You change x_1 alone, the input of the first of nine pseudo tokens. How many of the nine embeddings change?"] = {
    "too high": "There are nine pseudo tokens.",
    "too low": "The LSTM carries what it reads from each place to all others, to the right and to the left.",
    "right": "Through the LSTM they learn together. Without an encoder it would be one.",
}
HINTS["How many birthplaces does it find of people that it was not trained on, in per cent?"] = {
    "too low": "24 towns are too many to guess: what it finds, the model knew.",
    "right": "The model knew them all, and the template has learned how to ask.",
}
HINTS["Five people to learn from: all nine pseudo tokens in front instead of around. What does that cost?"] = {
    "less than 5 points": "From 44 people it costs less. Five people do not say enough to make up for bad places.",
    "5 to 20 points": "That is about what it costs with 44 people to learn from.",
}
model_answer(
    "A learner says: the encoder is a part of the model now, so it must be kept. What do you answer?",
    """The encoder never reads the text. Its inputs x are parameters of its own, so once training has ended it gives
    the same n embeddings at every call. Compute them once, put them where the encoder stood, and nothing
    changes: n d parameters are left of more than two hundred thousand. The encoder is there for the training.
    Its weights are shared by all pseudo tokens, so that they learn together, and it makes small steps large.
    An adapter is different: it reads what the model computes for this text, so it must stay.""",
    "its input is trained and is the same for every text, so its output is, too",
    "n d parameters are kept: the embeddings that it makes",
    "it helps (or is meant to help) the training, not the answering",
)
model_answer(
    "How do you know that the template asks for the facts, and has not learned the answers by heart?",
    """It was asked about 30 people who did not take part in the training. What could be learned by heart, the towns of
    the 44 others, says nothing about them: it would find about as many as a guess among 24 towns does, one in
    24. It finds nearly all. So the facts were in the model before, and the template has learned to ask for them.
    The score on the people of the training cannot tell the two apart. Two warnings: the candidates were given,
    and a model that knows only a half shows that a template learns by heart, too (section 15).""",
    "the people of the test are others than those of the training",
    "the chance level: one of 24 candidates",
    "the score on the people of the training says nothing",
)
