"""Modalities balanced by their losses: the one that lags is taught more.

The idea of BalanceMLA and of gradient modulation (OGM-GE, arXiv:2203.15332), in its
smallest form: where one modality learns quickly, joint training stops teaching the
other. Weights by the losses of unimodal predictions; it is none of those methods.
"""

import jax
import jax.numpy as jnp

from modal_aware_jax.losses.distance import check_real, working_dtype


def balance_weights(losses: jax.Array, *, strength: float = 1.0) -> jax.Array:
    """l^s over its mean: weights of mean one, the larger the larger the loss. [M].

    They are constants to the gradient, else a model could lower its loss by balance.

    Args:
        losses: [M], none negative, one of each modality's own prediction.
        strength: s; 0 weighs all alike.

    Example:
        >>> import jax.numpy as jnp
        >>> balance_weights(jnp.array([0.5, 1.5])).round(4).tolist()
        [0.5, 1.5]
    """
    if jnp.ndim(losses) != 1 or not jnp.size(losses):
        raise ValueError(
            f"balance_weights: expected losses [M] of at least one modality, got "
            f"shape {jnp.shape(losses)}."
        )
    wide = jax.lax.stop_gradient(jnp.asarray(losses, working_dtype(losses)))
    tiny = jnp.finfo(wide.dtype).tiny
    logs = strength * jnp.log(jnp.maximum(wide, tiny))
    return jax.nn.softmax(logs) * wide.shape[0]


def loss_balanced(losses: jax.Array, *, strength: float = 1.0) -> jax.Array:
    """Σ_m w_m l_m / M with `balance_weights`: the modalities' losses as one.

    Args:
        losses: [M], none negative, one of each modality's own prediction.
        strength: of the balance; 0 gives the mean.

    Returns:
        A scalar of the losses' dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(loss_balanced(jnp.array([0.5, 1.5]))), 4)
        1.25
    """
    weights = balance_weights(losses, strength=strength)
    check_real("loss_balanced", "losses", losses)
    return jnp.mean(weights * losses).astype(jnp.result_type(losses))
