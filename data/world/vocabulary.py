"""The tokenizers: byte-level BPE as GPT-2 has it, lower-case WordPiece as BERT has it, small.

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


def _decoder(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2600,
        min_frequency=20,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
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


def _encoder(texts: Iterator[str]) -> PreTrainedTokenizerFast:
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


def train(mix: str, corpora: list[Path]) -> PreTrainedTokenizerFast:
    """The tokenizer of one mix, trained on the first documents of all corpora."""

    def texts() -> Iterator[str]:
        for path in corpora:
            yield from (text for _, text in corpus.read(path, stop=DOCUMENTS))

    tokenizer = {"decoder": _decoder, "encoder": _encoder}[mix](texts())
    split = [word for word in one_token_words() if len(tokenizer.tokenize(word)) != 1]
    if split:
        raise ValueError(f"the {mix} tokenizer splits {split[:10]}: each must be one token; give it more entries")
    return tokenizer
