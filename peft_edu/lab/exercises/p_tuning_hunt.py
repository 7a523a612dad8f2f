"""Lesson 05, the hunt: P-tuning that trains, but badly. The lesson's cells have three faults that people make, and none
stops with an error: the encoder reads noise that is drawn anew at every call, all pseudo tokens get the first one's
embedding, and they are put into the first text of a batch alone. MEASURED
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from peft_edu.lab.exercises.check import Misconception, NotWritten, exercise
from peft_edu.lab.exercises.p_tuning_method import PSEUDO_TEXTS, SHORT, PromptEncoder, handed_on, put_in
from peft_edu.lab.exercises.whole_method import tiny_model
from peft_edu.method import METHODS, Method


class Hunted(PromptEncoder):
    def set_aside(self, table, inputs):
        self.ids = inputs[0]
        return (inputs[0].clamp(min=0),)

    def put(self, table, inputs, output):
        return put_in(output, self.ids, self())


@dataclass
class HuntedPTuning(Method):
    template: str
    starts_at_base = False

    def insert(self, model):
        table = model.get_input_embeddings()
        hunted = Hunted(self.template.count("[P]"), table.embedding_dim)
        self.add(table, "hunted", hunted)
        self.hook(table.register_forward_pre_hook(hunted.set_aside))
        self.hook(table.register_forward_hook(hunted.put))


METHODS.pop("HuntedPTuning")  # as MyPTuning: `check` puts on the list what the lesson goes on with


@exercise(
    "p_tuning.hunt",
    reference=HuntedPTuning,
    beside=(PromptEncoder, put_in, Hunted),
    hints=(
        "Measure before you read. Ask the trained model about the same person twice: are the logits the same?",
        "Ask about a person alone, and as the last of a batch. Should the others matter?",
        "`asked.ids` are the ids, and a hook on the table of embeddings hears what it hands on. Compare "
        "the rows of two pseudo tokens in one text.",
        "One fault lies in what the encoder reads, one in which row is put in, one in which text.",
    ),
)
def _hunt(cls) -> None:
    """class HuntedPTuning(Method), a @dataclass with template: the pseudo tokens above, without their faults"""
    if not issubclass(cls, Method):
        raise Misconception("HuntedPTuning is no Method any more: keep class HuntedPTuning(Method), and mend inside")
    found = [message for fault, message in FAULTS.items() if fault(cls)]
    if found:
        more = f"{len(found)} faults are still in. Measure, mend one, and run this again"
        raise Misconception(f"1 fault is still in. {found[0]}" if len(found) == 1 else more)


def _attached(cls) -> nn.Module:
    model, method = tiny_model("bert"), cls(SHORT)
    method.attach(model)
    if not method.added:
        raise NotWritten("insert adds nothing. Bring the cell back as it was, and mend one fault at a time")
    return model.eval()


@torch.no_grad()
def _read(model: nn.Module, ids: Tensor, seed: int = 0) -> Tensor:
    """The embeddings (b, t, d) of these texts; whatever is drawn on the way is drawn from this seed."""
    torch.manual_seed(seed)
    return handed_on(model, ids)


def _differs_each_time(cls) -> bool:
    model = _attached(cls)
    return not torch.equal(_read(model, PSEUDO_TEXTS), _read(model, PSEUDO_TEXTS, seed=1))


def _all_alike(cls) -> bool:
    """The three pseudo tokens of the first text."""
    rows = _read(_attached(cls), PSEUDO_TEXTS)[0, PSEUDO_TEXTS[0] < 0]
    return bool(torch.allclose(rows[0], rows[1]) or torch.allclose(rows[1], rows[2]))


def _others_matter(cls) -> bool:
    model = _attached(cls)
    alone = torch.cat([_read(model, text[None]) for text in PSEUDO_TEXTS])
    return not torch.allclose(_read(model, PSEUDO_TEXTS), alone)


FAULTS = {
    _differs_each_time: "Ask the trained model about the same person twice: the logits differ. Something is drawn "
    "at every call, and nothing that is drawn can be learned",
    _all_alike: "Look at what the table hands on for two pseudo tokens of one text: the same vector. Which row of the "
    "encoder's is whose?",
    _others_matter: "Ask about a person alone, and as the last one of a batch: the answers differ. Which texts of a "
    "batch get their pseudo tokens?",
}
