"""Lesson 01: what is said to a guess, and answers to compare with."""

from peft_edu.lab.exercises.model_answers import HINTS, model_answer

HINTS["By how many points of accuracy does the pretrained one win?"] = {
    "too low": "200 labels say what is asked. What the words mean was learned before, from many other sentences.",
    "too high": "Chance already gets half of them right, so the difference cannot exceed 50.",
    "right": "From scratch it is as good as a coin.",
}
HINTS["Which backward pass needs fewer operations?"] = {
    "training the bottom block": "The error comes from the top, and has to go all the way down to the bottom block.",
    "both the same": "The blocks are alike, but they do not lie at the same depth. The error comes from the top.",
}
HINTS["Trained on 200 sentences: how many of the new ones are right?"] = {
    "too high": "Look at the head alone: it can only read what the pretrained model offers.",
    "too low": "One block more than the head already makes most of the difference.",
    "right": "The step is from the head to one block. Further up the seeds lie further apart than the means.",
}
HINTS["The loss on old text is 0.7 before. After training everything, at a learning rate of 0.002?"] = {
    "too low": "Every weight was moved, and nothing in the loss asked for the old text.",
    "too high": "Guessing among all 1,068 tokens alike would cost 7 nats. Much is left.",
    "right": "The top block, with the same steps and the same learning rate, hardly forgets.",
}
model_answer(
    "The biases are less than 1% of the parameters. Why do they cost half of a full backward pass?",
    """Backward does two things at each weight matrix: it computes the gradient of the matrix itself, and the gradient
    of its input, which is handed further down. Each costs about as much as the other. There are biases in the
    lowest block and in the embedding's LayerNorm, so the error has to be handed down through every block, and that
    half of the work stays. Only the other half, the gradients of the matrices, is spared. The gradient of a bias
    itself is a sum, and costs next to nothing.""",
    "two products for each matrix: for the input and for the weight",
    "the lowest bias lies at the bottom, so the error goes all the way down",
    "what is spared is the gradients of the frozen matrices",
)
model_answer(
    "What risk does training everything carry with 200 sentences?",
    """A million parameters can fit 200 sentences in very many ways, and not each of them holds for new sentences. What
    is frozen cannot be bent to fit them, so less training keeps more of what the pretrained model knows. And a
    learning rate that suits most seeds can be too high for one: here one of five runs of full fine-tuning fell to
    80%. The means of two blocks, four blocks and everything cannot be told apart by five seeds. What differs is how
    steady they are, and what they cost.""",
    "many ways to fit few sentences, and few of them carry over",
    "single seeds fail: look at the worst one, and at the interval",
    "what is frozen stays as pretraining left it",
)
model_answer(
    "Accuracy on validation did not show that the model forgets. Why not?",
    """Validation asks the new task: is this review praise or blame? Training moves the weights so that this answer
    gets better, and nothing in the loss or in the score speaks of anything else. A weight that was needed for other
    text may move freely if the reviews do not need it. To see forgetting, one has to measure the old ability
    itself, with data that are kept for it, as here with the text that pretraining kept aside.""",
    "validation has the same kind of data as the new task",
    "nothing in the loss holds the old abilities in place",
    "what is not measured is not seen: keep some old data aside",
)
model_answer(
    "The halves have the same size. What does freezing the bottom half spare that freezing the top half does not?",
    """The error enters at the top. With the bottom half frozen it is carried through the top half only, and nothing
    below is needed: no gradients of inputs, and no activations kept there. With the top half frozen the error still
    has to pass through it to reach what is trained below. The top half's own weights need no gradient, but the
    gradients of their inputs are computed, and what these need is kept.""",
    "backward ends at the lowest trained weight",
    "through a frozen top the error is still carried",
    "activations below the lowest trained weight need not be kept",
)
