"""What the notebooks need beside the methods: models, tasks, pictures, widgets, predictions, checks."""

from peft_edu.lab import exercises  # noqa: F401 (importing them is what puts them on the list of `check`)
from peft_edu.lab.exercises.check import check, hint
from peft_edu.lab.exercises.p_tuning_v2_method import start_positions_at
from peft_edu.lab.figures import plots
from peft_edu.lab.figures.block import draw_block
from peft_edu.lab.figures.calibration import calibration
from peft_edu.lab.figures.differences import differences
from peft_edu.lab.figures.display import show
from peft_edu.lab.figures.heard import show_heard
from peft_edu.lab.figures.learned import show_learned
from peft_edu.lab.figures.leash import show_chase, show_climbs
from peft_edu.lab.figures.model_map import draw
from peft_edu.lab.figures.moves import moves
from peft_edu.lab.figures.pretraining import pretraining_figure
from peft_edu.lab.figures.progress import progress
from peft_edu.lab.figures.rounding import show_levels, show_memory
from peft_edu.lab.figures.sentences import sentences
from peft_edu.lab.figures.stages import draw_stages
from peft_edu.lab.figures.tags import entities_in, right_tags, show_tags
from peft_edu.lab.installation import self_check
from peft_edu.lab.measure.attention import PrefixShares, prefix_mass
from peft_edu.lab.measure.cost import (
    backward_cost,
    cost_of_training,
    forward_operations,
    median_times,
    readable,
    training_memory,
)
from peft_edu.lab.measure.forgetting import held_out, language_loss, loss_on_old_text
from peft_edu.lab.measure.gap import ask_people
from peft_edu.lab.measure.memory import memory_of_training
from peft_edu.lab.measure.moved import rms_move, starts
from peft_edu.lab.measure.names import FullNames
from peft_edu.lab.measure.papers import paper_counts
from peft_edu.lab.measure.reading import reading_order
from peft_edu.lab.measure.rounding import levels_of, rounded
from peft_edu.lab.models.architectures import architecture
from peft_edu.lab.models.backbones import backbone, card, complete
from peft_edu.lab.models.pretraining import ladder, pretraining_log
from peft_edu.lab.models.stand_in import real_backbone
from peft_edu.lab.study.brief import brief_runs
from peft_edu.lab.study.facts import hand_written, nine_runs
from peft_edu.lab.study.new_facts import new_facts
from peft_edu.lab.study.preferences import Measure, beginnings, preference_runs, shuffled
from peft_edu.lab.study.recipe import NOTE
from peft_edu.lab.study.results import averages, gain, interval, results, scores, scores_by, spread, stored
from peft_edu.lab.study.run import finetune, nearest, recipe
from peft_edu.lab.tasks.answer import reply
from peft_edu.lab.tasks.general import general_questions
from peft_edu.lab.tasks.judge import happy_judge
from peft_edu.lab.tasks.metrics import score_texts
from peft_edu.lab.tasks.task import task
from peft_edu.lab.widgets.ask import AskCard
from peft_edu.lab.widgets.before_after import BeforeAfterCard
from peft_edu.lab.widgets.beta import BetaCard
from peft_edu.lab.widgets.build import BuildCard
from peft_edu.lab.widgets.card import TrainerCard
from peft_edu.lab.widgets.change import ChangeCard
from peft_edu.lab.widgets.decision import Cost, DecisionCard
from peft_edu.lab.widgets.dial import DialCard, Recorder
from peft_edu.lab.widgets.draw_guess import draw_guess
from peft_edu.lab.widgets.explain import explain
from peft_edu.lab.widgets.predict import predict
from peft_edu.lab.widgets.rounding import LevelsCard
from peft_edu.lab.widgets.scoreboard import scoreboard, show_texts
from peft_edu.lab.widgets.sliders import BottleneckCard, DepthCard, FreezingCard, PrefixCard, PromptCard, RankCard
from peft_edu.lab.widgets.taxonomy import TaxonomyCard
from peft_edu.lab.widgets.template import TemplateCard

__all__ = [
    "NOTE",
    "AskCard",
    "BeforeAfterCard",
    "BetaCard",
    "BottleneckCard",
    "BuildCard",
    "ChangeCard",
    "Cost",
    "DecisionCard",
    "DepthCard",
    "DialCard",
    "FreezingCard",
    "FullNames",
    "LevelsCard",
    "Measure",
    "PrefixCard",
    "PrefixShares",
    "PromptCard",
    "RankCard",
    "Recorder",
    "TaxonomyCard",
    "TemplateCard",
    "TrainerCard",
    "architecture",
    "ask_people",
    "averages",
    "backbone",
    "backward_cost",
    "beginnings",
    "brief_runs",
    "calibration",
    "card",
    "check",
    "complete",
    "cost_of_training",
    "differences",
    "draw",
    "draw_block",
    "draw_guess",
    "draw_stages",
    "entities_in",
    "explain",
    "finetune",
    "forward_operations",
    "gain",
    "general_questions",
    "hand_written",
    "happy_judge",
    "held_out",
    "hint",
    "interval",
    "ladder",
    "language_loss",
    "levels_of",
    "loss_on_old_text",
    "median_times",
    "memory_of_training",
    "moves",
    "nearest",
    "new_facts",
    "nine_runs",
    "paper_counts",
    "plots",
    "predict",
    "preference_runs",
    "prefix_mass",
    "pretraining_figure",
    "pretraining_log",
    "progress",
    "readable",
    "reading_order",
    "real_backbone",
    "recipe",
    "reply",
    "results",
    "right_tags",
    "rms_move",
    "rounded",
    "score_texts",
    "scoreboard",
    "scores",
    "scores_by",
    "self_check",
    "sentences",
    "show",
    "show_chase",
    "show_climbs",
    "show_heard",
    "show_learned",
    "show_levels",
    "show_memory",
    "show_tags",
    "show_texts",
    "shuffled",
    "spread",
    "start_positions_at",
    "starts",
    "stored",
    "task",
    "training_memory",
]
