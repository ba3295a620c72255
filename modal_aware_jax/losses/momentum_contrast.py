"""InfoNCE against a slow copy of the network: queues of negatives and soft targets."""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.cross_pairs import check_embeddings, unit
from modal_aware_jax.losses.distance import working_dtype


def moving_average(average, new, *, momentum: float = 0.995):
    """momentum · average + (1 − momentum) · new, for every array of two equal trees.

    The momentum copy of MoCo (arXiv:1911.05722, eq. 2) and ALBEF: start it as the
    parameters themselves and renew it after every step.

    Args:
        average, new: trees of arrays, such as the parameters of a model.
        momentum: share of the old.

    Returns:
        A tree of the dtypes of `average`.

    Raises:
        ValueError: momentum is not between 0 and 1.

    Example:
        >>> import jax.numpy as jnp
        >>> moving_average({"w": jnp.ones(1)}, {"w": jnp.zeros(1)}, momentum=0.75)
        {'w': Array([0.75], dtype=float32)}
    """
    if not 0 <= momentum <= 1:
        raise ValueError(
            f"moving_average: expected momentum between 0 and 1, got {momentum}."
        )

    def mix(old, value):
        wide = working_dtype(old)
        mixed = momentum * old.astype(wide) + (1 - momentum) * value.astype(wide)
        return mixed.astype(old.dtype)

    return jax.tree.map(mix, average, new)


def momentum_info_nce(
    image: jax.Array,
    text: jax.Array,
    slow_image: jax.Array,
    slow_text: jax.Array,
    *,
    scale: jax.Array | float,
    share: jax.Array | float = 0.4,
    image_queue: jax.Array | None = None,
    text_queue: jax.Array | None = None,
    groups: jax.Array | None = None,
    image_queue_groups: jax.Array | None = None,
    text_queue_groups: jax.Array | None = None,
) -> jax.Array:
    """Image-text contrast of ALBEF with momentum distillation (eq. 1, 2 and 6).

        p = softmax(s · cos(image, slow texts and queue))
        q = softmax(s · cos(slow image, the same))
        ½ mean CE((1 − α) own + α q, p),  and likewise for texts

    (Li et al., arXiv:2107.07651.) The own pair is the target with weight 1 − α; the
    slow network says what else fits, with weight α. Unlike there, candidates of the
    row's group other than its own pair leave both softmaxes.

    Args:
        image, text: [B, D] embeddings of any length; row i of both is a pair.
        slow_image, slow_text: [B, D] of the same rows by the momentum copy; they get no
            gradient.
        scale: s, the inverse temperature.
        share: α.
        image_queue, text_queue: [N, D] of earlier batches by the momentum copy; None:
            none. `bank.update_bank` renews rows of such a table.
        groups: whole numbers [B], the image of each row; None: all differ.
        image_queue_groups, text_queue_groups: [N] groups of the queues' rows, where
            groups are given.

    Returns:
        A scalar of image's dtype.

    Raises:
        ValueError: shapes do not fit, or the embeddings are not real.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.eye(2)
        >>> float(momentum_info_nce(x, x, x, x, scale=1.0, share=0.0))  # InfoNCE
        0.31326...
    """
    name = "momentum_info_nce"
    check_embeddings(name, image, text)
    check_embeddings(f"{name} (slow)", slow_image, slow_text)
    if jnp.shape(slow_image) != jnp.shape(image):
        raise ValueError(
            f"{name}: expected the slow embeddings of the same rows, "
            f"{jnp.shape(image)}, got {jnp.shape(slow_image)}."
        )
    total = 0.0
    for query, slow_query, slow_other, queue, queue_groups, side in (
        (image, slow_image, slow_text, text_queue, text_queue_groups, "text"),
        (text, slow_text, slow_image, image_queue, image_queue_groups, "image"),
    ):
        _check_queue(name, side, query, queue, groups, queue_groups)
        candidates, other = [slow_other], [groups]
        if queue is not None:
            candidates, other = [slow_other, queue], [groups, queue_groups]
        candidates = jnp.concatenate(candidates)  # [B + N, D]
        own = jnp.eye(len(query), len(candidates), dtype=bool)
        allowed = jnp.ones_like(own)
        if groups is not None:
            other = jnp.concatenate([jnp.asarray(x) for x in other])
            allowed = own | (jnp.asarray(groups)[:, None] != other[None, :])
        total += _distilled(query, slow_query, candidates, own, allowed, scale, share)
    return (total / 2).astype(jnp.result_type(image))


def _distilled(query, slow_query, candidates, own, allowed, scale, share):
    """Mean over the queries of the cross-entropy with the mixed targets."""
    kind = working_dtype(query)
    slow_query, candidates = jax.lax.stop_gradient((slow_query, candidates))
    query, slow_query, candidates = (
        unit(x.astype(kind)) for x in (query, slow_query, candidates)
    )

    def log_softmax(rows, scale):
        # A TPU's default would round the embeddings to bfloat16.
        cosine = jnp.matmul(rows, candidates.T, precision=jax.lax.Precision.HIGHEST)
        # -inf would give 0 * inf beside a target of 0.
        logits = jnp.where(allowed, jnp.asarray(scale) * cosine, -1e9)
        return jax.nn.log_softmax(logits, axis=1)

    soft = jnp.exp(log_softmax(slow_query, jax.lax.stop_gradient(scale)))
    target = (1 - share) * own + share * jnp.where(allowed, soft, 0)
    losses = jnp.where(allowed, target * log_softmax(query, scale), 0)
    return -jnp.mean(losses.sum(axis=1))


def _check_queue(name, side, query, queue, groups, queue_groups):
    if queue is None:
        return
    if jnp.ndim(queue) != 2 or queue.shape[1] != query.shape[1]:
        raise ValueError(
            f"{name}: expected {side}_queue [N, {query.shape[1]}], got "
            f"{jnp.shape(queue)}."
        )
    given = None if queue_groups is None else jnp.shape(queue_groups)
    wanted = None if groups is None else (len(queue),)
    if given != wanted:
        raise ValueError(
            f"{name}: expected {side}_queue_groups of shape {wanted}, as groups are "
            f"{'not ' if groups is None else ''}given, got {given}."
        )
