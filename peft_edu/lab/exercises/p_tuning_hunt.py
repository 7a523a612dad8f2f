"""Lesson 05, the hunt: P-tuning that trains, but badly. The lesson's cells have three faults that people make.

None stops with an error: the encoder's input is drawn anew at every call; all pseudo tokens get the first one's
embedding, for their rows are read from ids that are clamped already; and their places are counted in the template,
where a name is one piece, not in the text, where it is two tokens. Languages of people held out, seeds 0 and 1:
none of them 96.7 and 100%; drawn anew 60.0 and 36.7; the first one's embedding 90.0 and 86.7; places of the
template 56.7 and 70.0; all three 20.0 and 16.7.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from peft_edu.lab.exercises.check import Misconception, NotWritten, exercise
from peft_edu.lab.exercises.p_tuning_method import AROUND, PromptEncoder, handed_on, put_in
from peft_edu.lab.exercises.whole_method import tiny_model
from peft_edu.method import METHODS, Method

THREE = "[P] {subject} [P] [MASK] [P]"
# A name of one token, and one of two: [CLS] is 2, [MASK] 4, [SEP] 3.
SHORT_NAME, LONG_NAME = (torch.tensor([ids]) for ids in ([2, -1, 5, -2, 4, -3, 3], [2, -1, 5, 6, -2, 4, -3, 3]))


class Hunted(PromptEncoder):
    def set_aside(self, table, inputs):
        self.ids = inputs[0]
        return (inputs[0].clamp(min=0),)

    def put(self, table, inputs, output):
        return put_in(output, self.ids, self())


@dataclass
class HuntedPTuning(Method):
    template: str = AROUND
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
        "Hear what the table hands on, with one more hook on it: which rows are no word's? Are they where the ids are "
        "below 0?",
        "Compare the rows of two pseudo tokens in one text. Whose are they?",
        "One fault lies in what the encoder reads, one in where places are counted, one in which ids say the row.",
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
    model, method = tiny_model("bert"), cls(THREE)
    method.attach(model)
    if not method.added:
        raise NotWritten("insert adds nothing. Bring the cell back as it was, and mend one fault at a time")
    return model.eval()


@torch.no_grad()
def _read(model: nn.Module, ids: Tensor, seed: int = 0) -> Tensor:
    """The embeddings (t, d) of this text; whatever is drawn on the way is drawn from this seed."""
    torch.manual_seed(seed)
    return handed_on(model, ids)[0]


def _differs_each_time(cls) -> bool:
    model = _attached(cls)
    return not torch.equal(_read(model, SHORT_NAME), _read(model, SHORT_NAME, seed=1))


def _all_alike(cls) -> bool:
    """The three pseudo tokens where their places are right in any case."""
    first, second, third = _read(_attached(cls), SHORT_NAME)[SHORT_NAME[0] < 0]
    return bool(torch.allclose(first, second) or torch.allclose(second, third))


def _other_places(cls) -> bool:
    """A word of a longer name is written over, or a pseudo token is left as it was looked up."""
    model = _attached(cls)
    looked_up = model.get_input_embeddings().weight[LONG_NAME[0].clamp(min=0)]
    made = (_read(model, LONG_NAME) - looked_up).abs().amax(-1) > 1e-9
    return not torch.equal(made, LONG_NAME[0] < 0)


FAULTS = {
    _differs_each_time: "Ask the trained model about the same person twice: the logits differ. Something is drawn at "
    "every call, and nothing that is drawn can be learned",
    _all_alike: "Look at what the table hands on for two pseudo tokens of one text: the same vector. Which ids say "
    "whose row it is, those before or those after the clamp?",
    _other_places: "Look at what the table hands on for a name of two tokens: a word of the name is gone. Where do the "
    "places come from, the template or the ids?",
}
