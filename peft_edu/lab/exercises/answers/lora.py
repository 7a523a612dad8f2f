"""Lesson 07: what is said to a guess, and answers to compare with."""

from peft_edu.lab.exercises.model_answers import HINTS, model_answer

HINTS["How many of 128 directions hold 90% of the energy, in the block that needs most?"] = {
    "too high": "A task's gradients have few directions, and so has their sum.",
    "too low": "The task is made of several patterns, each with its own.",
    "right": "Less than a quarter of the directions holds nine tenths of it.",
}
HINTS["B starts at zero. What if A starts at zero, too?"] = {
    "it learns more slowly": "Why never? Say it in the box below.",
    "it learns as well": "Why never? Say it in the box below.",
}
HINTS["How many points lie between the means of the best and the worst rank on reviews?"] = {
    "too high": "Eight matrices of rank 1 do a lot.",
    "too low": "Some seeds go wrong, at any rank: look at the worst one beside each mean.",
}
model_answer(
    "Where must A and B start, and why?",
    """With one of them at zero, B A is zero, so the first forward pass is the pretrained model's: training begins at
    what the model can do already. With both at zero nothing ever moves. The gradient of A has B as a factor,
    and that of B has A. Each waits for the other. With B = 0 and A random, the first step moves B alone, and
    from the second on both learn.""",
    "the start: B A = 0 leaves the model as it was",
    "the gradient of each has the other as a factor",
    "so with both at zero both gradients are zero, at every step",
)
model_answer(
    "What could the rank have to do with the task?",
    """The rank is how many directions of its input an update can read, and how many of its output it can write.
    reviews asks for one decision a sentence, and eight matrices of rank 1 are eight directions: enough to
    turn one decision round. aspects asks for a tag at every word, for several kinds of things, with praise
    and blame at once. More patterns have to be told apart, so one direction a matrix is soon full. What the
    rank limits is how many different changes fit into one matrix, not how large a change may be.""",
    "rank is a number of directions, not a size",
    "a task with few patterns fits into few directions",
    "all adapted matrices together have more directions than one of them",
)
model_answer(
    "Why does merging cost nothing at inference?",
    """LoRA computes W x and (alpha / r) B A x, and adds them. Both are linear in x, so the sum is one linear map
    of x as well, with the weight W + (alpha / r) B A. That matrix has the shape of W. Compute it once and
    put it in W's place: from then on each forward pass has the operations of the base model. An adapter
    cannot do this, as a nonlinearity stands between its two matrices. The price is paid elsewhere: to swap
    tasks one needs the base weights again, and in low precision the sum is rounded.""",
    "no nonlinearity stands between A and B: the update is linear in x",
    "B A has the shape of W, so the sum fits into W's place",
    "the adding is done once, before the first text, and not for each text",
)
model_answer(
    "Why does LoRA spare the optimiser's memory but hardly the activations'?",
    """AdamW keeps two moments for each trained parameter, and backward adds a gradient. LoRA trains about one parameter
    in a hundred, so these shrink to about a hundredth. Activations are something else. The gradient still travels
    through every block, down to the lowest A and B, and on its way it needs what forward kept: attention weights,
    what went into each nonlinearity and each LayerNorm. How large these are is decided by the batch and the length
    of the text. What is spared is the input of a frozen map, where nothing else needs it.""",
    "gradients and moments are counted by trained parameter",
    "activations are counted by batch, length and depth, and the gradient passes through all blocks",
    "some inputs are spared, since a frozen weight has no gradient: in this lesson 62% of the activations stayed",
)
