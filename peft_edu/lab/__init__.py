"""What the notebooks need beside the methods: models, tasks, pictures, widgets, predictions, checks."""

import logging
import warnings

from peft_edu.lab import exercises  # noqa: F401 (importing them is what puts them on the list of `check`)
from peft_edu.lab.architectures import architecture
from peft_edu.lab.attention_mass import prefix_mass
from peft_edu.lab.backbones import backbone, card, complete
from peft_edu.lab.cards import BottleneckCard, DepthCard, FreezingCard, PrefixCard, PromptCard, RankCard
from peft_edu.lab.check import check
from peft_edu.lab.decision import Cost, DecisionCard
from peft_edu.lab.display import show
from peft_edu.lab.installation import self_check
from peft_edu.lab.language import held_out, language_loss, loss_on_old_text
from peft_edu.lab.measure import backward_cost, forward_operations, median_times
from peft_edu.lab.memory import training_memory
from peft_edu.lab.model_map import draw
from peft_edu.lab.papers import paper_counts
from peft_edu.lab.predict import predict
from peft_edu.lab.pretraining import ladder, pretraining_figure, pretraining_log
from peft_edu.lab.recipes import finetune, recipe
from peft_edu.lab.results import averages, results, scores, stored
from peft_edu.lab.tasks import task
from peft_edu.lab.taxonomy import TaxonomyCard
from peft_edu.lab.template_card import TemplateCard
from peft_edu.lab.widgets import TrainerCard

# HF peft 0.21 asks transformers 5.23 for a name that is going to change: nothing that a learner can mend.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
# transformers 5.23 finds no loss by GPT-2's class name, says so, and takes the right one.
logging.getLogger("transformers.modeling_utils").addFilter(
    lambda record: not record.getMessage().startswith("`loss_type=None` was set")
)

__all__ = [
    "BottleneckCard",
    "Cost",
    "DecisionCard",
    "DepthCard",
    "FreezingCard",
    "PrefixCard",
    "PromptCard",
    "RankCard",
    "TaxonomyCard",
    "TemplateCard",
    "TrainerCard",
    "architecture",
    "averages",
    "backbone",
    "backward_cost",
    "card",
    "check",
    "complete",
    "draw",
    "finetune",
    "forward_operations",
    "held_out",
    "ladder",
    "language_loss",
    "loss_on_old_text",
    "median_times",
    "paper_counts",
    "predict",
    "prefix_mass",
    "pretraining_figure",
    "pretraining_log",
    "recipe",
    "results",
    "scores",
    "self_check",
    "show",
    "stored",
    "task",
    "training_memory",
]
