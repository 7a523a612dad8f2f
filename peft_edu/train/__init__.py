"""Training: one plain loop, the same for every method, because `requires_grad` says what is trained."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from tqdm.auto import tqdm
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel
from transformers.utils import ModelOutput

from peft_edu.anatomy import evaluating, head_parameters
from peft_edu.method import trainable

Batch = dict[str, Tensor]


def seed(n: int) -> None:
    """Make what follows repeatable: Python's, numpy's and torch's random numbers start from n."""
    set_seed(n)


def fit(
    model: PreTrainedModel,
    batches: Iterable[Batch],
    steps: int,
    lr: float,
    *,
    head_lr: float | None = None,
    optimizer: Callable = torch.optim.AdamW,
    schedule: str = "linear",
    warmup: float = 0.1,
    clip: float = 1.0,
    on_step: Callable[[int, float], object] | None = None,
) -> pd.DataFrame:
    """Train what `requires_grad` marks, where the model is, and return the history: step, loss, lr, seconds.

    `batches` are dicts of tensors with "labels", gone through again and again. The rate rises over the share `warmup`
    of the steps, then falls to zero ("linear") or stays ("constant"). `on_step(step, loss)` may return True to stop.
    Stopped, by an interrupt too, it returns the history so far. The model is left in eval(), ready for use.
    """
    learned = list(trainable(model).values())
    if not learned:
        raise ValueError(f"nothing in this {type(model).__name__} is trainable: attach a method first")
    device, history, start = model.device, [], time.perf_counter()
    optimizer = optimizer(_groups(model, lr, head_lr), lr=lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _factor(schedule, steps, warmup))
    if iter(batches) is batches:
        raise ValueError(f"batches are a {type(batches).__name__}, gone through only once: give a list or a DataLoader")
    accelerator = Accelerator(device_placement=False)  # what runs where stays the caller's choice
    running, optimizer, batches = accelerator.prepare(model, optimizer, batches)
    optimizer.zero_grad()  # gradients may lie around from a backward by hand
    bar = tqdm(islice(_endless(batches), steps), total=steps, unit="step")
    model.train()
    try:
        for step, batch in enumerate(bar, start=1):
            loss = running(**{name: tensor.to(device) for name, tensor in batch.items()}).loss
            value = _finite(loss, step)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(learned, clip)
            history.append((step, value, scheduler.get_last_lr()[0], time.perf_counter() - start))
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            bar.set_postfix_str(f"loss {value:.3f}", refresh=False)
            if on_step and on_step(step, value):
                break
    except KeyboardInterrupt:
        bar.set_description_str("interrupted")
    finally:
        bar.close()
        optimizer.zero_grad()
        model.eval()
    return pd.DataFrame(history, columns=["step", "loss", "lr", "seconds"])


def correct(output: ModelOutput, batch: Batch) -> Tensor:
    """1 where the highest logit is the label's, else 0, for each label that counts."""
    counts = batch["labels"] != -100
    return (output.logits.argmax(-1) == batch["labels"])[counts]


def correct_next(output: ModelOutput, batch: Batch) -> Tensor:
    """`correct` for causal language models, where the logits at a token are about the next one."""
    return correct(ModelOutput(logits=output.logits[:, :-1]), {"labels": batch["labels"][:, 1:]})


@torch.no_grad()
def evaluate(model: PreTrainedModel, batches: Iterable[Batch], metric: Callable | None = None) -> float:
    """The mean of a metric, in eval(); by default the share of right labels, for a causal model of right next tokens.

    `metric(output, batch)` gives a tensor with one number an example (or token).
    """
    if metric is None:
        metric = correct_next if type(model) in MODEL_FOR_CAUSAL_LM_MAPPING.values() else correct
    with evaluating(model):
        batches = ({name: tensor.to(model.device) for name, tensor in batch.items()} for batch in batches)
        scores = [metric(model(**batch), batch).double().flatten() for batch in batches]
    if not scores:
        raise ValueError("there are no batches")
    return torch.cat(scores).mean().item()


def _groups(model: PreTrainedModel, lr: float, head_lr: float | None) -> list[dict]:
    """What is trained, as the optimiser takes it: the head may have a rate of its own."""
    heads = head_parameters(model)
    learned = trainable(model).values()
    head_lr = lr if head_lr is None else head_lr
    groups = [
        {"params": [parameter for parameter in learned if parameter not in heads], "lr": lr},
        {"params": [parameter for parameter in learned if parameter in heads], "lr": head_lr},
    ]
    return [group for group in groups if group["params"]]


def _factor(schedule: str, steps: int, warmup: float) -> Callable[[int], float]:
    """What the rate is multiplied with at each step, counted from 0; no step is wasted at rate 0."""
    if steps < 1 or not 0 <= warmup < 1 or schedule not in ("linear", "constant"):
        raise ValueError(
            f"steps={steps}, warmup={warmup}, schedule={schedule!r}: expected at least 1 step, "
            'a warm-up share from 0 to below 1, and "linear" or "constant"'
        )
    rise = int(warmup * steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        return (steps - step) / (steps - rise) if schedule == "linear" else 1.0

    return factor


def _endless(batches: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        batch = None
        for batch in batches:
            yield batch
        if batch is None:
            raise ValueError("there are no batches")


def _finite(loss: Tensor | None, step: int) -> float:
    if loss is None:
        raise ValueError('the model gave no loss: each batch needs "labels"')
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the loss is {value} at step {step}: try a lower lr, and look for a batch whose labels are all -100"
        )
    return value
