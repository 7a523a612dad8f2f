"""From pretraining to preferences: what each stage asks for, and what a method beside a frozen base saves in it.

Some stages need the model more than once:

    policy       the model that learns to write what is wanted
    reference    the policy as it was, frozen: the KL penalty, and DPO, ask how far the policy has gone from it
    reward       scores a text, learned from pairs before and frozen now
    value        foretells the score of a text that is half written, learned beside the policy

Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, section 4 (DPO: policy and reference). Ouyang et al. 2022,
https://arxiv.org/abs/2203.02155, section 3.5 (RLHF with PPO: all four).

Where everything is trained each is a model of its own. A method that stands beside frozen weights needs these once:
policy, reward and value are small parts that take turns, and with all of them switched off the base is the reference.
What an earlier stage learned must then be part of the base: a LoRA of supervised training is merged before.
The library TRL does so, too: https://huggingface.co/docs/trl/v0.17.0/multi_adapter_rl.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from transformers import PreTrainedModel

from peft_edu.lab.measure.cost import Memory, training_memory
from peft_edu.lab.models.architectures import architecture
from peft_edu.lab.models.pretraining import pretraining_log
from peft_edu.lab.tasks.task import task
from peft_edu.lora import LoRA
from peft_edu.method import attached, unwrapped
from peft_edu.storage.checkpoint import count

POLICY, REFERENCE, REWARD, VALUE = "policy", "reference", "reward", "value"
TRAINED = ("model", POLICY, VALUE)
SCORES = (REWARD, VALUE)  # they give one number: a head of as many parameters as the model is wide
REAL = "Llama-3.2-1B"  # the size that is counted where nobody says another one


@dataclass(frozen=True)
class Stage:
    """One way to train: what it needs, the models in memory by name, and what a method beside one base makes of these.

    `amount` counts what the lessons train on.
    """

    name: str
    part: str
    lesson: str
    data: str
    signal: str
    models: tuple[str, ...]
    saved: str
    judged: str  # by what one sees whether it worked
    source: str
    amount: Callable[[], str]
    lessons: str = ""

    @property
    def where(self) -> str:
        return self.lessons or f"lesson {self.lesson[:2]}"


def _training(name: str) -> list[dict]:
    return task(name).splits["train"]


STAGES = {
    "text": Stage(
        name="pretraining",
        part="Pretrained",
        lesson="01_full_fine_tuning_and_freezing.ipynb",
        data="plain text, a great deal of it",
        signal="the next word of the text",
        models=("model",),
        saved="one base, a small part for each kind of text",
        judged="the loss on texts that were held out",
        source="Gururangan et al. 2020, arXiv:2004.10964",
        amount=lambda: f"{pretraining_log('tiny-gpt2').tokens.max() / 1e6:.0f} million tokens",
    ),
    "labels": Stage(
        name="labels",
        part="Supervised",
        lesson="07_lora.ipynb",
        lessons="lessons 01 to 10",
        data="texts, each with its answer",
        signal="the right answer",
        models=("model",),
        saved="one base, a small part for each task",
        judged="texts with their answers that were held out",
        source="Hu et al. 2021, arXiv:2106.09685",
        amount=lambda: f"{len(_training('reviews'))} reviews",
    ),
    "rules": Stage(
        name="weak labels",
        part="Supervised",
        lesson="11_weak_supervision.ipynb",
        data="texts, and rules that vote on them",
        signal="votes, some wrong; not for every text",
        models=("model",),
        saved="the same as with labels",
        judged="some texts with true labels: rules that agree can all be wrong",
        source="Ratner et al. 2017, arXiv:1711.10160",
        amount=lambda: f"{len(_training('unlabelled')):,} sentences",
    ),
    "pairs": Stage(
        name="DPO",
        part="Preferences",
        lesson="12_preferences.ipynb",
        data="pairs: two answers to one prompt",
        signal="which of the two is better",
        models=(POLICY, REFERENCE),
        saved="switched off it is the reference",
        judged="pairs that were held out, and the texts themselves: read them",
        source="Rafailov et al. 2023, arXiv:2305.18290",
        amount=lambda: f"{len(_training('happy'))} pairs",
    ),
    "reward": Stage(
        name="policy gradient",
        part="Preferences",
        lesson="12_preferences.ipynb",
        data="prompts, and a rule that scores what is written",
        signal="the score of what the model writes, less a KL penalty",
        models=(POLICY, REFERENCE),
        saved="switched off it is the reference",
        judged="the texts themselves: read them, for a score can rise while they get worse",
        source="Ziegler et al. 2019, arXiv:1909.08593",
        amount=lambda: f"{len({row['prompt'] for row in _training('happy')})} prompts",
    ),
    "feedback": Stage(
        name="RLHF with PPO",
        part="Preferences",
        lesson="12_preferences.ipynb",
        data="pairs for a reward model, then prompts",
        signal="its score, less a KL penalty",
        models=(POLICY, REFERENCE, REWARD, VALUE),
        saved="one base; all off: the reference",
        judged="people who read the texts",
        source="Ouyang et al. 2022, arXiv:2203.02155",
        amount=lambda: f"{len(_training('happy'))} pairs",
    ),
}


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters: of the model, of what a method trains beside it, and of a head that gives a score."""

    method: str
    base: int
    beside: int
    head: int

    def everything(self, stage: Stage) -> Memory:
        """All of the stage's models, each a copy of its own."""
        models = {name: self.base + self.head * (name in SCORES) for name in stage.models}
        return training_memory(sum(models.values()), sum(size for name, size in models.items() if name in TRAINED))

    def beside_one_base(self, stage: Stage) -> Memory:
        """One base, and for each of the stage's models a small part; the reference needs none."""
        parts = {name: self.beside + self.head * (name in SCORES) for name in stage.models if name != REFERENCE}
        trained = sum(size for name, size in parts.items() if name in TRAINED)
        return training_memory(self.base + sum(parts.values()), trained)


def sizes(model: PreTrainedModel) -> Sizes:
    """Count a model with a method that stands beside frozen weights: only then one base can serve all."""
    method, counted = attached(model), count(model)
    if method is None:
        raise ValueError(
            f"no method is attached to this {type(unwrapped(model)).__name__}: LoRA(8).attach(model) attaches one"
        )
    added = sum(parameter.numel() for child in method.added for parameter in child.parameters())
    if counted.trainable - counted.head > added:
        raise ValueError(
            f"{method} trains {counted.trainable - counted.head - added:,} of the model's own parameters, so that its "
            "copies cannot share them: attach a method that stands beside frozen weights, as LoRA(8) does"
        )
    width = unwrapped(model).config.hidden_size
    return Sizes(type(method).__name__, counted.total - added, counted.trainable, width)


@cache
def real_sizes() -> Sizes:
    """LoRA of rank 8 beside a model of a billion parameters: shapes only, no weights."""
    return sizes(LoRA(8).attach(architecture(REAL)))
