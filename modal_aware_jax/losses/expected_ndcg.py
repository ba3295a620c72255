"""Graded ranking as a loss: NDCG by shared labels, over random orders inside ties."""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import check_batch, shared_labels, working_dtype
from modal_aware_jax.losses.soft_relevance import soft_sums
from modal_aware_jax.losses.triplet import mean_or_zero


def expected_ndcg_loss(h: jax.Array, labels: jax.Array) -> jax.Array:
    """1 − mean over anchors of their 'expected' NDCG in the batch.

    Every item is an anchor that ranks the other B − 1 by d = (K − ⟨h, h'⟩) / 2, spread
    over integers as in `expected_ap`. An item that shares s labels has the gain
    2^s − 1; a tie's places share its gains, each place p discounted by 1 / log2(p + 1);
    the sum is divided by that of the best order. At h in {−1, 1} it is
    `retrieval.graded.ndcg_at` at n = B − 1 with ties='expected', the anchor itself left
    out. Anchors without a positive leave the mean.

    Source: He et al., "Hashing as Tie-Aware Learning to Rank" (CVPR 2018), eq. 8. The
    sums of discounts are linear between whole numbers of items, not integrals.

    Args:
      h: [B, K] relaxed codes, after tanh.
      labels: [B, L] 0/1.

    Returns:
      A scalar of h's dtype, between 0 and 1; 0 where no anchor has a positive.

    Raises:
      ValueError: h and labels are not [B, K] and [B, L].

    Example:
      >>> import jax.numpy as jnp
      >>> h = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])
      >>> labels = jnp.array([[1, 0], [1, 0], [0, 1]])
      >>> loss = expected_ndcg_loss(h, labels)  # (1 + .6309) / 2 in a tie, and 1
      >>> round(float(loss), 4)
      0.0923
    """
    check_batch("expected_ndcg_loss", h, labels)
    wide = jnp.asarray(h, working_dtype(h))
    num_bits, count = wide.shape[1], len(wide)
    others = ~jnp.eye(count, dtype=bool)
    gains = jnp.exp2(shared_labels(labels, labels)) - 1
    gains = jnp.where(others, gains, 0).astype(wide.dtype)
    distance = jnp.clip((num_bits - wide @ wide.T) / 2, 0, num_bits)
    each = jnp.stack([others.astype(wide.dtype), gains], axis=-1)  # [B, B, 2]
    sums = soft_sums(distance, each, num_bits)
    terms = 1 / jnp.log2(jnp.arange(2, count + 3, dtype=wide.dtype))  # spare ones
    found = jax.vmap(tied_dcg, (0, 0, None))(sums[..., 0], sums[..., 1], terms)
    ideal = jnp.sort(gains, axis=1, descending=True) @ terms[:count]
    some = ideal > 0
    ratio = jnp.where(some, found / jnp.where(some, ideal, 1), 0)
    loss = mean_or_zero(jnp.sum(1 - ratio, where=some), some.sum())
    return loss.astype(jnp.result_type(h))


def tied_dcg(count: jax.Array, gain: jax.Array, terms: jax.Array) -> jax.Array:
    """Discounted gain of real-valued counts by distance, over random tie orders.

    Args:
      count: [D] items of each distance, ascending.
      gain: [D] sum of the gains of each distance.
      terms: [P] discounts of the places 1 .. P, more than there are items.

    Returns:
      A scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> terms = jnp.array([1.0, 0.5, 0.25, 0.0])
      >>> float(tied_dcg(jnp.array([1.0, 2.0]), jnp.array([2.0, 4.0]), terms))
      3.5
    """
    end = jnp.cumsum(count)
    start = jnp.concatenate([jnp.zeros(1, end.dtype), end[:-1]])
    return jnp.sum(gain * _mean_term(start, end, terms))


def _mean_term(start, end, terms):
    """Mean of the discounts between two real-valued places, also where they are one.

    The whole terms in between are a difference of sums; what is left of the first and
    the last one is counted by itself, so that nothing cancels inside one place.
    """
    last = len(terms) - 1
    first, final = (jnp.clip(jnp.floor(x), 0, last) for x in (start, end))
    of_first, of_final = (terms[x.astype(jnp.int32)] for x in (first, final))
    sums = jnp.cumsum(terms) - terms  # before each place
    between = sums[final.astype(jnp.int32)] - sums[first.astype(jnp.int32)] - of_first
    inside = final == first
    width = jnp.where(inside, 1, end - start)
    total = (first + 1 - start) * of_first + between + (end - final) * of_final
    return jnp.where(inside, of_first, total / width)
