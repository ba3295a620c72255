"""What happens to a batch on its way into the network."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def normalizer(mean, deviation) -> Callable:
    """uint8 images [B, H, W, 3] -> float32 as the backbone's weights expect them."""
    mean, deviation = np.float32(mean) * 255, np.float32(deviation) * 255

    def normalize(images):
        images = jnp.asarray(images, jnp.float32)
        return (images - mean.reshape(1, 1, 1, 3)) / deviation.reshape(1, 1, 1, 3)

    return normalize


def drop_words(key: jax.Array, text, rate: float):
    """Drops each word of bags [B, T] with a probability: tags are often missing.

    Of tokens, a dict with a `mask`, each word piece is masked with it.
    """
    if isinstance(text, dict):
        kept = jax.random.bernoulli(key, 1.0 - rate, text["mask"].shape)
        return {**text, "mask": text["mask"] & kept}
    return text * jax.random.bernoulli(key, 1.0 - rate, text.shape)


def crop_maps(key: jax.Array, maps: jax.Array, size: int) -> jax.Array:
    """A random window of cached maps, the same for the batch: [B, s, s, C].

    For a frozen lower half this is what a random crop of the photograph is, at a part
    of the work.
    """
    height, width = maps.shape[1:3]
    if not 0 < size <= min(height, width):
        raise ValueError(
            f"config.training.map_crop is {size}, but the cached maps are "
            f"{height}x{width}. Take a smaller crop, or 0 for none."
        )
    rows, columns = jax.random.split(key)
    top = jax.random.randint(rows, (), 0, height - size + 1)
    left = jax.random.randint(columns, (), 0, width - size + 1)
    corner, window = (0, top, left, 0), (len(maps), size, size, maps.shape[-1])
    return jax.lax.dynamic_slice(maps, corner, window)
