"""What every method shares: attach it to a model, and take it off again without a trace.

A method is a small recipe with one function of its own, `insert(model)`. Around it `attach` freezes the model, trains
the task head, and remembers how to undo each edit. `requires_grad` is the only mark of what is trained: the optimiser,
the count, the file and the pictures all read it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from peft_edu.anatomy import family, head

_RECORD = "_peft_edu"  # a model carries its method under this name, so that copy.deepcopy copies both together
METHODS: dict[str, type["Method"]] = {}  # every method by its name, for the files that name one


def attached(model: PreTrainedModel) -> "Method | None":
    """The method that is attached to this model."""
    return vars(model).get(_RECORD)


class Method:
    """A recipe: the fields of the subclass, which is a dataclass. While attached, also what it did to the model."""

    _model = None  # no annotation, so that it is no field of the dataclass

    def __init_subclass__(cls):
        METHODS[cls.__name__] = cls

    def insert(self, model: PreTrainedModel) -> None:
        """Edit the frozen model, through `add`, `hook` and `unfreeze` alone. The one function that a method writes."""
        raise NotImplementedError

    def attach(self, model: PreTrainedModel) -> PreTrainedModel:
        """Put the method into the model, in place, and return the model."""
        self._training = model.training
        with self._editing(model):
            self.insert(model)
        self._weights = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name in self._requires_grad
        }
        return model

    def detach(self) -> PreTrainedModel:
        """Take the method off: the model is what it was before `attach`, bit for bit. What was learned is lost."""
        model = self._leave()
        model.train(self._training)
        for name, weight in self._weights.items():
            parameter = model.get_parameter(name)
            parameter.data.copy_(weight)
            parameter.grad = None
        return model

    def merge(self) -> PreTrainedModel:
        """Fold what was learned into the weights. Only a method that learns a change of weights can."""
        raise TypeError(f"{self} has nothing to merge: it learns no change that could be folded into a weight")

    def add(self, module: nn.Module, name: str, child: nn.Module) -> None:
        """Put a child beside the weights of a module; the keys of the model's own weights stay as they were."""
        if hasattr(module, name):
            raise RuntimeError(f"{type(module).__name__} has a {name!r} already")
        module.add_module(name, child.train(module.training))
        self._children.append((module, name))

    def hook(self, handle: RemovableHandle) -> None:
        """Remember a hook. Register methods of modules: copy.deepcopy carries those along, but no closure."""
        self._handles.append(handle)

    def unfreeze(self, part: nn.Module | nn.Parameter) -> None:
        """Train this part of the model itself."""
        part.requires_grad_(True)

    @contextmanager
    def _editing(self, model: PreTrainedModel) -> Iterator[None]:
        """Freeze the model, let the edits happen, train the head. If anything fails, the model is untouched."""
        family(model)
        if attached(model):
            raise RuntimeError(f"{attached(model)} is attached to this model: detach it before attaching {self}")
        if self._model is not None:
            raise RuntimeError(f"this {self} is attached to another model: make a new one for this model")
        self._model, self._children, self._handles = model, [], []
        self._requires_grad = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        setattr(model, _RECORD, self)
        try:
            model.requires_grad_(False)
            yield
            for part in head(model):
                self.unfreeze(part)
            if not any(parameter.requires_grad for parameter in model.parameters()):
                raise ValueError(f"{self} leaves nothing to train: {type(model).__name__} has no task head")
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> PreTrainedModel:
        """Undo every edit but what training did to the weights."""
        if self._model is None:
            raise RuntimeError(f"{self} is not attached to a model")
        model, self._model = self._model, None
        for handle in self._handles:
            handle.remove()
        for module, name in self._children:
            delattr(module, name)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self._requires_grad.get(name, True))
        delattr(model, _RECORD)
        return model
