"""What the small models are, and what they are trained to guess: the objectives of GPT-2, BERT and T5, as their papers
have them, on documents of the world. A builder, its batches and its loss for each."""

import re
from collections.abc import Callable, Iterator, Sequence
from random import Random

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers import PreTrainedTokenizerBase as Tokenizer

POSITIONS = 192
Documents = list[tuple[str, str]]  # (kind, text)


def alike(documents: Documents, r: Random, size: int, parts_of: Callable[[Documents], list[tuple]]) -> Iterator[list]:
    """Batches of `size` parts whose texts, which come first in them, are of similar length: little of it is padding."""
    if len(documents) < size * 32:
        raise ValueError(f"{len(documents)} documents; batches of {size} are drawn from {size * 32} at a time")
    while True:
        documents = r.sample(documents, len(documents))
        for start in range(0, len(documents) - size * 32 + 1, size * 32):
            parts = sorted(parts_of(documents[start : start + size * 32]), key=lambda part: len(part[0]))
            for i in r.sample(range(0, len(parts), size), 32):
                yield parts[i : i + size]


# ------------------------------------------------------------------------------------------------------------ GPT-2
def build_gpt2(tokenizer: Tokenizer, width: int = 128, layers: int = 4, heads: int = 4) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=POSITIONS,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def packed_rows(tokenizer: Tokenizer, documents: Documents, seed: int, size: int = 12) -> Iterator[dict]:
    """Documents end to end, cut into rows of POSITIONS tokens, in another order in each epoch."""
    encoded = tokenizer([text for _, text in documents]).input_ids
    if (length := sum(map(len, encoded))) < size * POSITIONS:
        raise ValueError(f"{length} tokens; a batch takes {size * POSITIONS}")
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(encoded), generator=generator)
        stream = torch.tensor([token for index in order for token in encoded[index]])
        rows = stream[: len(stream) // POSITIONS * POSITIONS].view(-1, POSITIONS)
        yield from ({"input_ids": rows[i : i + size]} for i in range(0, len(rows) - size + 1, size))


def next_token_loss(model: PreTrainedModel, batch: dict) -> torch.Tensor:
    logits = model(batch["input_ids"]).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1).float(), batch["input_ids"][:, 1:].flatten())


# ------------------------------------------------------------------------------------------------------------- BERT
def build_bert(tokenizer: Tokenizer, width: int = 128, layers: int = 4, heads: int = 4) -> BertForPreTraining:
    """The position table starts as sinusoids (Vaswani et al. 2017): neighbours look alike from the beginning."""
    model = BertForPreTraining(
        BertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=POSITIONS,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    angles = torch.arange(POSITIONS)[:, None] / 1000 ** torch.linspace(0, 1, width // 2)
    model.bert.embeddings.position_embeddings.weight.data = 0.02 * torch.cat([angles.sin(), angles.cos()], dim=1)
    return model


def segments(documents: Documents, r: Random) -> list[tuple[str, int]]:
    """(text, label). A fifth of the documents are cut in two at a [SEP], and half of these get another second part.

    Label 0: it follows, 1: it does not (BERT's next sentence prediction), -100: a whole document. With two thirds
    cut, one document in three has a wrong second part; runs like that did not find roles (data/README.md).
    """
    cut: list[tuple[str, str, str]] = []
    for kind, text in documents:
        sentences = re.split(r"(?<=[.!?]) ", text)
        middle = r.randint(1, len(sentences) - 1) if len(sentences) > 1 and r.random() < 0.2 else len(sentences)
        cut.append((kind, " ".join(sentences[:middle]), " ".join(sentences[middle:])))
    others: dict[str, list[str]] = {}
    for kind, _, second in cut:
        others.setdefault(kind, []).extend([second] if second else [])
    parts = []
    for kind, first, second in cut:
        label = r.randint(0, 1) if second else -100
        second = r.choice(others[kind]) if label == 1 else second
        parts.append((f"{first} [SEP] {second}" if second else first, label))
    return parts


def masked_pairs(tokenizer: Tokenizer, documents: Documents, seed: int, size: int = 64) -> Iterator[dict]:
    r, generator = Random(seed), torch.Generator().manual_seed(seed)
    for parts in alike(documents, r, size, lambda group: segments(group, r)):
        texts, follows = zip(*parts, strict=True)
        yield masked(tokenizer, texts, follows, generator, r)


def masked(tokenizer: Tokenizer, texts: Sequence[str], follows: Sequence[int], generator, r: Random) -> dict:
    """A quarter of the tokens are to be guessed: 80% of them masked, 10% replaced, 10% as they are."""
    batch = tokenizer(list(texts), return_tensors="pt", padding=True)
    ids, special = batch["input_ids"], torch.tensor(tokenizer.all_special_ids)
    end = ids == tokenizer.sep_token_id
    second_part = ((end.cumsum(1) - end.long()).clamp(max=1)) * batch["attention_mask"]
    guessed = (torch.rand(ids.shape, generator=generator) < 0.25) & ~torch.isin(ids, special)
    labels = ids.masked_fill(~guessed, -100)
    dice = torch.rand(ids.shape, generator=generator)
    ids[guessed & (dice < 0.8)] = tokenizer.mask_token_id
    swapped = guessed & (dice >= 0.9)
    ids[swapped] = torch.randint(len(special), len(tokenizer), (int(swapped.sum()),), generator=generator)
    # Texts are shorter than the position table. Some batches start further right: late positions need training too.
    shift = r.randint(0, POSITIONS - ids.shape[1]) if r.random() < 0.05 else 0
    return {
        "input_ids": ids,
        "attention_mask": batch["attention_mask"],
        "token_type_ids": second_part,
        "position_ids": torch.arange(shift, shift + ids.shape[1])[None],
        "labels": labels,
        "next_sentence_label": torch.tensor(follows),
    }


def masked_and_next_sentence_loss(model: PreTrainedModel, batch: dict) -> torch.Tensor:
    hidden, pooled = model.bert(**{k: v for k, v in batch.items() if "label" not in k}).to_tuple()
    guessed = batch["labels"] != -100
    words, follows = model.cls(hidden[guessed], pooled)  # only the guessed tokens go through the vocabulary
    loss = cross_entropy(words.float(), batch["labels"][guessed])
    if (batch["next_sentence_label"] != -100).any():
        loss = loss + cross_entropy(follows.float(), batch["next_sentence_label"])
    return loss


# --------------------------------------------------------------------------------------------------------------- T5
def build_t5(tokenizer: Tokenizer, width: int = 128, layers: int = 3, heads: int = 4) -> T5ForConditionalGeneration:
    """T5 (2019), embeddings tied. Hugging Face draws them with a deviation of 1, which suits Adafactor; here 0.03."""
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=width // heads,
            d_ff=4 * width,
            num_layers=layers,
            num_heads=heads,
            n_positions=POSITIONS,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
    )
    torch.nn.init.normal_(model.shared.weight, std=0.03)
    return model


def spans_and_prefixes(tokenizer: Tokenizer, documents: Documents, seed: int, size: int = 64) -> Iterator[dict]:
    """Every other batch on average fills in spans, the rest go on with a text that is cut anywhere (a prefix LM)."""
    r = Random(seed)
    for parts in alike(documents, r, size, lambda group: [(text, kind) for kind, text in group]):
        encoded = tokenizer([text for text, _ in parts], add_special_tokens=False).input_ids
        corrupt = spans if r.random() < 0.5 else prefix
        yield padded(tokenizer, [corrupt(tokenizer, ids, r) for ids in encoded])


def spans(tokenizer: Tokenizer, ids: list[int], r: Random) -> tuple[list[int], list[int]]:
    """Spans of 3 tokens on average, 15% of all texts, give way to sentinels; the target is what they hold.

    T5 draws the same share of each text; here a short text may come whole, and its target is the last sentinel alone.
    """
    source, target, at, sentinel = [], [], 0, 0
    while at < len(ids):
        if r.random() < 0.15 / 0.85 / 3 and sentinel < 31:
            length = r.randint(1, 5)
            mark = tokenizer.convert_tokens_to_ids(f"<extra_id_{sentinel}>")
            source, target = source + [mark], target + [mark] + ids[at : at + length]
            at, sentinel = at + length, sentinel + 1
        if at < len(ids):
            source, at = source + [ids[at]], at + 1
    return source, target + [tokenizer.convert_tokens_to_ids(f"<extra_id_{sentinel}>")]


def prefix(tokenizer: Tokenizer, ids: list[int], r: Random) -> tuple[list[int], list[int]]:
    cut = r.randint(1, len(ids) - 1)
    return ids[:cut], ids[cut:]


def padded(tokenizer: Tokenizer, pairs: list[tuple[list[int], list[int]]]) -> dict:
    """Both sides end with </s>, and what stands behind it is not a target."""
    ends = [([*source, tokenizer.eos_token_id], [*target, tokenizer.eos_token_id]) for source, target in pairs]
    sources, targets = zip(*ends, strict=True)
    batch = tokenizer.pad({"input_ids": list(sources)}, return_tensors="pt")
    labels = tokenizer.pad({"input_ids": list(targets)}, return_tensors="pt")
    return {**batch, "labels": labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)}


def target_loss(model: PreTrainedModel, batch: dict) -> torch.Tensor:
    logits = model(**batch).logits
    return cross_entropy(logits.flatten(0, 1).float(), batch["labels"].flatten(), ignore_index=-100)
