"""Lesson 12: what is said to a guess, and answers to compare with."""

from peft_edu.lab.exercises.model_answers import HINTS, model_answer

HINTS["The model is fine-tuned on the chosen texts alone. What is its win rate, in per cent?"] = {
    "too high": "The chosen texts are its own: it would have written half of them anyway. That they are better than "
    "something else, the loss never sees.",
    "too low": "They are a little happier than the rest, and a little of that is learned.",
}
HINTS["Before the first step, with beta 0.3: how large is DPO's loss?"] = {
    "too high": "B is zero: policy and reference are the same model. What is the log-ratio then?",
    "too low": "The model does not know yet which text is the better one: a coin has log 2.",
}
HINTS["Draw the win rate that DPO reaches with each beta, in per cent"] = {
    "too high": "Against a supervised text that is happy already, the best is a tie.",
    "too low": "One half is where it starts: that is a model which learned nothing.",
}
HINTS["How far does a policy go in 30 steps, in nats of KL, if nothing costs?"] = {
    "too high": "It is far all the same: read what it writes there.",
    "too low": "Nothing holds it back: each step takes it where praise is more frequent, and nothing leads back.",
}
HINTS[
    "Five runs on a reward model of 25 pairs, no price. In how many does the judge's verdict first rise, and then fall "
    "by 0.1 or more?"
] = {
    "too high": "A reward model that errs need not err where the policy goes. It may, and nobody knows before.",
    "too low": "The policy looks for what scores high, and some of that is no praise at all.",
}
model_answer(
    "Why does the second LoRA give the reference for nothing? What would full fine-tuning need?",
    """The weights are frozen, and the LoRA only adds to what they compute. Take its addition away, and the same weights
    are the model as it was before: the reference. So one model in memory serves as both. Full fine-tuning changes the
    weights themselves: what they were would be gone, so it must keep a second copy of the whole model.""",
    "the base is frozen, and the LoRA stands beside it",
    "switched off, the model is the reference, bit for bit",
    "full fine-tuning needs a second copy of all weights",
)
model_answer(
    "The loss falls, and yet the chosen texts become less likely. How can that be?",
    """The loss knows only the difference: the chosen text's log-ratio minus that of the rejected one. It grows just as
    well if both fall and the rejected one falls further. And the two share most of what makes them likely, words and
    grammar of the same model: pushing one down takes the other along. The probability goes to texts that are in no
    pair. With a small beta much of it goes to texts that are no language.""",
    "only the difference of the two log-ratios counts",
    "both may fall if the rejected one falls further",
    "the probability goes to other texts, which no pair has judged",
)
model_answer(
    "What does the price for KL prevent, if the judge is the same?",
    """The judge hears its words, and nothing else: a heap of praise scores as high as a review. Without a price such a
    heap is as good as anything, and the policy has no reason to stay with language. The price is that reason: each
    token that the supervised model would hardly write costs reward. What is happy and costs little is happy English. It
    does not make the judge wiser. It keeps the policy where the judge's verdict still means something.""",
    "the judge does not hear whether a text is language",
    "unlikely tokens cost reward, so happy English wins",
    "the judge is as it was: the policy stays where it can be trusted",
)
