"""Similarity distillation: a student ranks a batch's pairs as a teacher ranks them."""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.cross_pairs import check_embeddings, cosines, pair_masks
from modal_aware_jax.losses.triplet import mean_or_zero


def similarity_distillation(
    image: jax.Array,
    text: jax.Array,
    teacher: jax.Array,
    *,
    scale: jax.Array | float,
    mask: jax.Array | None = None,
) -> jax.Array:
    """½ mean_i KL(p_i ‖ q_i) + the same of columns, p the teacher's, q the student's.

    p_i = softmax_j of the teacher's logits, q_i = softmax_j(s·cos_ij): how similar
    image i is to each text of the batch, and text j to each image.

    Cross-modal similarity matching of BeamCLIP (arXiv:2301.02903, Sec. 3.2). There the
    student has an image encoder alone and is compared with the teacher's own text
    vectors of fixed prompts. Here both towers learn, so the texts of the batch are the
    anchors of the images and the images those of the texts, and the divergence is taken
    both ways. The teacher's entropy, a constant, is taken off: 0 means equal.

    Args:
        image, text: [B, D] embeddings of the student, of any length; row i of both is a
          pair.
        teacher: [B, B] logits of the teacher, of image i (rows) and text j; they get no
          gradient.
        scale: s of the student, its inverse temperature.
        mask: [B], true for rows that count; None: all do.

    Returns:
        A scalar of image's dtype, not negative; 0 where no row counts.

    Raises:
        ValueError: shapes do not fit, or the embeddings are not real.

    Example:
        >>> import jax.numpy as jnp
        >>> eye = jnp.eye(2)
        >>> float(similarity_distillation(eye, eye, 3 * eye, scale=3.0))
        0.0
        >>> float(similarity_distillation(eye, eye, 0 * eye, scale=1.0))
        0.12011...
    """
    name = "similarity_distillation"
    check_embeddings(name, image, text)
    if jnp.shape(teacher) != (len(image),) * 2:
        raise ValueError(
            f"{name}: expected the teacher's logits [{len(image)}, {len(image)}], of "
            f"each image with each text, got {jnp.shape(teacher)}."
        )
    own, negative = pair_masks(name, len(image), None, mask)
    logits, there = jnp.asarray(scale) * cosines(image, text, mask), own | negative
    teacher = jax.lax.stop_gradient(jnp.asarray(teacher, logits.dtype))
    value = _divergence(teacher, logits, there) + _divergence(
        teacher.T, logits.T, there.T
    )
    return (value / 2).astype(jnp.result_type(image))


def _divergence(teacher, student, there):
    """Mean over rows of KL(softmax of the teacher ‖ softmax of the student)."""
    some = there.any(axis=1)
    counted = there | ~some[:, None]  # a softmax over nothing would be NaN
    # What is left out may hold anything, even an infinity.
    teacher, student = (jnp.where(counted, x, 0) for x in (teacher, student))
    own, other = (
        x - jax.nn.logsumexp(x, axis=1, keepdims=True, where=counted)
        for x in (teacher, student)
    )
    rows = jnp.sum(jnp.exp(own) * (own - other), axis=1, where=counted)
    return mean_or_zero(jnp.sum(rows, where=some), some.sum())
