"""Lesson 07: model answers to what it asks to explain."""

from peft_edu.lab.exercises.model_answers import model_answer

model_answer(
    "Why does merging cost nothing at inference?",
    "Beside the weight, LoRA computes W x and (alpha / r) B A x and adds them. Both are linear in x. So the sum is one "
    "linear map of x as well, and its weight is W + (alpha / r) B A. That matrix has the shape of W. Compute it once, "
    "put it in W's place, and each forward pass multiplies with one matrix of the old size, as the base model does. "
    "An adapter cannot do this: there is a nonlinearity between its two matrices, so it stays in the path.",
    "The update is linear in x: no nonlinearity stands between A and B.",
    "B A has the shape of W, so the sum fits into W's place: the same operations as in the base model.",
    "The work of adding is done once, before the first text; it is not done again for each text.",
)
model_answer(
    "Why must one of A and B start at zero, and why not both?",
    "If one of them is zero, B A is zero, and training starts exactly at the pretrained model instead of beside it. "
    "But the gradient of A has B as a factor, and the gradient of B has A as a factor. With B = 0 and a random A, the "
    "first step moves B alone; from then on both learn. With both at zero, both gradients are zero, now and after "
    "every step: each waits for the other, and nothing is ever learned.",
    "Zero times anything is zero: the model at the start is the pretrained one.",
    "Each gradient is a product with the other matrix, so two zeros never move.",
    "In the first step only the one that is zero gets a gradient. That is enough to begin.",
)
model_answer(
    "Why does LoRA spare the optimiser's memory but hardly the activations'?",
    "AdamW keeps two moments for each parameter that is trained, and backward adds a gradient. LoRA trains about one "
    "parameter in a hundred, so these three shrink to about a hundredth. Activations are something else. The gradient "
    "still has to travel through every block, down to the lowest A and B, and on its way it needs what the forward "
    "pass kept: attention weights, what goes into each nonlinearity and each LayerNorm. How large these are is decided "
    "by the batch and the length of the text, not by how many parameters are trained. What is spared is the input of a "
    "frozen map, where nothing else needs it: that was kept only for the gradient of its weight.",
    "Gradients and moments are counted by trained parameter.",
    "Activations are counted by batch, length and depth, and the gradient must pass through all blocks.",
    "Some inputs are spared, since a frozen weight has no gradient: in this lesson 62% of the activations stayed.",
)
model_answer(
    "On reviews rank 1 is enough, on aspects it is not. What could the rank have to do with the task?",
    "The rank says in how many directions an update may change what one map reads and writes. reviews asks for a single "
    "decision about a whole sentence: good or bad. The pretrained model knows most of it, and one direction in each of "
    "eight maps can be enough to bring it out. aspects asks for a tag at every word: where a thing begins, where it "
    "ends, and what is said of it. These are several decisions at once, and they may need directions of their own. "
    "That is a guess that fits the numbers, not a proof. All ranks were trained at one learning rate, and rank 1 may "
    "also be harder to train: its best seed reaches 94, its worst 78.",
    "The rank limits how many independent directions a map's change has; the task decides how many are needed.",
    "One label for a sentence against a tag for each word: more to tell apart, so more directions.",
    "It is an assumption: how well rank 1 was trained could explain a part. One could test it with other learning "
    "rates, or by the singular values of full fine-tuning's change on both tasks.",
)
