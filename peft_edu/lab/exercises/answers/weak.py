"""Lesson 11: what is said to a guess, and answers to compare with."""

from peft_edu.lab.exercises.model_answers import HINTS, model_answer

HINTS["The rules are right on 78 of 100 sentences. On how many is a model that learned from their votes alone?"] = {
    "too low": "All its labels were right, and the sentences without a vote are like those with one.",
    "right": "It is right where no rule votes, too.",
    "too high": "A few sentences stay difficult.",
}
HINTS["A wrong rule votes twice, under two names. Which one is hurt more?"] = {
    "the majority": "In a majority two votes count twice, and no more. Who draws conclusions from agreement?",
    "both alike": "Two votes count twice for both. But who draws conclusions from agreement?",
}
HINTS["How right is a model that learned from n true labels?"] = {
    "too high": "With 25 labels it hardly knows what it is asked; negations that it has never met need examples.",
    "too low": "The model was pretrained: a few dozen labels go far.",
}
HINTS["Of 878 labels 97% are right. On how many of 100 test sentences is their student right?"] = {
    "too high": "It depends on which sentences have a label. Read some of them.",
    "too low": "It has learned something: the kind of sentence that its teacher is sure of.",
}
HINTS[
    "A quarter of the labels is wrong at random. After 600 steps, which one repeats the wrong labels it was given?"
] = {
    "full fine-tuning alone": "16,384 parameters beside the head are many for 279 wrong labels.",
    "LoRA alone": "Full fine-tuning has hundreds of parameters for each sentence.",
    "neither": "600 steps go over these sentences 17 times.",
}
model_answer(
    "Why does a label model believe two rules that copy each other?",
    """It has no labels. All that it can see is who agrees with whom. Two rules that agree more often than chance
    would have it must agree for a reason, and the model knows one reason only: both see the truth. That one is a
    copy of the other is another reason, but there is no place for it: the product over the rules says that, given
    the class, they err apart from each other. So the copies look perfect, and whoever contradicts them looks
    wrong. The majority is hurt as well, since one rule now has two votes. But it draws no conclusion from that,
    and takes no weight from the others.""",
    "agreement is its only evidence",
    "what the model takes for granted: given the class, rules err apart from each other",
    "so a copy is taken for a confirmation, and who contradicts it loses weight",
)
model_answer(
    "How can a student know more than the rules that taught it?",
    """A rule sees its words and nothing else. The model was pretrained: it knows that musty and stale stand in
    the same places. From a label on a stale pillow it learns what to do with a kind of word, not with one word,
    and how a negation turns it. So it is right on sentences of which no rule knows a word. It can be, because the
    labels are right, and because the sentences with a vote are like those without: the same negations, the same
    contrasts, other words.""",
    "pretraining ties words together that the rules do not have",
    "it reads the whole sentence, not only the words of a rule",
    "the sentences that got a label must be like those that got none",
)
model_answer(
    "Why do labels that are nearly all right teach so little here?",
    """Because of which sentences they are. tiny-gpt2 has never met these negations: no text of its pretraining has
    them. It is sure where there is none, and right there. Of the sentences that it labels, one in ten has such a
    negation in its main clause; of all sentences it is half. So the student hardly sees what "failed to be" does,
    and what it sees of it is often wrong. On sentences like those that it learned from it is nearly always right,
    on the others it guesses. The share of right labels says nothing of what is missing among them.""",
    "the teacher chose the sentences: selection bias",
    "what the teacher cannot do is missing from what the student sees",
    "the share of right labels cannot show that: look at which rows have a label",
)
model_answer(
    "Why does stopping early help against labels that are wrong at random, and not against a wrong rule?",
    """A student first learns what explains many labels at once. Nothing simple explains wrong labels that were
    drawn at random: early in training they pull this way and that, and nearly cancel. Only with many more steps
    does the model learn them by heart, one by one, and pays for it on test. So there is a time to stop. The wrong
    labels of a rule have a simple explanation: some negations do nothing. That is as easy to learn as the truth,
    so it is learned at once and used on every new sentence of the kind. No step is early enough.""",
    "at random: no simple function gives the wrong labels, so they are learned late and one by one",
    "by rule: a simple function of the text gives them, and it is learned as early as the truth",
    "learned by heart it harms little elsewhere; learned as a rule it is applied everywhere",
)
