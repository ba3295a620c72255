"""Average precision across modalities as a loss: images rank texts and the reverse."""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.cross_pairs import check_embeddings
from modal_aware_jax.losses.distance import check_batch, shared_labels, working_dtype
from modal_aware_jax.losses.expected_ap import expected_ap_of_distances


def cross_modal_average_precision_loss(
    image: jax.Array, text: jax.Array, labels: jax.Array
) -> jax.Array:
    """1 − AP of images asking the batch's texts and of texts asking its images.

    `expected_ap.expected_average_precision_loss` with one code from the image and one
    from the text: each of the B images ranks all B texts, its own among them, by
    d = (K − ⟨h, h'⟩) / 2 on soft counts, and each text the images; the two means of the
    anchors that have a positive are averaged. At h in {−1, 1} either direction is
    `retrieval.average_precision` with ties='expected'.

    Args:
        image, text: [B, K] relaxed codes, after tanh; row i of both is a pair.
        labels: [B, L] 0/1; relevant is what shares a label. For groups, one-hot rows:
            an image and its sentences share one.

    Returns:
        A scalar of image's dtype, between 0 and 1; 0 with zero gradient where no anchor
        has a positive.

    Raises:
        ValueError: shapes do not fit, or the codes are not real.

    Example:
        >>> import jax.numpy as jnp
        >>> codes = jnp.array([[1.0, 1.0], [-1.0, -1.0]])
        >>> loss = cross_modal_average_precision_loss
        >>> round(float(loss(codes, codes, jnp.eye(2))), 4)
        0.0
        >>> round(float(loss(codes, -codes, jnp.eye(2))), 4)  # each is second of two
        0.5
    """
    name = "cross_modal_average_precision_loss"
    check_embeddings(name, image, text)
    check_batch(name, image, labels)
    relevant = shared_labels(labels, labels) > 0  # symmetric
    wide_image, wide_text = (jnp.asarray(x, working_dtype(x)) for x in (image, text))
    total = _one_way(wide_image, wide_text, relevant)
    total += _one_way(wide_text, wide_image, relevant)
    return (total / 2).astype(jnp.result_type(image))


def _one_way(query, gallery, relevant):
    """Mean over the queries that have a positive of 1 − AP."""
    num_bits = query.shape[1]
    distance = (num_bits - query @ gallery.T) / 2  # [B, B]
    everything = jnp.ones(distance.shape, bool)
    return expected_ap_of_distances(distance, relevant, everything, num_bits)
