"""Cross-entropy: of one class an item by softmax, of several labels by sigmoid."""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import check_real, working_dtype


def softmax_cross_entropy(
    logits: jax.Array,
    classes: jax.Array,
    *,
    class_weights: jax.Array | None = None,
    label_smoothing: float = 0.0,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Σ_i w_i (−Σ_c q_ic log softmax(logits_i)_c) / Σ_i w_i over the items that count.

    q is 1 − ε on the item's class plus ε / C on every class; w_i is the weight of the
    item's class. (PyTorch weighs the smoothed part by the weight of each class c
    instead; without weights or without smoothing the two are the same.)

    An item of a negative class has none and does not count; of a class beyond C the
    loss is NaN, for under `jit` nothing can be raised.

    Args:
        logits: [B, C].
        classes: [B] whole numbers.
        class_weights: [C], none negative; one each by default.
        label_smoothing: ε, 0 to 1.
        mask: [B], 0 for items that do not count.

    Returns:
        A scalar of the logits' dtype; 0 where no item counts.

    Example:
        >>> import jax.numpy as jnp
        >>> logits = jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
        >>> round(float(softmax_cross_entropy(logits, jnp.array([1, -1]))), 4)
        0.2877
    """
    caller = "softmax_cross_entropy"
    _check(caller, logits, class_weights, label_smoothing, mask)
    shape = jnp.shape(logits)
    classes = jnp.asarray(classes)
    if classes.shape != shape[:1] or not jnp.issubdtype(classes.dtype, jnp.integer):
        raise ValueError(
            f"{caller}: expected classes [B] = {shape[:1]} as whole numbers, got "
            f"{classes.dtype} {classes.shape}. For labels [B, L] of 0 and 1 use "
            f"sigmoid_cross_entropy."
        )
    counts = classes >= 0
    if mask is not None:
        counts &= jnp.asarray(mask) != 0
    dtype = working_dtype(logits)
    # A masked row may hold anything, NaN too: its gradient must be zero all the same.
    wide = jnp.where(counts[:, None], jnp.asarray(logits, dtype), 0)
    log_p = jax.nn.log_softmax(wide, axis=-1)
    chosen = jnp.where(counts, classes, 0)[:, None]
    own = jnp.take_along_axis(log_p, chosen, axis=-1, mode="fill")[:, 0]
    each = -(1 - label_smoothing) * own - label_smoothing * log_p.mean(axis=-1)

    weights = counts.astype(dtype)
    if class_weights is not None:
        weights *= jnp.take(
            jnp.asarray(class_weights, dtype), chosen[:, 0], mode="fill"
        )
    return _weighted_mean(each, weights).astype(jnp.result_type(logits))


def sigmoid_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_weights: jax.Array | None = None,
    label_smoothing: float = 0.0,
    mask: jax.Array | None = None,
) -> jax.Array:
    """The mean of −q log σ(z) − (1 − q) log(1 − σ(z)) over labels of items that count.

    q is (1 − ε) y + ε / 2. Labels are weighed like items: Σ w_l (...) / Σ w_l.

    Args:
        logits: [B, L].
        labels: [B, L] of 0 and 1 (or shares between).
        class_weights: [L], none negative; one each by default.
        label_smoothing: ε, 0 to 1.
        mask: [B], 0 for items that do not count, or [B, L], 0 for unknown labels.

    Returns:
        A scalar of the logits' dtype; 0 where nothing counts.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(sigmoid_cross_entropy(jnp.zeros((1, 2)), jnp.eye(2)[:1])), 4)
        0.6931
    """
    caller = "sigmoid_cross_entropy"
    _check(caller, logits, class_weights, label_smoothing, mask, label_mask=True)
    shape = jnp.shape(logits)
    if jnp.shape(labels) != shape:
        raise ValueError(
            f"{caller}: expected labels [B, L] = {shape}, got {jnp.shape(labels)}. For "
            f"class numbers [B] use softmax_cross_entropy."
        )
    counts = jnp.ones(shape, bool)
    if mask is not None:
        mask = jnp.asarray(mask) != 0
        counts &= mask if mask.ndim == 2 else mask[:, None]
    dtype = working_dtype(logits)
    wide = jnp.where(counts, jnp.asarray(logits, dtype), 0)
    target = jnp.where(counts, jnp.asarray(labels, dtype), 0)
    target = (1 - label_smoothing) * target + label_smoothing / 2
    each = target * jax.nn.softplus(-wide) + (1 - target) * jax.nn.softplus(wide)

    weights = counts.astype(dtype)
    if class_weights is not None:
        weights *= jnp.asarray(class_weights, dtype)[None, :]
    return _weighted_mean(each, weights).astype(jnp.result_type(logits))


def balanced_weights(counts: jax.Array) -> jax.Array:
    """Weights that give every class the same say: N / (C n_c), [C].

    A class without items has weight 0; N is of those that have some, and C their
    number.

    Args:
        counts: [C], items of each class among the training items.

    Example:
        >>> import jax.numpy as jnp
        >>> balanced_weights(jnp.array([4, 2, 0])).tolist()
        [0.75, 1.5, 0.0]
    """
    counts = jnp.asarray(counts, jnp.float32)
    some = counts > 0
    share = counts.sum() / jnp.maximum(jnp.sum(some), 1)
    return jnp.where(some, share / jnp.where(some, counts, 1), 0)


def _weighted_mean(each, weights):
    total = jnp.sum(weights)
    # where and not only the product: 0 times an infinite loss would be NaN.
    summed = jnp.sum(jnp.where(weights == 0, 0, weights * each))
    return summed / jnp.where(total > 0, total, 1)


def _check(caller, logits, class_weights, label_smoothing, mask, label_mask=False):
    shape = jnp.shape(logits)
    if len(shape) != 2:
        raise ValueError(f"{caller}: expected logits [B, C], got shape {shape}.")
    check_real(caller, "logits", logits)
    if class_weights is not None and jnp.shape(class_weights) != shape[1:]:
        raise ValueError(
            f"{caller}: expected class_weights [C] = {shape[1:]}, got "
            f"{jnp.shape(class_weights)}."
        )
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"{caller}: expected a label_smoothing of 0 to 1, got {label_smoothing}."
        )
    allowed = (shape[:1], shape) if label_mask else (shape[:1],)
    if mask is not None and jnp.shape(mask) not in allowed:
        raise ValueError(
            f"{caller}: expected a mask [B] = {shape[:1]}, got {jnp.shape(mask)}."
        )
