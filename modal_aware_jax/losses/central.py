"""Central similarity: every label has a fixed ±1 centre, every item is drawn to one.

CSQ (arXiv:1908.00347). `hash_centers` and `tie_bits` make the fixed tables once, on
the host; `csq` is the loss of a batch.
"""

import jax
import jax.numpy as jnp
import numpy as np

from modal_aware_jax.losses.distance import check_batch, working_dtype
from modal_aware_jax.losses.quantization import quantization_l2


def csq(
    u: jax.Array,
    labels: jax.Array,
    centers: jax.Array,
    tie_bits: jax.Array,
    *,
    quantization_weight: float = 1e-4,
) -> jax.Array:
    """mean BCE(½(tanh u + 1), ½(c + 1)) + λ mean (|tanh u| − 1)², c the item's centre.

    ½(tanh u + 1) is σ(2u), so the cross entropy is softplus(−2cu): where common code
    takes the logarithm of a saturated tanh, this stays exact.

    Args:
        u: [B, K] relaxed codes, before tanh.
        labels: [B, L] 0/1.
        centers: [L, K] ±1, one centre a label, from `hash_centers`.
        tie_bits: [K] ±1 or 0/1, from `tie_bits`; see `item_centers`.
        quantization_weight: λ.

    Returns:
        A scalar of u's dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> centers = hash_centers(2, 4, seed=0)
        >>> u = 100.0 * jnp.asarray(centers)
        >>> float(csq(u, jnp.eye(2), centers, tie_bits(4, seed=0)))
        0.0
    """
    check_batch("csq", u, labels)
    if (
        jnp.shape(centers) != (jnp.shape(labels)[1], jnp.shape(u)[1])
        or jnp.shape(tie_bits) != jnp.shape(u)[1:]
    ):
        raise ValueError(
            f"csq: expected centers [L, K] = "
            f"{(jnp.shape(labels)[1], jnp.shape(u)[1])} and tie_bits [K], got "
            f"{jnp.shape(centers)} and {jnp.shape(tie_bits)}."
        )
    wide = jnp.asarray(u, working_dtype(u))
    target = item_centers(labels, centers, tie_bits).astype(wide.dtype)
    entropy = jnp.mean(jax.nn.softplus(-2 * target * wide))
    loss = entropy + quantization_weight * quantization_l2(jnp.tanh(wide))
    return loss.astype(jnp.result_type(u))


def item_centers(
    labels: jax.Array, centers: jax.Array, tie_bits: jax.Array
) -> jax.Array:
    """Each item's centre: the sign of the sum of its labels' centres, ±1 [B, K].

    Where the sum is 0 (an even number of labels that disagree, or no label) the bit is
    that of `tie_bits`, so that an item's centre never changes during training.

    Args:
        labels: [B, L] 0/1.
        centers: [L, K] ±1.
        tie_bits: [K] ±1 or 0/1.

    Returns:
        ±1 float32 [B, K].

    Example:
        >>> import numpy as np
        >>> centers, ties = np.array([[1, 1], [1, -1]]), np.array([-1, -1])
        >>> item_centers(np.array([[1, 0], [1, 1]]), centers, ties).tolist()
        [[1.0, 1.0], [1.0, -1.0]]
    """
    has = (jnp.asarray(labels) != 0).astype(jnp.float32)
    total = has @ jnp.asarray(centers, jnp.float32)
    ties = jnp.where(jnp.asarray(tie_bits) > 0, 1.0, -1.0)[None, :]
    return jnp.where(total == 0, ties, jnp.sign(total))


def hash_centers(num_labels: int, num_bits: int, seed: int) -> np.ndarray:
    """One ±1 centre a label, far apart: float32 [L, K].

    Where K is a power of two and 2K ≥ L these are the first L rows of [H; −H], H the
    Hadamard matrix: any two differ in K/2 bits, or in all K. Elsewhere (48 bits, 255
    labels at 64 bits) each row is a random half of +1 and a half of −1; of 50 draws
    the one whose nearest two centres are farthest apart is kept.

    Args:
        num_labels: L.
        num_bits: K.
        seed: of the random rows; Hadamard rows do not depend on it.

    Returns:
        float32 [L, K], on the host.

    Example:
        >>> hash_centers(3, 4, seed=0).tolist()[1]
        [1.0, -1.0, 1.0, -1.0]
        >>> int(hash_centers(24, 48, seed=0).sum())
        0
    """
    if num_labels < 1 or num_bits < 1:
        raise ValueError(
            f"hash_centers: expected num_labels >= 1 and num_bits >= 1, "
            f"got {num_labels} and {num_bits}."
        )
    if num_bits & (num_bits - 1) == 0 and 2 * num_bits >= num_labels:
        rows, columns = np.arange(num_labels)[:, None], np.arange(num_bits)[None, :]
        odd = np.bitwise_count(rows % num_bits & columns) % 2 == 1
        return np.where(odd ^ (rows >= num_bits), -1, 1).astype(np.float32)

    rng = np.random.default_rng(seed)
    balanced = np.where(np.arange(num_bits) < num_bits // 2, -1, 1).astype(np.float32)

    def nearest(centers):
        distance = (num_bits - centers @ centers.T) / 2
        return np.min(distance + num_bits * np.eye(num_labels))

    draws = (
        rng.permuted(np.tile(balanced, (num_labels, 1)), axis=1) for _ in range(50)
    )
    return max(draws, key=nearest)


def tie_bits(num_bits: int, seed: int) -> np.ndarray:
    """Fixed random bits for `item_centers` where labels disagree: ±1 float32 [K].

    Example:
        >>> tie_bits(16, seed=0).shape
        (16,)
    """
    rng = np.random.default_rng([seed, num_bits])
    return rng.choice(np.array([-1, 1], np.float32), num_bits)
