"""The tokenizers: byte-level BPE as GPT-2 has it, the same with T5's special tokens, and BERT's lower-case WordPiece.

They are trained on both mixes after the corpus is frozen. Every document of the decoder starts with <|endoftext|>, and
its tokenizer puts it there; a blank is put in front of the first word, so that a name is the same token everywhere.
WordPiece gets every word of the corpus whole, and single characters for what the corpus does not have.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from . import corpus, lexicon

DOCUMENTS = 100_000  # of each mix, to train on


def one_token_words() -> list[str]:
    """The words that must be one token: names, aspects, adjectives, and the objects of all facts."""
    groups = (
        lexicon.FIRST_NAMES,
        lexicon.SURNAMES,
        lexicon.TOWNS,
        lexicon.FIRMS,
        lexicon.LANGUAGES,
        lexicon.JOBS,
        lexicon.VENUES,
        lexicon.HOUSES,
        lexicon.LODGINGS,
        lexicon.CUISINES,
        lexicon.PRICES,
        lexicon.AREAS,
        lexicon.DAYS,
        lexicon.NUMBERS,
        lexicon.THINGS,
        lexicon.DINING,
        lexicon.STAYING,
        lexicon.SHARED,
        lexicon.PRAISE,
        lexicon.BLAME,
        *lexicon.NEWS.values(),
    )
    return [word for group in groups for word in group]


def _bpe(texts: Iterator[str], size: int, special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=20,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _gpt2(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    tokenizer = _bpe(texts, 2600, ["<|endoftext|>", "<|pad|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", pair="<|endoftext|> $A $B", special_tokens=[("<|endoftext|>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        model_max_length=192,
    )


def _t5(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """The merges of the decoder's tokenizer, behind T5's own special tokens: the end and the sentinels of spans."""
    sentinels = [f"<extra_id_{i}>" for i in range(32)]
    tokenizer = _bpe(texts, 2598 + 34, ["<pad>", "</s>", *sentinels])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=sentinels,
        model_max_length=192,
    )


def _bert(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer, split = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in split.pre_tokenize_str(normalizer.normalize_str(text)))
    letters = sorted({letter for word in words for letter in word})
    ranked = sorted(words, key=lambda word: (-words[word], word))
    entries = dict.fromkeys(special + letters + [f"##{letter}" for letter in letters] + ranked)
    tokenizer = Tokenizer(models.WordPiece({entry: index for index, entry in enumerate(entries)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, split
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=192,
    )


def train(family: str, corpora: list[Path]) -> PreTrainedTokenizerFast:
    """The tokenizer of one family, trained on the first documents of all corpora."""

    def texts() -> Iterator[str]:
        for path in corpora:
            yield from (text for _, text in corpus.read(path, stop=DOCUMENTS))

    tokenizer = {"gpt2": _gpt2, "bert": _bert, "t5": _t5}[family](texts())
    split = [word for word in one_token_words() if len(tokenizer.tokenize(word)) != 1]
    if split:
        raise ValueError(f"the {family} tokenizer splits {split[:10]}: each must be one token; give it more entries")
    return tokenizer
