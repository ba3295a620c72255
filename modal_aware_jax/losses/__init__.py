"""Losses: pure functions of a batch's codes and 0/1 labels, returning a scalar.

Used by module, as in `losses.pairwise.dpsh(u, labels)`.
"""

from modal_aware_jax.losses import bank as bank
from modal_aware_jax.losses import pairwise as pairwise
from modal_aware_jax.losses import quantization as quantization
from modal_aware_jax.losses import triplet as triplet

__all__ = ["bank", "pairwise", "quantization", "triplet"]
