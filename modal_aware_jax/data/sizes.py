"""Sizes of a split and of a batch that fit a collection, where none are given."""

from typing import NamedTuple

MIN_PAIRS = 60


class Sizes(NamedTuple):
    """How many pairs do what; see `protocol.split`."""

    num_queries: int
    num_train: int
    num_validation: int


def fitting_sizes(
    num_pairs: int,
    *,
    num_queries: int | None = None,
    num_train: int | None = None,
    num_validation: int | None = None,
) -> Sizes:
    """A sixth of the pairs ask, a fifteenth validates, the rest teaches.

    At most 2,000 queries and 1,000 validation queries, as in the field's protocols; of
    more than 10,000 pairs a tenth is learned from, 10,000 at least.

    Args:
      num_pairs: N.
      num_queries, num_train, num_validation: those that are given.

    Raises:
      ValueError: there are fewer than 60 pairs.

    Example:
      >>> fitting_sizes(300), fitting_sizes(300_000, num_queries=500)[:2]
      (Sizes(num_queries=50, num_train=230, num_validation=20), (500, 30000))
    """
    if num_pairs < MIN_PAIRS and None in (num_queries, num_train, num_validation):
        raise ValueError(
            f"{num_pairs} pairs are too few to learn from and to ask: at least "
            f"{MIN_PAIRS} are needed. To try it all the same, give all three sizes: "
            "--config.data.num_queries=, --config.data.num_train=, "
            "--config.data.num_validation=."
        )
    if num_queries is None:
        num_queries = min(max(num_pairs // 6, 10), 2000)
    if num_validation is None:
        num_validation = min(max(num_pairs // 15, 5), 1000)
    if num_train is None:
        rest = max(num_pairs - num_queries - num_validation, 0)
        num_train = min(rest, max(10_000, num_pairs // 10))
    return Sizes(num_queries, num_train, num_validation)


def fitting_batch(num_train: int, num_devices: int = 1) -> int:
    """A batch size that gives an epoch 8 steps, between 8 and 100 pairs.

    Args:
      num_train: number of training pairs.
      num_devices: the batch is split over so many.

    Example:
      >>> fitting_batch(230), fitting_batch(5000), fitting_batch(45, num_devices=4)
      (28, 100, 8)
    """
    size = min(max(num_train // 8, 8), 100, num_train)
    return max(size - size % num_devices, num_devices)
