"""What every method shares: attach it to a model, and take it off again without a trace.

A method is a small recipe with one function of its own, `insert(model)`. Around it `attach` freezes the model, trains
the task head, and remembers how each edit is undone. `requires_grad` is the only mark of what training changes: the
optimiser, the count and the pictures read it. A file also keeps what was trained and is frozen by now.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedConfig, PreTrainedModel

from peft_edu.anatomy import family, head, names

_RECORD = "_peft_edu"  # a model carries its method under this name, so that copy.deepcopy copies both together
METHODS: dict[str, type["Method"]] = {}  # every method by its name, for the files that name one


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """The model inside what torch.compile and torch's parallel modules put around it."""
    inner = model
    while not isinstance(inner, PreTrainedModel):
        inner = getattr(inner, "_orig_mod", getattr(inner, "module", None))
        if inner is None:
            raise TypeError(f"expected a transformers model (a PreTrainedModel), got {type(model).__name__}")
    return inner


def attached(model: nn.Module) -> "Method | None":
    """The method that is attached to this model."""
    return vars(unwrapped(model)).get(_RECORD)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name. What several modules share appears once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class Method:
    """A recipe: the fields of the subclass, a dataclass of plain values. Attached, also what it did to the model."""

    starts_at_base = True  # whether the attached, untrained model computes what the base model does
    _model: PreTrainedModel | None = None
    _is_off = False

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
        try:
            json.dumps(fields := asdict(self))
        except TypeError as error:
            raise TypeError(f"{type(self).__name__} must be a @dataclass of plain values, to be saved") from error
        with self._editing(model):
            self.fields, self._weights = fields, {}
            self.insert(model)
            self._train_head(model)
            self.own = {*self._weights, *(each for child in self.added for each in child.parameters())}
        return model

    def detach(self) -> PreTrainedModel:
        """Take the method off: the model is what it was before `attach`, bit for bit. What was learned is lost.

        What somebody trained beside it by hand, without `unfreeze`, stays as it became.
        """
        model = self._attached_to()
        for parameter, weight in self._weights.items():
            parameter.data.copy_(weight)
            parameter.grad = None
        for module, training in self._modes:
            module.training = training
        self._leave()
        self._weights = {}
        return model

    @contextmanager
    def off(self) -> Iterator[PreTrainedModel]:
        """The base model for a moment, bit for bit: to measure what it knew, or to compare with. Not for training.

        >>> method = PromptTuning(length=2)
        >>> model = method.attach(backbone("tiny-gpt2")[0])
        >>> with method.off():
        ...     model(torch.tensor([[5, 6, 7]])).logits.shape
        torch.Size([1, 3, 2539])
        """
        model = self._attached_to()
        configured = [(config, name, value, getattr(config, name)) for config, name, value in self._configured]
        learned = {parameter: parameter.detach().clone() for parameter in self._weights}
        hooks = []
        try:
            self._is_off = True
            for hook in self._hooks:
                if hook.id in (table := hook.hooks_dict_ref()):
                    hooks.append((table, hook.id, table.pop(hook.id)))
            for config, name, value, _ in configured:
                setattr(config, name, value)
            for parameter, weight in self._weights.items():
                parameter.data.copy_(weight)
            yield model
        finally:
            for parameter, weight in learned.items():
                parameter.data.copy_(weight)
            for config, name, _, value in configured:
                setattr(config, name, value)
            for table, key, hook in hooks:
                table[key] = hook
            self._is_off = False

    def merge(self) -> PreTrainedModel:
        """Fold what was learned into the weights. Only a method that learns a change of weights can."""
        raise TypeError(f"{self} has nothing to merge: it learns no change that could be folded into a weight")

    def saved(self) -> tuple["Method", dict[str, Tensor]]:
        """What a file keeps: the recipe to attach again, and what is trained, by name."""
        return self, self.learned()

    def learned(self) -> dict[str, nn.Parameter]:
        """What training changed: the method's own, also if it was frozen since, and what is trained beside it."""
        known, every = self.own | self._weights.keys(), self._attached_to().named_parameters()
        return {name: parameter for name, parameter in every if parameter.requires_grad or parameter in known}

    def finished(self, name: str, made: str) -> dict[str, Tensor]:
        """`learned`, but of each child that was added only what it makes, its attribute `made`, under this name."""
        paths = names(self._attached_to())
        gone = {parameter for child in self.added for parameter in child.parameters()}
        kept = {path: parameter for path, parameter in self.learned().items() if parameter not in gone}
        return kept | {f"{paths[child]}.{name}": getattr(child, made).detach() for child in self.added}

    def add(self, module: nn.Module, name: str, child: nn.Module) -> None:
        """Put a child beside the weights of a module, on their device and in their precision.

        The keys of the model's own weights stay as they were.
        """
        for what, each in {"module": module, "child": child}.items():
            if not isinstance(each, nn.Module):
                got = f"the class {each.__name__}" if isinstance(each, type) else f"a {type(each).__name__}"
                raise TypeError(f"add(module, name, child): {what} must be an nn.Module, got {got}")
        if hasattr(module, name):
            raise RuntimeError(f"{type(module).__name__} has a {name!r} already")
        beside = next((each for each in module.parameters() if each.is_floating_point()), None)
        if beside is not None:
            child.to(beside.device, beside.dtype)
        self._undo.append(partial(_remove, module, name))
        module.add_module(name, child.train(module.training))
        self.added.append(child)

    def hook(self, handle: RemovableHandle) -> None:
        """Remember a hook. Register methods of modules: copy.deepcopy carries those along, but no closure."""
        if not isinstance(handle, RemovableHandle):
            got = getattr(handle, "__name__", type(handle).__name__)
            raise TypeError(f"hook takes the handle that module.register_forward_hook(...) gives, got {got}")
        self._undo.append(handle.remove)
        self._hooks.append(handle)

    def configure(self, config: PreTrainedConfig, name: str, value: object) -> None:
        """Change a value of a configuration for as long as the method is attached."""
        self._configured.append((config, name, getattr(config, name)))
        self._undo.append(partial(setattr, *self._configured[-1]))
        setattr(config, name, value)

    def unfreeze(self, part: nn.Module | nn.Parameter) -> None:
        """Train this part of the model itself: what it was comes back with `detach`, what it becomes is saved."""
        self._attached_to()
        if isinstance(part, nn.Module) and any(hasattr(module, "packed") for module in part.modules()):
            raise ValueError(f"{self} trains weights that are packed in 4 bits: LoRA and the like train beside them")
        for parameter in [part] if isinstance(part, nn.Parameter) else part.parameters():
            if parameter not in self._weights:
                self._weights[parameter] = parameter.detach().clone()
            parameter.requires_grad_(True)

    @contextmanager
    def _editing(self, model: PreTrainedModel) -> Iterator[None]:
        """Freeze the model and let the edits happen. If anything fails, they are undone."""
        family(model)
        if attached(model):
            raise RuntimeError(
                f"{attached(model)} is attached to this model: detach it before attaching {self}, "
                "by peft_edu.attached(model).detach(), or make the model anew"
            )
        if self._model is not None:
            raise RuntimeError(f"this {self} is attached to another model: make a new one for this model")
        _refuse_weights_that_are_not_here(model)
        self.added, self._hooks, self._configured = [], [], []
        self._undo = []  # what takes the edits back, the last one first; each may run twice
        self._modes = [(module, module.training) for module in model.modules()]
        try:
            self._model = model
            setattr(model, _RECORD, self)
            for parameter in model.parameters():
                self._undo.append(partial(setattr, parameter, "requires_grad", parameter.requires_grad))
            for part in {model, model.base_model}:
                self._undo.append(partial(_remove, part, "resize_token_embeddings"))
                part.resize_token_embeddings = self._refuse_to_resize
            model.requires_grad_(False)
            yield
        except BaseException:
            self._leave()
            raise

    def _refuse_to_resize(self, *arguments, **options):
        """It would exchange or freeze what the method holds."""
        raise RuntimeError(f"{self} is attached: detach it, resize the vocabulary, then attach it")

    def _train_head(self, model: PreTrainedModel) -> None:
        for part in head(model):
            self.unfreeze(part)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError(f"{self} leaves nothing to train: {type(model).__name__} has no task head")

    def _attached_to(self) -> PreTrainedModel:
        if self._model is None:
            raise RuntimeError(f"{self} is not attached to a model")
        if self._is_off:
            raise RuntimeError(f"{self} is switched off: leave `with method.off():` first")
        return self._model

    def _leave(self) -> None:
        """Undo every edit, but not what training did to the weights. Interrupted, it can be called again."""
        model = self._attached_to()
        while self._undo:
            self._undo[-1]()
            self._undo.pop()
        vars(model).pop(_RECORD, None)
        self._model = None


def _remove(module: nn.Module, name: str) -> None:
    if name in vars(module) or name in module._modules:
        delattr(module, name)


def _refuse_weights_that_are_not_here(model: PreTrainedModel) -> None:
    """All on meta is fine: such a model is for counting."""
    meta = {parameter.is_meta for parameter in model.parameters()}
    if len(meta) > 1 or (True in meta and any(hasattr(module, "_hf_hook") for module in model.modules())):
        raise ValueError(f"weights of this {type(model).__name__} are offloaded: load it whole, without device_map")
    if any(callable(getattr(module, "weight", None)) for module in model.modules()):
        raise ValueError(f"torch has quantised this {type(model).__name__}: attach first, and quantise afterwards")
