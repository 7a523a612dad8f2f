"""What the notebooks need beside the methods: models, tasks, pictures, widgets, predictions, checks."""

from peft_edu.lab.architectures import architecture
from peft_edu.lab.backbones import backbone, card, complete
from peft_edu.lab.tasks import task

__all__ = ["architecture", "backbone", "card", "complete", "task"]
