"""A dozen questions that a language model answers before it is adapted: what is left of them afterwards?"""

from peft_edu.lab.tasks.chat import conversation
from peft_edu.lab.tasks.task import Task

# Chosen because smollm2-135m-instruct answers all of them: so what is missed later was lost.
QUESTIONS = {
    "What is the capital of France?": ("The capital of France is", "Paris"),
    "What is the capital of Japan?": ("The capital of Japan is", "Tokyo"),
    "What is the capital of Germany?": ("The capital of Germany is", "Berlin"),
    "What is the capital of Egypt?": ("The capital of Egypt is", "Cairo"),
    "Which planet is called the red planet?": ("The red planet is", "Mars"),
    "What is the largest planet of the solar system?": ("The largest planet of the solar system is", "Jupiter"),
    "Who wrote Romeo and Juliet?": ("Romeo and Juliet was written by William", "Shakespeare"),
    "What language is spoken in Brazil?": ("The language of Brazil is", "Portuguese"),
    "What is the opposite of hot?": ("The opposite of hot is", "cold"),
    "What is the first month of the year?": ("The first month of the year is", "January"),
    "What is the currency of Japan?": ("The currency of Japan is the", "yen"),
    "What is the chemical symbol of gold?": ("The chemical symbol of gold is", "Au"),
}


def to_ask(question: str, sentence: str, answer: str) -> dict:
    """A question with the sentence that answers it; right is whatever text holds the answer itself."""
    return conversation({"prompt": question, "completion": sentence}, question) | {"slots": {"is": answer}}


def general_questions() -> Task:
    """The questions as a task of the kind `chat`: `evaluate` gives as `slots` the share of texts that hold the answer.

    >>> general_questions().rows("test")[0]["target"]
    'The capital of France is Paris.'
    """
    rows = [to_ask(question, f"{begins} {answer}.", answer) for question, (begins, answer) in QUESTIONS.items()]
    return Task("general", "chat", splits={"test": rows}, description="What a language model knows of the world.")
