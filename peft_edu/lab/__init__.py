"""What the notebooks need beside the methods: models, tasks, pictures, widgets, predictions, checks."""

from peft_edu.lab.architectures import architecture
from peft_edu.lab.backbones import backbone, card, complete
from peft_edu.lab.cards import FreezingCard, RankCard
from peft_edu.lab.check import check
from peft_edu.lab.display import show
from peft_edu.lab.model_map import draw
from peft_edu.lab.predict import predict
from peft_edu.lab.tasks import task
from peft_edu.lab.widgets import TrainerCard

__all__ = [
    "FreezingCard",
    "RankCard",
    "TrainerCard",
    "architecture",
    "backbone",
    "card",
    "check",
    "complete",
    "draw",
    "predict",
    "show",
    "task",
]
