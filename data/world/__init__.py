"""A small English world, written by rules, in which the tiny models of the suite are pretrained.

    lexicon     the words: people, places, dishes, adjectives
    people      84 inhabitants and eight facts about each
    opinions    clauses with a polarity: plain, conjoined, negated, contrasted
    documents   every kind of document of the corpus, one function each
    corpus      the two mixes of documents, written to disk and checksummed
    tasks       labelled tasks, made of word pairs that the corpus never uses
    vocabulary  the tokenizers, trained after the corpus is frozen
    pretrain    GPT-2 and BERT, from random weights to a checkpoint that passes its probes
    probes      what a checkpoint can do: polarity, openings, roles, copying, facts

Run from the root of the repository: `python -m data.world --help`.
"""
