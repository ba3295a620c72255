"""DCMH: pairs across modalities, one code for both sides of a pair, balanced bits."""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.cross_pairs import check_embeddings
from modal_aware_jax.losses.distance import check_batch, shared_labels, working_dtype


def dcmh(
    image: jax.Array,
    text: jax.Array,
    labels: jax.Array,
    *,
    quantization_weight: float = 1.0,
    balance_weight: float = 1.0,
) -> jax.Array:
    """Eq. 1 of deep cross-modal hashing over the batch, divided by B².

        Σ_ij [log(1 + e^θ_ij) − S_ij θ_ij] + γ (‖C − F‖² + ‖C − G‖²)
            + η (‖F 1‖² + ‖G 1‖²),        θ_ij = ½⟨F_i, G_j⟩, C = sgn(F + G)

    (Jiang and Li, arXiv:1602.02255). F and G are the codes of images and texts, C the
    code that both sides of a pair share in training, F 1 the sum of every bit over the
    batch. There the sums run over the whole training set, whose F, G and C are renewed
    in turn; here over the batch, so C is that of the batch and gets no gradient. γ and
    η are the paper's, so the parts have the paper's weights at n = B.

    Args:
        image, text: F and G, [B, K] relaxed codes before tanh; row i of both is a pair.
        labels: [B, L] 0/1; S_ij = 1 where image i and text j share a label.
        quantization_weight, balance_weight: γ and η.

    Returns:
        A scalar of image's dtype.

    Raises:
        ValueError: shapes do not fit, or the codes are not real.

    Example:
        >>> import jax.numpy as jnp
        >>> codes, labels = jnp.array([[1.0, -1.0]]), jnp.array([[1]])
        >>> float(dcmh(codes, codes, labels, balance_weight=0.0))  # log(1 + 1/e)
        0.31326...
    """
    check_embeddings("dcmh", image, text)
    check_batch("dcmh", image, labels)
    wide_image, wide_text = (jnp.asarray(x, working_dtype(x)) for x in (image, text))
    similar = shared_labels(labels, labels) > 0
    # A TPU's default would round the codes to bfloat16.
    inner = jnp.matmul(wide_image, wide_text.T, precision=jax.lax.Precision.HIGHEST)
    pairs = jnp.sum(jax.nn.softplus(jnp.where(similar, -inner, inner) / 2))
    shared = shared_codes(wide_image, wide_text)
    for side in (wide_image, wide_text):
        pairs += quantization_weight * jnp.sum(jnp.square(shared - side))
        pairs += balance_weight * jnp.sum(jnp.square(side.sum(axis=0)))
    return (pairs / max(len(inner), 1) ** 2).astype(jnp.result_type(image))


def shared_codes(image: jax.Array, text: jax.Array) -> jax.Array:
    """The code ±1 that both sides of a pair share, sgn(F + G): [B, K], no gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> shared_codes(jnp.array([[0.5, -2.0]]), jnp.array([[-0.1, 1.0]])).tolist()
        [[1.0, -1.0]]
    """
    both = jax.lax.stop_gradient(image + text)
    return jnp.where(both < 0, -1.0, 1.0).astype(both.dtype)
