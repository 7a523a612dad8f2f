"""A method that is put together from the parts of others: which places of a block are touched, and how.

    a map                 a low-rank update beside it                          LoRA
    behind a sub-layer    a bottleneck in series                               adapters
    keys and values       a prefix in every layer                              prefix tuning
    the text              virtual tokens in front of it                        prompt tuning
    the norms             trained themselves

The parts insert themselves, as each does alone. He et al. 2022, https://arxiv.org/abs/2110.04366, section 3.3, take
the methods apart in this way.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedModel

from peft_edu.adapter import Bottleneck
from peft_edu.anatomy import blocks, norms, sublayer_outputs
from peft_edu.checks import whole_number
from peft_edu.lora import LoRA
from peft_edu.method import Method
from peft_edu.prefix_tuning import PrefixTuning
from peft_edu.prompt_tuning import PromptTuning

MAPS = ("query", "key", "value", "output", "up", "gate", "down")
BEHIND = ("behind attention", "behind feed-forward")
PREFIX, PROMPT, NORMS = "keys and values", "text", "norms"
PLACES = (*MAPS, *BEHIND, PREFIX, PROMPT, NORMS)
START = 1e-3  # deviation of a bottleneck's start, as the package's adapter has it


@dataclass
class Assembled(Method):
    """At each of these places what belongs there, all of one size: the rank, the bottleneck, the number of positions.

    >>> model, tokenizer = backbone("tiny-bert", head="classify")
    >>> count(Assembled(("query", "behind feed-forward"), size=4).attach(model)).trainable
    9234
    """

    places: tuple[str, ...] = ()
    size: int = 4

    starts_at_base = False

    def __post_init__(self):
        whole_number("size", self.size)
        self.places = tuple(self.places)
        if unknown := [place for place in self.places if place not in PLACES]:
            raise ValueError(f"no place {unknown[0]!r} in a block; there are {', '.join(PLACES)}")

    def insert(self, model: PreTrainedModel) -> None:
        edits = {name: vars(self)[name] for name in ("added", "_undo", "_hooks", "_configured", "_weights", "_model")}
        for part in self._parts():
            vars(part).update(edits)
            part.insert(model)  # what it edits, this method takes back
        for block in blocks(model):
            outputs = sublayer_outputs(model, block)
            for place, output in zip(BEHIND, (outputs[0], outputs[-1]), strict=True):
                if place in self.places:
                    like = next(block.parameters())
                    adapter = Bottleneck(model.config.hidden_size, self.size, START, own_norm=False, like=like)
                    self.add(output, "adapter", adapter)
                    self.hook(output.register_forward_hook(adapter.replace_output))
        if NORMS in self.places:
            for norm in norms(model):
                self.unfreeze(norm)

    def _parts(self) -> Iterator[Method]:
        if maps := tuple(role for role in MAPS if role in self.places):
            yield LoRA(self.size, alpha=2 * self.size, targets=maps)
        if PREFIX in self.places:
            yield PrefixTuning(self.size, hidden=0)
        if PROMPT in self.places:
            yield PromptTuning(self.size)
