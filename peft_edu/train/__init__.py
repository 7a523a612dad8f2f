"""Training: one plain loop, the same for every method, because `requires_grad` says what is trained."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby, islice

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, set_seed
from transformers.utils import ModelOutput

from peft_edu.anatomy import evaluating, head_parameters
from peft_edu.checks import choice, number, whole_number
from peft_edu.method import attached, trainable, unwrapped
from peft_edu.train import processes
from peft_edu.train.batches import Batch, Passes, labels_that_count, of_kind, rows_in, tensors
from peft_edu.train.checkpoint import Checkpoint
from peft_edu.train.log import Log
from peft_edu.train.precision import Twins

Objective = Callable[[nn.Module, Batch], Tensor]
seed = set_seed  # seed(n) makes what follows repeatable: Python's, numpy's and torch's random numbers start from n


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
    accumulate: int = 1,
    objective: Objective | None = None,
    checkpoint: Checkpoint | None = None,
    log: Log | None = None,
    on_step: Callable[[int, float], object] | None = None,
) -> pd.DataFrame:
    """Train what `requires_grad` marks, where the model is, and return the history: step, loss, lr, seconds.

    `batches` are dicts of tensors with "labels", gone through again and again. The rate rises over the share `warmup`
    of the steps, then falls to zero ("linear") or stays ("constant"). A step takes `accumulate` batches, one by one,
    as if they were one large batch. `on_step(step, loss)` may return True to stop. Stopped, by an interrupt or the end
    of a stream too, it returns the history so far. The model is left in eval().

    `objective(model, batch)` is what to make small in the place of the model's own loss: the mean over the rows of the
    batch, as `peft_edu.preferences.DPO(beta=0.1)` is.

    `checkpoint` keeps the run as it goes, so that it can go on after a kill; `log` writes its history. Under
    `accelerate launch` several processes share the rows of each batch, and end with the same model; the first of them
    calls `on_step`.

    >>> data, (model, tokenizer) = task("tables"), backbone("tiny-gpt2")
    >>> history = fit(LoRA(rank=4).attach(model), data.batches(tokenizer, "train", size=4), steps=2, lr=1e-3)
    >>> len(history)
    2
    """
    inside = _inside(model)
    settings = dict(method=attached(inside), steps=steps, lr=lr, head_lr=head_lr, schedule=schedule, warmup=warmup,
                    clip=clip, accumulate=accumulate, optimizer=getattr(optimizer, "__name__", optimizer))  # fmt: skip
    weight = partial(labels_that_count, ahead=_is_causal(inside))  # of a batch among those of a step
    if objective is not None:
        settings["objective"] = getattr(objective, "__name__", repr(objective))
        weight = rows_in
    head_lr = lr if head_lr is None else head_lr
    if not trainable(model):
        raise ValueError(f"nothing in this {type(model).__name__} is trainable: attach a method first")
    number("lr", lr, "from 0 to 1000", lambda rate: 0 <= rate <= 1000)
    number("head_lr", head_lr, "from 0 to 1000", lambda rate: 0 <= rate <= 1000)
    number("clip", clip, "above 0", lambda norm: norm > 0)
    whole_number("accumulate", accumulate)
    of_kind(Callable, optimizer=optimizer, on_step=on_step or print, objective=objective or print)
    of_kind(Iterable, batches=batches)
    if isinstance(batches, Iterator):
        raise ValueError(f"batches are a {type(batches).__name__}, gone through only once: give a list or a DataLoader")
    factor, passes = _factor(schedule, steps, warmup), Passes(batches)
    with processes.start() as work:
        running = work.place(model)
        heads, twins = head_parameters(_inside(running)), Twins(trainable(running))
        rates = groupby(twins, lambda parameter: head_lr if parameter in heads else lr)
        optimizer = optimizer([{"params": [twins[each] for each in group], "lr": rate} for rate, group in rates], lr=lr)
        settings["processes"] = work.size
        history = checkpoint.begin(settings, twins, optimizer, passes, work) if checkpoint else []
        if log is not None and work.rank == 0:
            history = log.begin(history)
        done, start = len(history), time.perf_counter() - (history[-1][-1] if history else 0)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(done + step))
        running.zero_grad()  # gradients may lie around from a backward by hand
        groups = iter(partial(work.read, passes, accumulate), [])
        bar = tqdm(islice(groups, steps - done), initial=done, total=steps, unit="step", disable=work.rank > 0)
        try:
            running.train()
            for step, group in enumerate(bar, start=done + 1):
                loss = 0.0
                for batch, share in processes.shares(group, weight, work):
                    part = share * (
                        _loss(_run(running, batch)[0]) if objective is None else _asked(objective, running, batch)
                    )
                    part.backward()
                    twins.add_gradients()
                    loss += part.item()
                loss = _finite(work.mean(loss), step)
                work.average_gradients(twins.values())
                if step == min(2, steps):  # at step 1 a head of zeros lets no gradient through
                    _check_part_in_loss(running, loss, twins)
                nn.utils.clip_grad_norm_(twins.values(), clip)
                history.append((step, loss, scheduler.get_last_lr()[0], time.perf_counter() - start))
                optimizer.step()
                twins.round()
                scheduler.step()
                optimizer.zero_grad()
                bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
                stop = work.stop(on_step and work.rank == 0 and on_step(step, loss))
                if checkpoint:
                    checkpoint.step(history)
                if stop:
                    break
        except KeyboardInterrupt:
            bar.set_description_str("interrupted")
        finally:
            bar.close()
            running.zero_grad()
            model.eval()
            if log is not None:
                log.close()
        work.put_back(model, running)
    if broken := [name for name, parameter in trainable(model).items() if not parameter.isfinite().all()]:
        raise FloatingPointError(f"after step {len(history)} {broken[0]} is not finite: try a lower lr")
    return pd.DataFrame(history, columns=["step", "loss", "lr", "seconds"])


@torch.no_grad()
def evaluate(model: PreTrainedModel, batches: Iterable[Batch], metric: Callable | None = None) -> float:
    """The mean of a metric, in eval(); by default the share of right labels, for a causal model of right next tokens.

    `metric(output, batch)` gives a tensor with one number an example (or token).
    """
    inside, scores = _inside(model), []
    of_kind(Callable, metric=metric or _right)
    of_kind(Iterable, batches=batches)
    with evaluating(model):
        for batch in batches:
            output, batch = _run(model, batch)
            score = metric(output, batch) if metric else _right(output, batch, ahead=_is_causal(inside))
            of_kind(Tensor, score=score)
            scores.append(score.double().flatten())
    if not sum(map(len, scores)):
        raise ValueError("there are no batches, or none of their labels counts: all are -100")
    return torch.cat(scores).mean().item()


def _right(output: ModelOutput, batch: Batch, ahead: bool) -> Tensor:
    """Whether the highest logit is the label's, for each label that counts; a causal model's label is one ahead."""
    labels, logits = batch.get("labels", torch.empty(0)), output.get("logits", torch.empty(0))
    if labels.is_floating_point() or labels.shape != logits.shape[:-1] or logits.shape[-1] == 1:
        told = f"labels {tuple(labels.shape)} {labels.dtype} and logits {tuple(logits.shape)}"
        raise ValueError(f"{told}: no share of right labels, so give a metric")
    if ahead:
        labels, logits = labels[:, 1:], logits[:, :-1]
    return (logits.argmax(-1) == labels)[labels != -100]


def _inside(model: nn.Module) -> PreTrainedModel:
    inside = unwrapped(getattr(model, "get_base_model", lambda: model)())  # HF peft has a wrapper of its own
    if inside.device.type == "meta":
        raise ValueError(f"this {type(inside).__name__} has no weights: it is on the device meta")
    return inside


def _is_causal(model: PreTrainedModel) -> bool:
    """Whether its labels are one token ahead of its logits."""
    return model.can_generate() and not model.config.is_encoder_decoder


def _here(model: nn.Module, batch: Batch) -> Batch:
    """The tensors of a batch, where the model is."""
    return {name: each.to(_inside(model).device) for name, each in tensors(batch).items()}


def _run(model: nn.Module, batch: Batch) -> tuple[ModelOutput, Batch]:
    """What the model makes of the tensors of a batch, and these, where the model is."""
    batch = _here(model, batch)
    ids = batch.get("input_ids")
    try:
        if ids is not None and batch.get("attention_mask", ids).shape[-1] != ids.shape[-1]:
            raise ValueError("the mask must be as long as the text")
        return model(**batch), batch
    except torch.OutOfMemoryError:  # says for itself what was asked for
        raise
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        told = ", ".join(f"{name} {tuple(each.shape)} {each.dtype}" for name, each in batch.items())
        raise ValueError(f"{type(model).__name__} cannot take this batch ({told}): {error}") from error


def _factor(schedule: str, steps: int, warmup: float) -> Callable[[int], float]:
    """What the rate is multiplied with at each step, counted from 0; no step is wasted at rate 0."""
    whole_number("steps", steps)
    number("warmup", warmup, "at least 0 and below 1", lambda share: 0 <= share < 1)
    choice("schedule", schedule, ("linear", "constant"))
    rise, fall = int(warmup * steps), schedule == "linear"
    return lambda step: min((step + 1) / (rise + 1), (steps - step) / (steps - rise) if fall else 1.0)


def _loss(output: ModelOutput) -> Tensor:
    if output.loss is None or not output.loss.requires_grad:
        raise ValueError('the model gave no loss: each batch needs "labels", and what is trained a part in it')
    return output.loss


def _asked(objective: Objective, model: nn.Module, batch: Batch) -> Tensor:
    """What the objective makes of the tensors of a batch, where the model is."""
    loss = objective(model, _here(model, batch))
    if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad:
        told = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        name = getattr(objective, "__name__", objective)
        raise ValueError(
            f"{name} gave {told}, but must give one number, as a tensor in which what is trained has a part"
        )
    return loss


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        look = "try a lower lr, and look for a batch whose labels are all -100"
        raise FloatingPointError(f"the loss is {loss} at step {step}: {look}")
    return loss


def _check_part_in_loss(model: nn.Module, loss: float, twins: Twins) -> None:
    """What a method added must move the loss, as pseudo tokens do not where no text holds them."""
    method = attached(_inside(model))
    added = [each for module in (method.added if method else ()) for each in module.parameters() if each.requires_grad]
    if added and loss and not any(twins[each].grad is not None and twins[each].grad.any() for each in added):
        raise ValueError(f"what {method} added has no part in the loss: the batches hold nothing that it acts on")
