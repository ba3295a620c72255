"""Losses: pure functions of a batch's codes and 0/1 labels, returning a scalar.

Used by module, as in `losses.pairwise.dpsh(u, labels)`.
"""

from modal_aware_jax.losses import bank as bank
from modal_aware_jax.losses import central as central
from modal_aware_jax.losses import contrastive as contrastive
from modal_aware_jax.losses import expected_ap as expected_ap
from modal_aware_jax.losses import pairwise as pairwise
from modal_aware_jax.losses import quantization as quantization
from modal_aware_jax.losses import triplet as triplet
from modal_aware_jax.losses import triplet_graded as triplet_graded
from modal_aware_jax.losses import triplet_mining as triplet_mining

__all__ = [
    "bank",
    "central",
    "contrastive",
    "expected_ap",
    "pairwise",
    "quantization",
    "triplet",
    "triplet_graded",
    "triplet_mining",
]
