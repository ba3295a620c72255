"""UniS-MMC: modalities that are right alone pull those that are wrong.

Source: Zou et al., "UniS-MMC: Multimodal Classification via Unimodality-supervised
Multimodal Contrastive Learning" (arXiv:2305.09299).
"""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import check_real, working_dtype


def unimodal_contrastive(
    text: jax.Array,
    image: jax.Array,
    text_right: jax.Array,
    image_right: jax.Array,
    *,
    temperature: float = 0.07,
    mask: jax.Array | None = None,
) -> jax.Array:
    """−log(Σ exp(cos(t_i, v_i)/τ) over pairs of which one is right / Σ over all pairs).

    t_i and v_i are the two vectors of one item. Where both unimodal predictions are
    right they draw each other; where one is, it stays and draws the other (no gradient
    reaches the right one); where both are wrong they are driven apart. It is added to
    the cross-entropies of the fused and of both unimodal predictions, at a tenth.

    The authors' published code compares the first item's text with all images in place
    of each item's own pair; this is the paper's equation.

    Args:
        text, image: [B, D] vectors of the modalities, not normalised.
        text_right, image_right: [B], whether each modality alone predicts the class.
        temperature: τ.
        mask: [B], 0 for items that lack a modality or a class.

    Returns:
        A scalar of text's dtype; 0 where no item that counts has a right modality.

    Example:
        >>> import jax.numpy as jnp
        >>> a, right, wrong = jnp.eye(2), jnp.array([1, 1]), jnp.array([0, 1])
        >>> float(unimodal_contrastive(a, a, right, wrong))
        0.0
        >>> round(float(unimodal_contrastive(a, a, wrong, wrong)), 4)
        0.6931
    """
    caller, shape = "unimodal_contrastive", jnp.shape(text)
    if len(shape) != 2 or jnp.shape(image) != shape:
        raise ValueError(
            f"{caller}: expected text and image vectors [B, D] of one width, got "
            f"{shape} and {jnp.shape(image)}."
        )
    check_real(caller, "text vectors", text)
    check_real(caller, "image vectors", image)
    mask = jnp.ones(shape[0], bool) if mask is None else mask
    flags = {"text_right": text_right, "image_right": image_right, "mask": mask}
    for name, flag in flags.items():
        if jnp.shape(flag) != shape[:1]:
            raise ValueError(
                f"{caller}: expected {name} [B] = {shape[:1]}, got {jnp.shape(flag)}."
            )
    text_right, image_right, counts = (jnp.asarray(x) != 0 for x in flags.values())

    dtype = working_dtype(text)
    a = _unit(jnp.where(counts[:, None], jnp.asarray(text, dtype), 0))
    b = _unit(jnp.where(counts[:, None], jnp.asarray(image, dtype), 0))
    still = jax.lax.stop_gradient
    a = jnp.where((text_right & ~image_right)[:, None], still(a), a)
    b = jnp.where((image_right & ~text_right)[:, None], still(b), b)
    cosine = jnp.sum(a * b, axis=-1) / temperature

    drawn = counts & (text_right | image_right)
    lowest = jnp.finfo(dtype).min
    some = jax.nn.logsumexp(jnp.where(drawn, cosine, lowest))
    every = jax.nn.logsumexp(jnp.where(counts, cosine, lowest))
    return jnp.where(jnp.any(drawn), every - some, 0).astype(jnp.result_type(text))


def _unit(x):
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    positive = square > jnp.finfo(x.dtype).tiny
    return jnp.where(positive, x * jax.lax.rsqrt(jnp.where(positive, square, 1)), 0)
