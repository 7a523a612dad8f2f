"""What every method shares: attach it to a model, and take it off again without a trace.

A method is a small recipe with one function of its own, `insert(model)`. Around it `attach` freezes the model, trains
the task head, and remembers each edit as a thing that can be removed. `requires_grad` is the only mark of what is
trained: the optimiser, the count, the file and the pictures all read it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedConfig, PreTrainedModel

from peft_edu.anatomy import family, head

_RECORD = "_peft_edu"  # a model carries its method under this name, so that copy.deepcopy copies both together
METHODS: dict[str, type["Method"]] = {}  # every method by its name, for the files that name one


def attached(model: PreTrainedModel) -> "Method | None":
    """The method that is attached to this model."""
    return vars(model).get(_RECORD)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name. What several modules share appears once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@dataclass
class Child:
    """A module that a method put under another; `remove` takes it away again."""

    parent: nn.Module
    name: str

    def remove(self) -> None:
        delattr(self.parent, self.name)


@dataclass
class Setting:
    """A value of a configuration that a method changed; `remove` brings the old one back."""

    config: PreTrainedConfig
    name: str
    old: object

    def remove(self) -> None:
        setattr(self.config, self.name, self.old)


class Method:
    """A recipe: the fields of the subclass, which is a dataclass. While attached, also what it did to the model.

    Fields are plain values, or tuples of such, so that a recipe can be kept as JSON.
    """

    starts_at_base = True  # whether the attached, untrained model computes what the base model does
    _model = None  # no annotation, so that it is no field of the dataclass

    def __init_subclass__(cls):
        known = METHODS.get(cls.__name__, cls)
        if known.__module__ == cls.__module__ or not known.__module__.startswith("peft_edu."):
            METHODS[cls.__name__] = cls  # a LoRA that a learner writes does not displace the package's

    def insert(self, model: PreTrainedModel) -> None:
        """Edit the frozen model, through `add`, `hook`, `configure` and `unfreeze` alone: all that a method writes."""
        raise NotImplementedError

    def attach(self, model: PreTrainedModel) -> PreTrainedModel:
        """Put the method into the model, in place, and return the model. If anything fails, the model is untouched.

        What the base model's own trained parameters were is kept for `detach`: in full fine-tuning a copy of them all.
        """
        if not is_dataclass(self):
            raise TypeError(f"{type(self).__name__} must be a @dataclass, so that its fields can be saved")
        with self._editing(model):
            base = list(model.parameters())
            self.insert(model)
            self._train_head(model)
            self._weights = [(each, each.detach().clone()) for each in base if each.requires_grad]
            self.fields = asdict(self)
        return model

    def detach(self) -> PreTrainedModel:
        """Take the method off: the model is what it was before `attach`, bit for bit. What was learned is lost.

        What somebody unfroze and trained by hand, beside the method, stays as it became.
        """
        model = self._leave()
        for module, training in self._modes:
            module.training = training
        for parameter, weight in self._weights:
            parameter.data.copy_(weight)
            parameter.grad = None
        self._weights = []
        return model

    def merge(self) -> PreTrainedModel:
        """Fold what was learned into the weights. Only a method that learns a change of weights can."""
        raise TypeError(f"{self} has nothing to merge: it learns no change that could be folded into a weight")

    def saved(self) -> tuple["Method", dict[str, Tensor]]:
        """What a file keeps: the recipe to attach again, and what is trained, by name."""
        learned = self._attached_to().named_parameters()
        return self, {name: parameter for name, parameter in learned if parameter.requires_grad}

    @property
    def added(self) -> list[nn.Module]:
        """The modules that the method put into the model."""
        return [getattr(edit.parent, edit.name) for edit in self._edits if isinstance(edit, Child)]

    def add(self, module: nn.Module, name: str, child: nn.Module) -> None:
        """Put a child beside the weights of a module, on their device and in their precision.

        The keys of the model's own weights stay as they were.
        """
        if hasattr(module, name):
            raise RuntimeError(f"{type(module).__name__} has a {name!r} already")
        beside = next((each for each in module.parameters() if each.is_floating_point()), None)
        if beside is not None:
            child.to(beside.device, beside.dtype)
        module.add_module(name, child.train(module.training))
        self._edits.append(Child(module, name))

    def hook(self, handle: RemovableHandle) -> None:
        """Remember a hook. Register methods of modules: copy.deepcopy carries those along, but no closure."""
        self._edits.append(handle)

    def configure(self, config: PreTrainedConfig, name: str, value: object) -> None:
        """Change a value of a configuration for as long as the method is attached."""
        self._edits.append(Setting(config, name, getattr(config, name)))
        setattr(config, name, value)

    def unfreeze(self, part: nn.Module | nn.Parameter) -> None:
        """Train this part of the model itself."""
        part.requires_grad_(True)

    @contextmanager
    def _editing(self, model: PreTrainedModel) -> Iterator[None]:
        """Freeze the model and let the edits happen. If anything fails, they are undone."""
        family(model)
        if attached(model):
            raise RuntimeError(f"{attached(model)} is attached to this model: detach it before attaching {self}")
        if self._model is not None:
            raise RuntimeError(f"this {self} is attached to another model: make a new one for this model")
        self._model, self._edits = model, []
        self._modes = [(module, module.training) for module in model.modules()]
        self._trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        setattr(model, _RECORD, self)
        try:
            model.requires_grad_(False)
            yield
        except BaseException:
            self._leave()
            raise

    def _train_head(self, model: PreTrainedModel) -> None:
        for part in head(model):
            self.unfreeze(part)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError(f"{self} leaves nothing to train: {type(model).__name__} has no task head")

    def _attached_to(self) -> PreTrainedModel:
        if self._model is None:
            raise RuntimeError(f"{self} is not attached to a model")
        return self._model

    def _leave(self) -> PreTrainedModel:
        """Undo every edit, the last one first, but not what training did to the weights."""
        model, self._model = self._attached_to(), None
        for edit in reversed(self._edits):
            edit.remove()
        for parameter, trained in self._trained:
            parameter.requires_grad_(trained)
        delattr(model, _RECORD)
        return model
