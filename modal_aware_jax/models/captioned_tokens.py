"""Images and all of their sentences as tokens, for networks that read both."""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.models.captioned import by_sentence
from modal_aware_jax.models.pair_graph import graph_of


class CaptionedTokens(nnx.Module):
    """A backbone's last maps to a network of tokens, with several sentences an image.

    The positions of a last map are the image's tokens [B, M, C], M = h w. Images and
    sentences are embedded apart; only `score` sees both sides of a pair. It takes what
    the network makes of each side alone, so that one image in many pairs is read once.

    Args:
      backbone: a module with `lower(images, *, train)` and `upper(maps, *, train)`.
      network: with `embed_image`, `embed_text`, `encode_image`, `encode_text`,
        `score_encoded` and `temperature`, such as `CrossModalGraphNetwork`.
      inputs: a module that image tokens go through first, called with `train`, such as
        `StandardText`, which standardises each feature; None for none.
      reader: from numbers of words to tokens, such as `WordReader`, where sentences
        come as numbers; None where they come as tokens.
      momentum: whether a slow copy of the network is kept, as `slow`, for a loss that
        renews it; it is not trained.

    Example:
      >>> class Same(nnx.Module):
      ...     def lower(self, images, *, train):
      ...         return images
      ...     upper = lower
      >>> from modal_aware_jax.models.cross_modal_graph import CrossModalGraphNetwork
      >>> graph = CrossModalGraphNetwork(3, 4, 2, graph_features=8, rngs=nnx.Rngs(0))
      >>> text = {"tokens": jnp.ones((1, 5, 6, 4)), "mask": jnp.ones((1, 5, 6), bool)}
      >>> image, texts, tokens = CaptionedTokens(Same(), graph).joint(
      ...     jnp.ones((1, 2, 2, 3)), text, train=False)
      >>> image.shape, texts.shape, tokens.shape
      ((1, 2), (1, 5, 2), (1, 4, 3))
    """

    reads_means = False
    reads_last = True  # of a frozen backbone the last maps alone

    def __init__(
        self,
        backbone: nnx.Module,
        network: nnx.Module,
        *,
        inputs: nnx.Module | None = None,
        reader: nnx.Module | None = None,
        momentum: bool = False,
    ):
        self.backbone = backbone
        self.reader = nnx.data(reader)
        self.inputs = nnx.data(inputs)
        self.network = network
        self.slow = nnx.data(nnx.clone(network) if momentum else None)

    @property
    def temperature(self) -> nnx.Module:
        """Of the network's similarities."""
        return self.network.temperature

    def read(self, text, *, train: bool = False, rngs=None) -> dict:
        """Sentences as tokens: as they come, or read from numbers of words [B, S·L]."""
        if isinstance(text, dict):
            return by_sentence(text)
        if self.reader is None:
            return text
        rows = text.reshape(-1, self.reader.in_features)  # [B·S, L]
        tokens, _ = self.reader(rows, train=train, rngs=rngs)
        mask = (rows != 0).reshape(len(text), -1, rows.shape[1])
        return {"tokens": tokens.reshape(*mask.shape, -1), "mask": mask}

    def joint_from_last(
        self, maps: jax.Array, text: dict, *, train: bool, rngs=None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Last maps [B, h, w, C] and sentences to embeddings, and the image's tokens.

        Args:
          text: `tokens` [B, S, n, D] of S sentences an image and their `mask`
            [B, S, n]; a sentence that is not there has none.
          train: whether dropout drops.
          rngs: with a `dropout` stream.

        Returns:
          Images [B, F], sentences [B, S, F] and image tokens [B, M, C]. No embedding of
          one side has seen the other side.
        """
        text = self.read(text, train=train, rngs=rngs)
        if not isinstance(text, dict) or text["tokens"].ndim != 4:
            shape = text["tokens"].shape if isinstance(text, dict) else text.shape
            raise ValueError(
                "CaptionedTokens expects text as tokens [B, S, n, D] of S sentences an "
                f"image with their mask, got {shape}. Set "
                "--config.data.text=word_pieces_by_line."
            )
        tokens = maps.reshape(len(maps), -1, maps.shape[-1])  # [B, M, C]
        if self.inputs is not None:
            tokens = self.inputs(tokens, train=train)
        image = self.network.embed_image(tokens, train=train, rngs=rngs)
        words, mask = flat_sentences(text)
        rows = self.network.embed_text(words, text_mask=mask, train=train, rngs=rngs)
        return image, rows.reshape(*text["mask"].shape[:2], -1), tokens

    def joint_from_maps(self, maps, text, *, train: bool, rngs=None):
        """The same from maps [B, h, w, C] of the backbone's lower half."""
        maps = self.backbone.upper(maps, train=train)
        return self.joint_from_last(maps, text, train=train, rngs=rngs)

    def joint(self, images, text, *, train: bool, rngs=None):
        """The same from images [B, H, W, 3]."""
        maps = self.backbone.lower(images, train=train)
        return self.joint_from_maps(maps, text, train=train, rngs=rngs)

    @property
    def has_graph(self) -> bool:
        """Whether pairs are scored by a cross-modal graph."""
        return graph_of(self.network) is not None

    def edges(self, image, text, text_mask) -> list[jax.Array]:
        """That graph's edges, of each layer [B, M + n, M + n]; as `score` takes."""
        graph = graph_of(self.network).graph
        return graph.edge_weights(image, text, text_mask=text_mask)

    def encode(self, image, text, text_mask, *, train: bool = False, rngs=None):
        """Image tokens [B, M, C] and text tokens [N, n, D], each ready for `score`."""
        way = {"train": train, "rngs": rngs}
        return (
            self.network.encode_image(image, **way),
            self.network.encode_text(text, text_mask=text_mask, **way),
        )

    def score(self, image, text, text_mask, *, train: bool = False, rngs=None):
        """How well images and texts of `encode` fit, pair by pair: logits [B]."""
        return self.network.score_encoded(
            image, text, text_mask=text_mask, train=train, rngs=rngs
        )


def flat_sentences(text: dict) -> tuple[jax.Array, jax.Array]:
    """Sentences of several images one after the other: [B·S, n, D] and [B·S, n]."""
    tokens, mask = jnp.asarray(text["tokens"], jnp.float32), text["mask"]
    return tokens.reshape(-1, *tokens.shape[2:]), mask.reshape(-1, mask.shape[2])
