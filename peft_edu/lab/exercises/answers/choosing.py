"""Lesson 08: what is said to a guess, and answers to compare with."""

from peft_edu.lab.exercises.model_answers import HINTS, model_answer

HINTS["On how many of nine tasks is the mean of LoRA within 2 points of that of full fine-tuning?"] = {
    "too high": "Two tasks ask for something that the model did not bring along. Which ones? Look at the picture.",
    "too low": "Most of these tasks ask for what the model knows already: a small change brings it out.",
}
HINTS["LoRA's backward pass: how many per cent of full fine-tuning's operations?"] = {
    "too high": "No gradient of a frozen weight is computed. That is one of the two halves.",
    "too low": "The error still has to travel down to the lowest LoRA. That is one of the two halves.",
}
HINTS["On how many of nine tasks does the choice change if the mean counts, and not the worst seed?"] = {
    "too high": "Where all seeds of the small methods agree, mean and worst seed choose the same.",
    "too low": "Look for methods with a good mean and one bad seed, near to the bound of 2 points.",
}
HINTS["LoRA on reviews: the accuracy at each learning rate"] = {
    "too high": "There is less room than one thinks. Too low, and 150 steps get nowhere. Too high, and it breaks.",
    "too low": "In the middle it does as well as full fine-tuning.",
}
HINTS["Which needs most operations for one text?"] = {
    "adapter": "Two thin matrices behind each sub-layer are small beside the maps of the block.",
    "LoRA": "Two thin matrices beside each map are small beside the map. And merged they are gone.",
    "prefix": "A prefix is seen by attention only. No block has to compute it.",
    "prompt": "These texts are short, and twenty tokens more go through every block.",
}
model_answer(
    "LoRA trains two parameters in a hundred. Why does it not save 98% of the backward pass?",
    """Backward does two things at each map. It computes the gradient of the weight, and it passes the error on to what
    lies below. A frozen weight needs no gradient, so the first half is saved nearly whole. But the lowest LoRA lies in
    the first block, and the error has to come down to it through every map above, frozen or not. So the second half
    stays. The forward pass stays as well. Who wants to save more must put the lowest trained parameter higher up, as
    top blocks do.""",
    "two halves: the gradient of the weight, and the error for the layer below",
    "the error passes through frozen maps down to the lowest trained parameter",
    "the forward pass is the same",
)
model_answer(
    "A method lies on the Pareto front. Why is that not yet a reason to take it?",
    """The front says only that no other method of the picture trains no more and scores no less. It does not say how
    much a step along it is worth: from one method to the next a tenth of a point may cost ten times the
    parameters. It is also a front of means: with other seeds, other steps or other learning rates a neighbour may
    change places with it. And the two axes leave out what you may care about most: operations, the hours that a good
    learning rate takes to find, the task that you have.""",
    "the front leaves out what is beaten; it does not choose among the rest",
    "the points are means of few seeds, at one budget of steps",
    "what is on no axis, such as operations or the search for a learning rate, is not seen",
)
model_answer(
    "Why does validation choose, and test only tell?",
    """Each score has some luck in it: which rows were drawn, which seed. Who takes the highest of many scores takes the
    luck along, so the highest score is too good as a promise. That holds for validation, too, and does no harm there:
    it only has to order the candidates. The test rows have chosen nothing, so their score has no such luck in it, and
    is an honest forecast for new texts. Once it has been used to choose, it is a second validation set.""",
    "the best of many scores is partly luck",
    "a score that has chosen promises too much",
    "the test rows stay honest as long as they choose nothing",
)
