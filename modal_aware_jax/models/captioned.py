"""Images and all of their sentences through two towers behind one image backbone."""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.blocks.pooling import unit_mean
from modal_aware_jax.models.two_tower import TwoTower


def by_sentence(text: dict) -> dict:
    """Tokens of S sentences an image, [B, S, n, T] and their mask [B, S, n].

    A text without lines, [B, n, T] and [B, n], is one sentence.

    >>> text = {"tokens": jnp.ones((2, 3, 4)), "mask": jnp.ones((2, 3), bool)}
    >>> by_sentence(text)["tokens"].shape
    (2, 1, 3, 4)
    """
    if text["tokens"].ndim != 3:
        return text
    return {name: value[:, None] for name, value in text.items()}


def sentence_rows(text, features: int) -> jax.Array:
    """Vectors of S sentences an image, [B, S, T], zeros for one that is not there.

    Args:
      text: the vectors side by side, [B, S·T]; or tokens as `by_sentence` takes them,
        whose vectors are their means of length one.
      features: T.

    Raises:
      ValueError: the width is no multiple of T.
    """
    if isinstance(text, dict):
        text = by_sentence(text)
        tokens, mask = text["tokens"], text["mask"]
        flat = jnp.asarray(tokens, jnp.float32).reshape(-1, *tokens.shape[2:])
        means = unit_mean(flat, jnp.asarray(mask).reshape(len(flat), -1))
        return means.reshape(*tokens.shape[:2], -1)
    if text.ndim != 2 or text.shape[1] % features:
        raise ValueError(
            f"CaptionedTowers expects text [B, S x {features}], the vectors of S "
            f"sentences an image side by side, got {text.shape}."
        )
    return text.reshape(len(text), -1, features)


class CaptionedTowers(nnx.Module):
    """A backbone's means to a `TwoTower`, with any number of sentences an image.

    Args:
      backbone: a module with `lower(images, *, train)` and `upper(maps, *, train)`.
      towers: on its `upper_features` and on the vectors of sentences.

    Example:
      >>> class Same(nnx.Module):
      ...     def lower(self, images, *, train):
      ...         return images
      ...     upper = lower
      >>> towers = TwoTower(3, 4, 2, hidden_features=8, rngs=nnx.Rngs(0))
      >>> network = CaptionedTowers(Same(), towers)
      >>> image, text = network.joint(
      ...     jnp.ones((1, 5, 5, 3)), jnp.ones((1, 8)), train=False)
      >>> image.shape, text.shape
      ((1, 2), (1, 2, 2))
    """

    reads_means = True  # all it reads of the last maps

    def __init__(self, backbone: nnx.Module, towers: TwoTower):
        self.backbone = backbone
        self.towers = towers

    def joint_from_means(
        self, means: jax.Array, text: jax.Array, *, train: bool, rngs=None
    ) -> tuple[jax.Array, jax.Array]:
        """Means of the last maps [B, 1, 1, C] and sentences [B, S·T] to embeddings.

        Args:
          text: vectors [T] of S sentences an image, or tokens, as `sentence_rows`
            takes them.
          train: whether dropout drops.
          rngs: with a `dropout` stream.

        Returns:
          Images [B, F] and sentences [B, S, F], of any length; no embedding of one side
          has seen the other side.
        """
        rows = sentence_rows(text, self.towers.text_features)
        image = self.towers.embed_image(means[:, 0, 0], train=train, rngs=rngs)
        flat = rows.reshape(-1, rows.shape[2])
        flat = self.towers.embed_text(flat, train=train, rngs=rngs)
        return image, flat.reshape(*rows.shape[:2], -1)  # [B, S, F]

    def joint_from_maps(self, maps, text, *, train: bool, rngs=None):
        """The same from maps [B, h, w, C] of the backbone's lower half."""
        maps = self.backbone.upper(maps, train=train)
        means = maps.mean(axis=(1, 2), keepdims=True)
        return self.joint_from_means(means, text, train=train, rngs=rngs)

    def joint(self, images, text, *, train: bool, rngs=None):
        """The same from images [B, H, W, 3]."""
        maps = self.backbone.lower(images, train=train)
        return self.joint_from_maps(maps, text, train=train, rngs=rngs)
