"""Losses: pure functions of a batch's codes and 0/1 labels, returning a scalar.

Used by module, as in `losses.pairwise.dpsh(u, labels)`.
"""

from modal_aware_jax.losses import bank as bank
from modal_aware_jax.losses import central as central
from modal_aware_jax.losses import contrastive as contrastive
from modal_aware_jax.losses import cross_entropy as cross_entropy
from modal_aware_jax.losses import cross_modal_ap as cross_modal_ap
from modal_aware_jax.losses import cross_pairs as cross_pairs
from modal_aware_jax.losses import dcmh as dcmh
from modal_aware_jax.losses import expected_ap as expected_ap
from modal_aware_jax.losses import expected_ndcg as expected_ndcg
from modal_aware_jax.losses import hard_negatives as hard_negatives
from modal_aware_jax.losses import info_nce as info_nce
from modal_aware_jax.losses import loss_balance as loss_balance
from modal_aware_jax.losses import matching as matching
from modal_aware_jax.losses import momentum_contrast as momentum_contrast
from modal_aware_jax.losses import pairwise as pairwise
from modal_aware_jax.losses import quantization as quantization
from modal_aware_jax.losses import sigmoid_pairs as sigmoid_pairs
from modal_aware_jax.losses import similarity_distillation as similarity_distillation
from modal_aware_jax.losses import soft_relevance as soft_relevance
from modal_aware_jax.losses import triplet as triplet
from modal_aware_jax.losses import triplet_graded as triplet_graded
from modal_aware_jax.losses import triplet_mining as triplet_mining
from modal_aware_jax.losses import unimodal_contrastive as unimodal_contrastive
from modal_aware_jax.losses import vse as vse

__all__ = [
    "bank",
    "central",
    "contrastive",
    "cross_entropy",
    "cross_modal_ap",
    "cross_pairs",
    "dcmh",
    "expected_ap",
    "expected_ndcg",
    "hard_negatives",
    "info_nce",
    "loss_balance",
    "matching",
    "momentum_contrast",
    "pairwise",
    "quantization",
    "sigmoid_pairs",
    "similarity_distillation",
    "soft_relevance",
    "triplet",
    "triplet_graded",
    "triplet_mining",
    "unimodal_contrastive",
    "vse",
]
