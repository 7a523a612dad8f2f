"""Learning from preferences: of two answers y to one prompt x, which is the better one?

Bradley and Terry (1952): whoever likes an answer as much as r(x, y) says chooses y+ rather than y- with the probability

    p(y+ before y-) = sigmoid(r(x, y+) - r(x, y-))

A reward model learns r from pairs (Christiano et al. 2017, section 2.2.3; Ouyang et al. 2022, section 3.5). A policy,
the model that writes, is then to earn much of it without leaving the place where it started, the reference:

    max over policy of   E[r(x, y)] - beta KL(policy || reference)          y written by the policy

Policy gradients climb there by samples. Direct preference optimization (DPO; Rafailov et al. 2023, section 4) needs no
sample and no reward model: at the optimum r = beta log(policy(y|x) / reference(y|x)) + what depends on x alone. Put
into the first line, the pairs train the policy itself.

The reference is the model as it was before, and a method that is switched off gives it back: no second copy is kept.

A batch of pairs holds input_ids, attention_mask and labels of the shape (b, 2, t): of each pair first the chosen text,
then the rejected one. labels are the ids of the answer, and -100 over the prompt and the padding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from peft_edu.anatomy import evaluating, quiet
from peft_edu.checks import as_numbers, number, whole_number
from peft_edu.method import attached, unwrapped

IGNORE = -100
Batch = dict[str, Tensor]


def log_probability(model: nn.Module, batch: Batch) -> Tensor:
    """log p(y|x) of each answer in nats, the sum over its tokens: of a batch (..., t) the shape is (...).

    Without dropout, which would let the policy and the reference differ where nothing has been learned.
    """
    kind, seq2seq = type(unwrapped(model)).__name__, unwrapped(model).config.is_encoder_decoder
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES.values() and not seq2seq:
        raise ValueError(f"{kind} reads a whole text at once: log p(y|x) is of a model that writes from left to right")
    labels = batch["labels"]
    rows = {name: batch[name].flatten(0, -2) for name in ("input_ids", "attention_mask", "labels")}
    wanted = rows["labels"] if seq2seq else rows.pop("labels")[:, 1:]  # a decoder's logits are of the next token
    with evaluating(model):
        logits = model(**rows).logits
    if not seq2seq:
        logits = logits[:, :-1]
    if logits.shape[:-1] != wanted.shape:
        told = f"logits {tuple(logits.shape)} for labels {tuple(wanted.shape)}"
        raise ValueError(f"{kind} gives {told}: log p(y|x) is of a language model, without a head")
    surprise = F.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORE, reduction="none")
    return -surprise.sum(-1).view(labels.shape[:-1])


@torch.no_grad()
def reference_log_probability(model: nn.Module, batch: Batch) -> Tensor:
    """log p(y|x) under the model without its method: what it was before the training."""
    method = attached(model)
    if method is None:
        raise ValueError("no method is attached to this model, so there is no reference to compare with: attach one")
    with method.off():
        return log_probability(model, batch)


def log_ratio(model: nn.Module, batch: Batch) -> Tensor:
    """log(policy(y|x) / reference(y|x)) of each answer, in nats. Over the policy's own samples its mean is an estimate
    of KL(policy || reference)."""
    return log_probability(model, batch) - reference_log_probability(model, batch)


def bradley_terry(scores: Tensor) -> Tensor:
    """-log sigmoid(r+ - r-), the mean over pairs. scores (b, 2): of the chosen and of the rejected answer."""
    if scores.dim() != 2 or scores.shape[1] != 2:
        told = "of the chosen and of the rejected answer of each pair: a task of preferences gives such batches"
        raise ValueError(f"scores have the shape {tuple(scores.shape)}, but must be (b, 2), {told}")
    return -F.logsigmoid(scores[:, 0] - scores[:, 1]).mean()


def reward(model: nn.Module, batch: Batch) -> Tensor:
    """r(x, y) as a reward model says it, with one number for each text: `backbone(name, head="score")`. Shape (...)."""
    rows = {name: batch[name].flatten(0, -2) for name in ("input_ids", "attention_mask")}
    scores = model(**rows).logits
    if scores.shape != (len(rows["input_ids"]), 1):
        told = f"{type(model).__name__} gives {tuple(scores.shape)} for {len(rows['input_ids'])} texts"
        raise ValueError(f'{told}, and a reward is one number for each: backbone(name, head="score") gives it')
    return scores.view(batch["input_ids"].shape[:-1])


def reward_loss(model: nn.Module, batch: Batch) -> Tensor:
    """What a reward model makes small, for `fit(..., objective=reward_loss)`."""
    return bradley_terry(reward(model, batch))


@dataclass(frozen=True)
class DPO:
    """Direct preference optimization, for `fit(..., objective=DPO(beta=0.3))` (Rafailov et al. 2023, equation 7):

        L = -log sigmoid(beta (log policy(y+|x)/reference(y+|x) - log policy(y-|x)/reference(y-|x)))

    A small beta lets the policy go far from the reference.
    """

    beta: float = 0.1

    def __post_init__(self):
        number("beta", self.beta, "above 0", lambda beta: beta > 0)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        return bradley_terry(self.beta * log_ratio(model, batch))


# ------------------------------------------------------------------------------------------------ samples and gradients
@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    tokens: int = 24,
    each: int = 1,
) -> tuple[list[str], Batch]:
    """What the model writes, drawn by its own probabilities (temperature 1): `each` answers to every prompt, and of
    each answer `tokens` tokens at most. The texts, prompts included, and the batch (n, t) that they are as tensors; an
    encoder-decoder reads the prompts as input_ids, and labels are its answers alone.

    prompts are token ids: `[data.prompt(row, tokenizer) for row in data.rows("train")]`.
    """
    whole_number("tokens", tokens)
    whole_number("each", each)
    if len(prompts) == 0 or any(len(ids) == 0 for ids in prompts):
        raise ValueError(f"prompts is {prompts!r:.60}, but must be lists of token ids, none of them empty")
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    if pad is None:
        raise ValueError("sample needs a tokenizer with pad_token, and this one has none")
    asked = [torch.tensor(ids) for ids in prompts for _ in range(each)]
    ids = pad_sequence(asked, True, pad, "left").to(model.device)
    mask = pad_sequence([torch.ones_like(each) for each in asked], True, 0, "left").to(model.device)
    with evaluating(model), quiet():  # who begins with the padding token is warned of a mask that is there
        plain = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "max_new_tokens": tokens}
        written = model.generate(input_ids=ids, attention_mask=mask, pad_token_id=pad, eos_token_id=end, **plain)
    seq2seq = model.config.is_encoder_decoder
    begin = 1 if seq2seq else ids.shape[1]  # a decoder beside an encoder begins with a token of its own
    answers = [_until(end, row[begin:]) for row in written.cpu()]
    whole = [torch.cat(pair) for pair in zip(asked, answers, strict=True)]
    silent = [torch.full_like(ask, IGNORE) for ask in asked]
    read = asked if seq2seq else whole
    labels = answers if seq2seq else [torch.cat(pair) for pair in zip(silent, answers, strict=True)]
    batch = {  # padded on the right: GPT-2 counts positions from the left, whatever the mask says
        "input_ids": pad_sequence(read, True, pad),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in read], True, 0),
        "labels": pad_sequence(labels, True, IGNORE),
    }
    texts = [text.strip() for text in tokenizer.batch_decode(whole, skip_special_tokens=True)]
    return texts, {name: each.to(model.device) for name, each in batch.items()}


def paired(samples: Batch, scores: Sequence[float] | Tensor) -> Batch:
    """Pairs (b, 2, t) of samples (n, t): of each two neighbours the one with the higher score is chosen. Where both
    have the same score, nothing is preferred, and they are left out."""
    count = len(samples["input_ids"])
    if count % 2:
        raise ValueError(f"{count} samples are given, but two make a pair")
    scores = _one_each("scores is", scores, count)
    order = torch.arange(count).view(-1, 2)
    first, second = scores.view(-1, 2).unbind(1)
    chosen = torch.where((first > second)[:, None], order, order.flip(1))[first != second]
    return {name: each[chosen] for name, each in samples.items()}


def _one_each(what: str, given: object, count: int) -> Tensor:
    numbers = as_numbers(given, torch.double)
    if numbers.shape != (count,) or not numbers.isfinite().all():
        shape = f" of the shape {tuple(given.shape)}" if isinstance(given, Tensor) else ""
        raise ValueError(f"{what} {given!r:.80}{shape}, but must be {count} finite numbers, one for each text")
    return numbers


def _until(end: int, answer: Tensor) -> Tensor:
    """An answer up to its end, which is a part of it."""
    ends = (answer == end).nonzero()
    return answer[: ends[0] + 1] if len(ends) else answer


@dataclass
class Samples:
    """Batches for policy gradients: at each step the policy itself writes, and a reward tells what that was worth.

        A_i = R_i - mean of R over the answers to the same prompt          R_i = r(x, y_i) - beta log_ratio(x, y_i)

    The mean is the baseline: only what is better than the policy's own usual answer becomes likelier (Williams 1992;
    the group's mean as in GRPO, Shao et al. 2024, without its division by the group's standard deviation). beta is the
    price of a nat of KL. Each pass of `fit` takes one batch:

        fit(model, Samples(model, tokenizer, prompts, reward), steps=60, lr=2e-3, objective=policy_gradient)

    `reward` gets the texts, prompts included, and gives a number for each. `log` keeps the means of each step: `reward`
    and `KL`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: Sequence[Sequence[int]]
    reward: Callable[[Sequence[str]], Sequence[float] | Tensor]
    beta: float = 0.0
    groups: int = 8
    size: int = 8
    tokens: int = 24
    log: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self):
        number("beta", self.beta, "at least 0", lambda beta: beta >= 0)
        whole_number("groups", self.groups)
        whole_number("size", self.size, at_least=2)  # alone in its group an answer is its own mean
        if self.groups > len(self.prompts):
            raise ValueError(f"groups is {self.groups}, but there are {len(self.prompts)} prompts: a group is of one")

    def __iter__(self) -> Iterator[Batch]:
        chosen = torch.randperm(len(self.prompts))[: self.groups]
        texts, batch = sample(self.model, self.tokenizer, [self.prompts[i] for i in chosen], self.tokens, self.size)
        with torch.no_grad():
            apart = log_ratio(self.model, batch)
        earned = _one_each("what the reward gave is", self.reward(texts), len(texts)).to(apart)
        groups = (earned - self.beta * apart).view(self.groups, self.size)
        self.log.append({"reward": earned.mean().item(), "KL": apart.mean().item()})
        yield batch | {"advantages": (groups - groups.mean(1, keepdim=True)).flatten()}


def policy_gradient(model: nn.Module, batch: Batch) -> Tensor:
    """-A log policy(y|x), the mean over answers: its gradient is minus that of the expected reward (REINFORCE, Williams
    1992). PPO and GRPO take several steps on the same samples and clip how far the policy may move in them; here each
    sample is used once, where the clipped objective has this same gradient."""
    if "advantages" not in batch:
        raise ValueError(
            f"a batch has {', '.join(batch)}, but policy_gradient needs advantages: Samples(...) gives them"
        )
    return -(batch["advantages"] * log_probability(model, batch)).mean()
