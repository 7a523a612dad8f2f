"""A string that a notebook shows as it is, line by line, when it is a cell's result."""


class Text(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
