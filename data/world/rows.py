"""What the tasks are made of: rows, in splits that share none."""

from collections.abc import Callable, Hashable

Row = dict
Splits = dict[str, list[Row]]


def distinct(count: int, make: Callable[[], Row], key: str, seen: set[Hashable]) -> list[Row]:
    """`count` rows whose `key` is new, also to the splits made before."""
    rows: list[Row] = []
    while len(rows) < count:
        row = make()
        value = tuple(row[key]) if isinstance(row[key], list) else row[key]
        if value not in seen:
            seen.add(value)
            rows.append(row)
    return rows
