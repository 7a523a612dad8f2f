"""Lesson 04: what is said to a guess, and answers to compare with."""

from peft_edu.lab.exercises.model_answers import HINTS, model_answer

HINTS["Asked 'Good or bad?', 'How was it?' or nothing: how often is the best right, in per cent?"] = {
    "too high": "Only the words Sad. and Happy. count. Read what it writes after the last question.",
    "right": "It never writes our words. Read what it writes after the last question.",
}
HINTS["How many answers are right after 100 steps, at each learning rate?"] = {
    "too high": "At the small ones the prompt hardly leaves the words that it started as.",
    "too low": "A learning rate of 1 would ruin a network. A prompt is no network: it only has to get somewhere.",
    "right": "And at 0.001, full fine-tuning's own, nothing happens at all.",
}
HINTS["On this small model, how many points is a prompt of 20 better than one of 1?"] = {
    "too high": "One virtual token is little, but it does something.",
    "too low": "This model is small: it needs to be asked at length.",
    "right": "Look at the large model, too: it is content with one.",
}
HINTS["What does the start token do to the accuracy of a prompt of one token?"] = {
    "nothing": "What stood before this token in pretraining never helped with what followed.",
    "it helps": "What stood before this token in pretraining never helped with what followed.",
}
HINTS["From how many million parameters on is a prompt of 20 within two points of full fine-tuning?"] = {
    "too low": "At that size there still is a gap.",
    "too high": "It closes earlier: look at the figure below.",
}
model_answer(
    "Fed by hand, the labels must grow with the prompt. Why not in your method?",
    """The loss compares each place of the logits with a label. Fed by hand, the plain model gives logits for p + t
    places, so there must be p + t labels, and those of the virtual tokens are -100, which leaves them out. Your
    hook takes the virtual tokens out behind the last block. The word head then sees t places and gives t logits,
    and the t labels fit as they are. The two losses are equal because nobody was to guess a virtual token, nor the
    first word behind them: the text's own labels begin with -100 as well, up to the answer.""",
    "one label for each place of the logits",
    "the hook takes the virtual tokens out before the word head",
    "-100 and taking out are two ways to ask nothing of a virtual token",
)
model_answer(
    "Why does a prompt need so much larger steps?",
    """AdamW divides each gradient by its own size, so one step moves a parameter by about the learning rate, however
    small or large the gradient is. How many steps it takes is then a question of how far it has to go. A virtual
    token starts as some word, and has to become something else, at a place as far off as another word is. In full
    fine-tuning hundreds of thousands of weights each move a little, and their effects add up through all blocks. A
    prompt has a thousand parameters or so, at one place, and each of them has to move far.""",
    "a step of AdamW is about the learning rate long, whatever the gradient is",
    "an embedding has to move as far as words lie apart",
    "few parameters that move far, instead of many that move a little",
)
model_answer(
    "With one virtual token the large model answers nearly all. Where did it learn that?",
    """In pretraining. Section 1 shows it: after a question in words the frozen model preferred the right one of our two
    words in all of 200 sentences, without any training. What it lacked was the question, and which words to answer
    with. The prompt supplies both, and 128 parameters are enough for that. It could not have learned what praise and
    blame are in so few parameters. So a prompt that works says much about the model. One that does not may be too
    short, or trained with too small a learning rate, or there may be nothing in the model to ask for.""",
    "the frozen model can tell praise from blame already",
    "the prompt says what is asked, and which words are the answers",
    "so its success depends on the model first of all",
)
