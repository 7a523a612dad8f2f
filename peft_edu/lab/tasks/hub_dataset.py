"""Rows of 🤗 datasets: a `Dataset`, or a `DatasetDict` with one for each split. The library is not needed here."""

from collections.abc import Mapping


def is_dataset(given: object) -> bool:
    return hasattr(given, "column_names") and hasattr(given, "features") or _is_dict_of_them(given)


def _is_dict_of_them(given: object) -> bool:
    return isinstance(given, Mapping) and bool(given) and all(map(is_dataset, given.values()))


def splits_of(given) -> dict[str, object]:
    """The data set of each split; what is streamed has no length, and is refused."""
    splits = dict(given) if _is_dict_of_them(given) else {"train": given}
    for split, data in splits.items():
        if not hasattr(data, "__len__"):
            raise ValueError(
                f"the split {split!r} is streamed: take rows first, Dataset.from_list(list(data.take(1000)))"
            )
    if "train" not in splits:
        raise ValueError(f"a task needs a split 'train'; this data set has {', '.join(splits)}")
    return splits


def label_names(data, column: str) -> list[str]:
    """The names behind the numbers of a column of labels or of tags, where the data set knows them."""
    feature = (data.features or {}).get(column)
    feature = getattr(feature, "feature", feature)  # of tags, a list of labels
    return list(getattr(feature, "names", None) or [])
