"""Conversations: what a row says, and the token ids that a model's own chat template makes of it.

A row has `messages`, a list of {"role": "user", "content": "..."}; the other usual names are read too. The template is
the tokenizer's. The model learns the answers and the token that ends each of them, and nothing of what was asked.
"""

import json
from collections.abc import Iterator, Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

IGNORE = -100  # PyTorch's cross entropy leaves these positions out
ROLES = {"human": "user", "gpt": "assistant"} | {role: role for role in ("system", "user", "assistant")}
LISTS = ("messages", "conversations", "conversation")
ASKS = ("instruction", "prompt", "question", "query")
ANSWERS = ("response", "completion", "output", "answer")
Messages = list[dict[str, str]]


def has_conversation(columns: set[str]) -> bool:
    """Whether rows with these columns are conversations, by any of the names in use."""
    return bool(columns & set(LISTS)) or (bool(columns & set(ASKS)) and bool(columns & set(ANSWERS)))


def conversation(row: dict, where: str) -> dict:
    """The row with its `messages`; the last question as `source` and the last answer as `target`.

    Read are also `conversations` of {"from": "human", "value": ...}, and a question with its answer under the usual
    names (`instruction`, with an `input` below it, and `response` or `output`; `prompt` and `completion`; `system`).
    """
    column = next((name for name in LISTS if name in row), None)
    if column is None:
        messages = _single(row, where)
    else:
        listed = row[column]
        if isinstance(listed, str):  # a cell of a table
            try:
                listed = json.loads(listed)
            except (ValueError, RecursionError):
                listed = None
        if not isinstance(listed, list) or not listed:
            raise ValueError(f"{where}: {row[column]!r:.60} under {column!r}, where a list of messages must stand")
        messages = [_message(each, f"{where}, message {i}") for i, each in enumerate(listed, start=1)]
    check_turns(messages, where)
    asked = [each["content"] for each in messages if each["role"] == "user"]
    return row | {"messages": messages, "source": asked[-1], "target": messages[-1]["content"]}


def _single(row: dict, where: str) -> Messages:
    ask, answer = (next(name for name in names if name in row) for names in (ASKS, ANSWERS))
    texts = {name: row.get(name) for name in ("system", ask, answer)}
    for name in (ask, answer):
        if not isinstance(texts[name], str) or not texts[name].strip():
            raise ValueError(f"{where}: {texts[name]!r:.60} under {name!r}, where a text must stand")
    below = row.get("input") if isinstance(row.get("input"), str) else ""
    question = "\n\n".join(filter(None, [texts[ask], below]))
    parts = (("system", texts["system"]), ("user", question), ("assistant", texts[answer]))
    return [{"role": role, "content": text} for role, text in parts if isinstance(text, str) and text.strip()]


def _message(given: object, where: str) -> dict[str, str]:
    known = given if isinstance(given, dict) else {}
    role, content = known.get("role", known.get("from")), known.get("content", known.get("value"))
    if not isinstance(role, str) or role not in ROLES or not isinstance(content, str) or not content.strip():
        expected = '{"role": "user", "content": "..."}, of the roles system, user, assistant'
        raise ValueError(f"{where}: {given!r:.60}, but must be {expected}")
    return {"role": ROLES[role], "content": content}


def check_turns(messages: Messages, where: str) -> None:
    """One system message at most, in front; then question and answer by turns, an answer last."""
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if len(turns) % 2 or not turns or any(role != ("user", "assistant")[i % 2] for i, role in enumerate(turns)):
        expected = "user and assistant by turns, the assistant last, at most one system message in front"
        raise ValueError(f"{where}: the roles are {', '.join(roles)}, but must be {expected}")


def rendered(messages: Messages, tokenizer: PreTrainedTokenizerBase, answer_next: bool) -> str:
    """The conversation as text, as the model's own template writes it; `answer_next`: up to where an answer begins."""
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "this tokenizer has no chat template: its model was not tuned on conversations. Take one that was, as in "
            "backbone('smollm2-135m-instruct'), or set tokenizer.chat_template"
        )
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_next)
    except TemplateError as error:
        raise ValueError(f"the model's chat template refuses this conversation: {error}") from error


def parts(messages: Messages, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[list[int], bool]]:
    """The token ids of each piece of the conversation, and whether it is learned: of an answer all up to its end."""
    done = ""
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = rendered(messages[:i], tokenizer, answer_next=True)
        whole = rendered(messages[: i + 1], tokenizer, answer_next=False)
        if not (whole.startswith(asked) and asked.startswith(done)):
            raise ValueError(
                "the model's chat template rewrites earlier turns: one answer a row can be learned, no more"
            )
        yield _ids(asked[len(done) :], tokenizer), False
        answer = _ids(whole[len(asked) :], tokenizer)
        last = [place for place, token in enumerate(answer) if token == tokenizer.eos_token_id]
        end = last[-1] + 1 if last else len(answer)
        yield answer[:end] + [tokenizer.eos_token_id] * (not last), True  # an answer that never ends is never learned
        yield answer[end:], False
        done = whole


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def example(row: dict, tokenizer: PreTrainedTokenizerBase, name: str) -> dict[str, list[int]]:
    """Ids and labels. What is too long loses its beginning: the last answer is kept, or it is an error."""
    pieces = list(parts(row["messages"], tokenizer))
    while pieces and not pieces[-1][1]:
        pieces.pop()  # nothing is asked there any more
    most, last = tokenizer.model_max_length, len(pieces[-1][0])
    if last >= most:
        raise ValueError(
            f"{name}: an answer of {last} tokens, and the model reads {most} in all: {row['target']:.60}..."
        )
    ids = [token for piece, _ in pieces for token in piece]
    labels = [token if learned else IGNORE for piece, learned in pieces for token in piece]
    return {"input_ids": ids[-most:], "labels": labels[-most:]}


def prompt(row: dict, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the model reads before its last answer; what is too long loses its beginning."""
    pieces = list(parts(row["messages"], tokenizer))
    place = max(i for i, (_, learned) in enumerate(pieces) if learned)
    ids = [token for piece, _ in pieces[:place] for token in piece]
    return ids[-(tokenizer.model_max_length - len(pieces[place][0])) :]


def examples_in_front(rows: Sequence[dict], row: dict) -> dict:
    """The same question with the answers of other rows in front, as turns of one conversation: few-shot prompting."""
    system = [message for message in row["messages"][:1] if message["role"] == "system"]
    turns = [message for each in (*rows, row) for message in each["messages"] if message["role"] != "system"]
    return row | {"messages": [*system, *turns]}
