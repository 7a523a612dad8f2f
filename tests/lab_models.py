"""Tiny random models with a word tokenizer, saved as a user's folder is: what the tests of the lab load."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

WORDS = "a the good bad food was is not very name type area Aromi Bibimbap cafe pub city riverside : | , . in near"
SPECIAL = ["<pad>", "<unk>", "<eos>", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = SPECIAL + WORDS.split()


def word_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(VOCABULARY)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def marked_tokenizer(encoder_decoder: bool) -> PreTrainedTokenizerFast:
    """With the mark that `backbone` puts on a tokenizer."""
    tokenizer = word_tokenizer()
    tokenizer.encoder_decoder = encoder_decoder
    return tokenizer


def random_model(kind: str, labels: int = 0):
    """With `labels` it is a tagger, which must be a BERT."""
    torch.manual_seed(0)  # a random model may by chance end every text at once
    size = len(VOCABULARY)
    shared = dict(vocab_size=size, pad_token_id=0, eos_token_id=2)
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=2, **shared))
    if kind == "bert":
        return (BertForTokenClassification if labels else BertForMaskedLM)(
            BertConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=64,
                **({"num_labels": labels} if labels else {}),
                **shared,
            )
        )
    return T5ForConditionalGeneration(
        T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0, **shared)
    )


def save_model(folder, kind: str, readme: str = ""):
    random_model(kind).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    if readme:
        (folder / "README.md").write_text(readme, encoding="utf-8")
    return folder


def gpt2():
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_embd=32, n_layer=3, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0)
    )


def bert_classifier():
    return BertForSequenceClassification(
        BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    )
