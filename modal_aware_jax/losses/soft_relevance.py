"""Ranking by relevances that are probabilities, such as a label head's own.

A label head ranks pairs it never saw better than codes do: the probabilities know how
sure they are, 0/1 labels of a batch do not. Taken as a target of the codes they are a
teacher that is trained beside them.
"""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import check_codes, working_dtype
from modal_aware_jax.losses.expected_ap import tied_precision_sum
from modal_aware_jax.losses.triplet import mean_or_zero


def predicted_relevance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Probability that two items share a label, their labels taken as independent.

    1 − Π_l (1 − p_l q_l) with p, q the sigmoids of the logits. No gradient: what
    predicts it is not to become easier to follow.

    Args:
      a: [B, L] logits of labels.
      b: [N, L].

    Returns:
      [B, N], between 0 and 1, at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> sure, even = jnp.array([[99.0, -99.0]]), jnp.zeros((1, 2))
      >>> predicted_relevance(sure, even), predicted_relevance(even, even)
      (Array([[0.5]], dtype=float32), Array([[0.4375]], dtype=float32))
    """
    if jnp.ndim(a) != 2 or jnp.ndim(b) != 2 or jnp.shape(a)[1] != jnp.shape(b)[1]:
        raise ValueError(
            f"predicted_relevance: expected logits [B, L] and [N, L] of the same "
            f"labels, got {jnp.shape(a)} and {jnp.shape(b)}."
        )
    p, q = (jax.nn.sigmoid(jnp.asarray(x, working_dtype(x))) for x in (a, b))

    def one_more(none_shared, label):  # a label at a time: no [B, N, L]
        own, theirs = label
        return none_shared * (1 - own[:, None] * theirs[None, :]), None

    start = jnp.ones((len(p), len(q)), jnp.result_type(p, q))
    none_shared, _ = jax.lax.scan(one_more, start, (p.T, q.T))
    return jax.lax.stop_gradient(1 - none_shared)


def check_relevance(name: str, h: jax.Array, relevance: jax.Array) -> None:
    """Raises `ValueError` unless h is real [B, K] and relevance [B, B].

    Args:
      name: the calling function, for the message.
      h: relaxed codes.
      relevance: of row i for row j.
    """
    shapes = jnp.shape(h), jnp.shape(relevance)
    if len(shapes[0]) != 2 or shapes[1] != (shapes[0][0],) * 2:
        raise ValueError(
            f"{name}: expected relaxed codes [B, K] and relevances [B, B] of the same "
            f"batch, got {shapes[0]} and {shapes[1]}."
        )
    check_codes(name, h)


def soft_relevance_ap_loss(h: jax.Array, relevance: jax.Array) -> jax.Array:
    """1 − mean over anchors of their average precision by probabilities of relevance.

    `expected_ap.expected_average_precision_loss` with w_ij in [0, 1] in place of 0 or
    1: each of the other B − 1 items is relevant with a probability of its own, and an
    anchor's value is the expected sum of the precisions at relevant places over the
    expected number of relevant items, also over random orders inside a tie. At w in
    {0, 1} it is that loss. Unlike there no order reaches 0: what is uncertain costs.

    Args:
      h: [B, K] relaxed codes, after tanh.
      relevance: [B, B] w; the diagonal is left out. A constant to the gradient.

    Returns:
      A scalar of h's dtype; 0 where nothing is relevant.

    Example:
      >>> import jax.numpy as jnp
      >>> h = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])
      >>> sure = jnp.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
      >>> round(float(soft_relevance_ap_loss(h, sure)), 4)  # of AP .75 and 1
      0.125
    """
    check_relevance("soft_relevance_ap_loss", h, relevance)
    wide = jnp.asarray(h, working_dtype(h))
    num_bits = wide.shape[1]
    others = ~jnp.eye(len(wide), dtype=bool)
    w = jnp.asarray(jax.lax.stop_gradient(relevance), wide.dtype)
    w = jnp.where(others, w, 0)
    distance = jnp.clip((num_bits - wide @ wide.T) / 2, 0, num_bits)
    each = jnp.stack([others.astype(w.dtype), w, w**2], axis=-1)  # [B, B, 3]
    sums = soft_sums(distance, each, num_bits)
    gained = jax.vmap(tied_precision_sum)(*jnp.moveaxis(sums, -1, 0))  # [B]
    found = w.sum(axis=1)
    some = found > 0
    precision = jnp.where(some, gained / jnp.where(some, found, 1), 0)
    loss = mean_or_zero(jnp.sum(1 - precision, where=some), some.sum())
    return loss.astype(jnp.result_type(h))


def full_length(h: jax.Array) -> jax.Array:
    """Rows of relaxed codes [B, K] scaled to √K, the length of codes of ±1.

    A relaxed code can be near to nothing by being short; its signs cannot. Ranked at
    full length it has to say all by its direction.

    Example:
      >>> import jax.numpy as jnp
      >>> full_length(jnp.array([[0.5, 0.5], [0.0, 0.1]])).round(3).tolist()
      [[1.0, 1.0], [0.0, 1.4140000343322754]]
    """
    check_codes("full_length", h)
    wide = jnp.asarray(h, working_dtype(h))
    square = jnp.mean(wide**2, axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.where(square > 1e-12, square, 1.0))
    return (wide * scale).astype(jnp.result_type(h))


def soft_sums(distance: jax.Array, values: jax.Array, num_bits: int) -> jax.Array:
    """Sums of values by integer distance, shared between the two beside the own one.

    Args:
      distance: real [Q, N], between 0 and K.
      values: [Q, N, C].
      num_bits: K.

    Returns:
      [Q, K + 2, C], by distance 0 .. K, and a last distance without weight.

    Example:
      >>> import jax.numpy as jnp
      >>> soft_sums(jnp.array([[0.25]]), jnp.full((1, 1, 1), 4.0), 1)[0, :, 0].tolist()
      [3.0, 1.0, 0.0]
    """
    below = jnp.floor(distance)
    above = (distance - below)[..., None] * values
    place = jnp.nan_to_num(below).astype(jnp.int32)  # a NaN keeps its weight: NaN
    rows = jnp.arange(len(distance), dtype=jnp.int32)[:, None]
    sums = jnp.zeros((len(distance), num_bits + 2, values.shape[-1]), above.dtype)
    sums = sums.at[rows, place].add(values - above)
    return sums.at[rows, place + 1].add(above)


def relevance_divergence(
    h: jax.Array, relevance: jax.Array, *, temperature: float = 0.1
) -> jax.Array:
    """Listwise distillation: KL of each anchor's relevances from its similarities.

    Both are made distributions over the other B − 1 items: the relevances w by their
    sum, the similarities by softmax(⟨h_i, h_j⟩ / (K temperature)). The mean over
    anchors with something relevant of Σ_j t_ij (log t_ij − log s_ij).

    Source: the listwise cross-entropy of Cao et al., "Learning to Rank" (ICML 2007),
    with graded targets.

    Args:
      h: [B, K] relaxed codes, after tanh.
      relevance: [B, B] w; the diagonal is left out. A constant to the gradient.
      temperature: the smaller, the more the nearest items weigh.

    Returns:
      A scalar of h's dtype, 0 or more.

    Example:
      >>> import jax.numpy as jnp
      >>> h, even = jnp.ones((3, 4)), jnp.ones((3, 3))
      >>> abs(round(float(relevance_divergence(h, even)), 4))
      0.0
    """
    check_relevance("relevance_divergence", h, relevance)
    wide = jnp.asarray(h, working_dtype(h))
    others = ~jnp.eye(len(wide), dtype=bool)
    w = jnp.asarray(jax.lax.stop_gradient(relevance), wide.dtype)
    w = jnp.where(others, w, 0)
    found = w.sum(axis=1, keepdims=True)
    some = found > 0
    target = w / jnp.where(some, found, 1)
    similarity = wide @ wide.T / (wide.shape[1] * temperature)
    logs = jax.nn.log_softmax(jnp.where(others, similarity, -jnp.inf), axis=1)
    gap = jax.scipy.special.xlogy(target, target)
    gap -= target * jnp.where(others, logs, 0)
    loss = mean_or_zero(gap.sum(), some.sum())
    return loss.astype(jnp.result_type(h))
