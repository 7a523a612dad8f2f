"""What training keeps in memory for the parameters, computed from their numbers.

    weights       every parameter, frozen or trained
    gradients     one number for each trained parameter
    moments       two for each trained parameter: AdamW's running mean of the gradient and of its square

Activations come on top. They depend on the batch, and on how deep the lowest trained weight lies: `backward_cost`
measures them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Memory:
    """In bytes."""

    weights: int
    gradients: int
    moments: int

    @property
    def optimizer(self) -> int:
        """What is there for the trained parameters alone."""
        return self.gradients + self.moments

    def __repr__(self) -> str:
        parts = (f"{readable(getattr(self, name))} {name}" for name in ("weights", "gradients", "moments"))
        return ", ".join(parts)


def training_memory(total: int, trainable: int, bytes_each: int = 4) -> Memory:
    """For AdamW, with all numbers in one format: 4 bytes for float32."""
    return Memory(total * bytes_each, trainable * bytes_each, 2 * trainable * bytes_each)


def readable(size: float) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
