"""Preferences: rows that say which of two answers to a prompt is the better one.

A row has `prompt`, `chosen` and `rejected`, as texts. Lists of messages are read too, as data sets of conversations
have them: the last message of `chosen` and of `rejected` is the answer, and what stands before it the same in both.
"""

from peft_edu.lab.tasks.chat import Messages, conversation


def preference(row: dict, where: str) -> dict:
    """The row with its texts, with `turns`, what was said before the answer, and, as in rows of other kinds, with the
    prompt as `source` and the chosen answer as `target`."""
    (before, chosen), (other, rejected) = (_answer(row, side, where) for side in ("chosen", "rejected"))
    if before != other:
        raise ValueError(f"{where}: 'chosen' and 'rejected' answer different conversations; they differ in the answer")
    if chosen.split() == rejected.split():
        raise ValueError(f"{where}: 'chosen' and 'rejected' are the same text, {chosen!r:.60}: nothing is preferred")
    turns = before or _prompt(row, where)
    told = {"prompt": turns[-1]["content"], "chosen": chosen, "rejected": rejected}
    return row | told | {"turns": turns, "source": turns[-1]["content"], "target": chosen}


def _answer(row: dict, side: str, where: str) -> tuple[Messages, str]:
    """What was said before an answer, if the row tells it there, and the answer."""
    given = row.get(side)
    if isinstance(given, list):
        *before, answer = _messages([{"role": "user", "content": "-"}, *given] if len(given) == 1 else given, where)
        return (before if len(given) > 1 else []), answer["content"]
    return [], _text(given, side, where)


def _prompt(row: dict, where: str) -> Messages:
    given = row.get("prompt")
    if isinstance(given, list):
        return _messages([*given, {"role": "assistant", "content": "-"}], where)[:-1]
    return [{"role": "user", "content": _text(given, "prompt", where)}]


def _messages(given: list, where: str) -> Messages:
    return conversation({"messages": given}, where)["messages"]


def _text(given: object, column: str, where: str) -> str:
    if not isinstance(given, str) or not given.strip():
        told = "nothing" if given is None or given == "" else f"{given!r:.60}"
        raise ValueError(f"{where}: {told} under {column!r}, where a text must stand")
    return given
