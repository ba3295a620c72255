"""Nested lengths: the first b bits of a code are a code of b bits themselves."""

from collections.abc import Callable, Sequence


def check_lengths(lengths: Sequence[int], num_bits: int) -> tuple[int, ...]:
    """The lengths of a nested code, ascending, the whole code last.

    Args:
      lengths: at which a prefix is a code; empty where only the whole is one.
      num_bits: K.

    Raises:
      ValueError: a length is not between 1 and K, or occurs twice.

    Example:
      >>> check_lengths((32, 16), 64)
      (16, 32, 64)
    """
    given = [int(length) for length in lengths]
    wrong = [length for length in given if not 1 <= length <= num_bits]
    if wrong or len(set(given)) != len(given):
        raise ValueError(
            f"config.model.nested_bits={tuple(given)}: expected different lengths from "
            f"1 to {num_bits}, the number of bits (config.model.num_bits)."
        )
    return tuple(sorted({*given, num_bits}))


def nested_loss(loss_of: Callable, lengths: Sequence[int]) -> Callable:
    """The mean over prefixes of a loss of relaxed bits.

    Source: Kusupati et al., "Matryoshka Representation Learning" (NeurIPS 2022), eq. 1,
    with equal weights and for codes.

    Args:
      loss_of: `loss_of(b)` -> `loss(u, batch, memory)` of relaxed bits [B, b].
      lengths: of the prefixes.

    Returns:
      `loss(u, batch, memory)` of relaxed bits [B, K].

    Example:
      >>> import jax.numpy as jnp
      >>> total = nested_loss(lambda b: lambda u, batch, memory: u.sum(), (1, 2))
      >>> float(total(jnp.array([[1.0, 2.0]]), None, None))
      2.0
    """
    losses = [(length, loss_of(length)) for length in lengths]

    def loss(u, batch, memory):
        values = [one(u[:, :length], batch, memory) for length, one in losses]
        return sum(values) / len(values)

    return loss
