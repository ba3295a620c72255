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
        return {**text, "mask": (text["mask"] != 0) & kept}
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


def presence(batch: dict, text: jax.Array) -> dict[str, jax.Array | None]:
    """Which rows of a batch have an image, and which a text: bool [B] each.

    Args:
      batch: with `has_image` and `has_text`, bool [B], where rows may lack one.
      text: [B, T], as the network is about to read it: zeros are no text, whether none
        was given, no word was known or training dropped all words. Of tokens the mask
        says so.

    Returns:
      `image`, None where all rows have one, and `text`.

    Example:
      >>> presence({}, jnp.array([[0, 1], [0, 0]]))["text"].tolist()
      [True, False]
    """
    marks = text["mask"] if isinstance(text, dict) else text
    has_text = jnp.any(marks != 0, axis=-1)
    if "has_text" in batch:
        has_text &= jnp.asarray(batch["has_text"], bool)
    return {"image": batch.get("has_image"), "text": has_text}


def drop_modalities(
    key: jax.Array, batch: dict, text: jax.Array, *, image_rate: float, text_rate: float
) -> dict:
    """Takes the image from some rows and the text from others; no row loses both.

    Args:
      key: of the draw.
      batch, text: as for `presence`; a row that lacks one already keeps the other.
      image_rate, text_rate: the probabilities, together 1 at most.

    Returns:
      The batch with new `has_image` and `has_text`, bool [B].
    """
    has = presence(batch, text)
    draw = jax.random.uniform(key, has["text"].shape)
    image = jnp.ones_like(has["text"]) if has["image"] is None else has["image"]
    both = jnp.asarray(image, bool) & has["text"]
    no_image = both & (draw < image_rate)
    no_text = both & (draw >= image_rate) & (draw < image_rate + text_rate)
    return {
        **batch,
        "has_image": image & ~no_image,
        "has_text": has["text"] & ~no_text,
    }
