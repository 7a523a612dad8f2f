"""Lesson 09: what is said to a guess, and answers to compare with."""

from peft_edu.lab.exercises.model_answers import HINTS, model_answer

HINTS["Untrained, with the instruction alone: how many of ten records come out all right?"] = {
    "too high": "It answers in JSON, and about the right text. But it renames fields and mixes up values.",
    "right": "The form is nearly there. The content is not.",
}
HINTS["And with three examples in front of the question?"] = {
    "too high": "It copies the form at once. Which name is the visitor's, and which verdict is meant, is still hard.",
    "right": "The form is there at once. Which name is the visitor's, and which verdict is meant, is still hard.",
}
HINTS["After 30 steps, 60 conversations: how many of ten are all right?"] = {
    "0 to 3": "It trains a third of a per cent. But it is a model that knows English already.",
    "4 to 6": "That is more than three examples in front reached, and less than it can learn.",
}
HINTS["Of twelve questions that it answered before: how many now?"] = {
    "0 to 4": "It learned to answer one kind of question. What is asked in other words is hardly touched.",
    "5 to 8": "Sixty short conversations about visits leave most of the rest alone.",
}
model_answer(
    "Why is the question not learned?",
    """The question will always be given. The model is never asked to write it, so a loss on it buys nothing that is
    wanted. It costs: most tokens of a row are question, so most of the gradient would go into writing questions
    like these, and into the template, which is the same each time. The label -100 leaves a token out of the loss. The
    model still reads it: it is what the answer is conditioned on.""",
    "it is given at inference, so nobody needs it written",
    "most tokens are question: they would take most of the gradient",
    "-100 takes a token out of the loss, not out of what is read",
)
model_answer(
    "Three examples in front, or sixty conversations of training: what does each cost, and who pays?",
    """Examples in front cost no training, and can be changed at once. They are paid with every question: the model
    reads about four times as many tokens, each time, for every user. They also fill the context. Training is paid once,
    here a minute or two, and then each question is as short as before. So with a handful of questions the examples
    win. With thousands the training does, and in the run of this lesson, one seed, it was also better.""",
    "in front: no training, but each question is about four times as long",
    "training: paid once, and the questions stay short",
    "so it depends on how many questions follow",
)
model_answer(
    "Why does the model with the adapter off answer exactly as before?",
    """LoRA never writes into W. It stands beside it, and its hook adds B A x to what W x gives. Switch the hook off,
    and what is left is the base model, bit for bit. So one copy of the base in memory serves as both, and whatever was
    forgotten was never gone. After full fine-tuning there is no way back: W itself was changed.""",
    "W is frozen: only A and B were trained",
    "the hook adds; without it W x is what it was",
    "full fine-tuning has no such switch",
)
