"""Two towers: an embedding of an image and one of a text that never meet before."""

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.dropout import drop
from modal_aware_jax.backbones.text_vector import PlainText
from modal_aware_jax.blocks.pooling import masked_mean
from modal_aware_jax.models.temperature import Temperature


class Tower(nnx.Module):
    """Features of one modality to an embedding: dropout, dense, ReLU, dropout, dense.

    Means of ReLU's outputs have a common part that is larger than what tells images
    apart; `inputs=StandardText` takes it out before the first layer.

    Args:
      in_features: D of the vectors [B, D] or tokens [B, S, D] that come in.
      features: F of the embedding.
      hidden_features: width of the layer between.
      dropout_rates: of the inputs and of the hidden layer.
      pool: a function of tokens [B, S, D] and their mask [B, S] to [B, D], such as
        `masked_mean` or `first_token`; vectors are not pooled.
      inputs: constructor `(features, *, rngs)` of what the pooled vectors go through
        first: `PlainText`, nothing, or `StandardText`, which standardises each feature.
      head: constructor `(in_features, features, *, dtype, rngs)` of the last layer;
        with `HashHead` the embedding is F relaxed bits.
      dtype: of the computation.
      rngs: source of the initial weights.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        hidden_features: int = 1024,
        dropout_rates: tuple[float, float] = (0.0, 0.0),
        pool=masked_mean,
        inputs=PlainText,
        head=nnx.Linear,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        if hidden_features < 1:
            raise ValueError(
                f"Tower expects hidden_features >= 1 (config.model.hidden_features), "
                f"got {hidden_features}."
            )
        self.in_features = in_features
        self.dropout_rates = dropout_rates
        self.pool = pool
        self.inputs = inputs(in_features, rngs=rngs)
        self.hidden = nnx.Linear(in_features, hidden_features, dtype=dtype, rngs=rngs)
        self.head = head(hidden_features, features, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        inputs: jax.Array,
        mask: jax.Array | None = None,
        *,
        train: bool = False,
        rngs=None,
    ) -> jax.Array:
        """Maps vectors [B, D] or tokens [B, S, D] to embeddings [B, F].

        Args:
          mask: [B, S], 0 for padding of tokens; None with vectors.
          train: whether dropout drops.
          rngs: with a `dropout` stream; needed in training with dropout.
        """
        fits = inputs.ndim in (2, 3) and inputs.shape[-1] == self.in_features
        if not fits or (mask is not None and jnp.shape(mask) != inputs.shape[:-1]):
            raise ValueError(
                f"Tower expects vectors [B, {self.in_features}] without a mask, or "
                f"tokens [B, S, {self.in_features}] with a mask [B, S] or None, got "
                f"{inputs.shape} and {None if mask is None else jnp.shape(mask)}."
            )
        if inputs.ndim == 2 and mask is not None:
            raise ValueError("Tower expects a mask with tokens [B, S, D] only.")
        before, after = self.dropout_rates if train else (0.0, 0.0)
        vector = self.pool(inputs, mask) if inputs.ndim == 3 else inputs
        vector = self.inputs(vector, train=train)
        vector = drop(rngs, vector, before, caller="Tower")
        hidden = nnx.relu(self.hidden(vector))
        return self.head(drop(rngs, hidden, after, caller="Tower"))


class TwoTower(nnx.Module):
    """An image's and a text's embedding, each from its own features alone.

    The baseline of matching: with `losses.info_nce` it has CLIP's objective on given
    features, with `sigmoid_pairs` SigLIP's, with `max_hinge` VSE++'s; with
    `head=HashHead` and `losses.dcmh` it gives cross-modal codes.

    Args:
      image_features, text_features: of the vectors or tokens that come in.
      features: F of both embeddings.
      hidden_features: width of the layer between.
      image_dropout_rate, text_dropout_rate: of the inputs.
      hidden_dropout_rate: of the hidden layers.
      image_pool, text_pool: functions of tokens and mask, as in `Tower`.
      image_inputs, text_inputs: constructors of what comes first, as in `Tower`.
      head: constructor of the last layers, as in `Tower`.
      scale, bias: of `Temperature` at the start.
      dtype: of the computation.
      rngs: source of the initial weights.

    Attributes:
      temperature: a `Temperature` for the loss: `temperature.scale()`, `.bias`.

    Example:
      >>> towers = TwoTower(8, 8, 8, hidden_features=8, rngs=nnx.Rngs(0))
      >>> towers.embed_image(jnp.ones((2, 8))).shape
      (2, 8)
    """

    def __init__(
        self,
        image_features: int,
        text_features: int,
        features: int,
        *,
        hidden_features: int = 1024,
        image_dropout_rate: float = 0.0,
        text_dropout_rate: float = 0.0,
        hidden_dropout_rate: float = 0.0,
        image_pool=masked_mean,
        text_pool=masked_mean,
        image_inputs=PlainText,
        text_inputs=PlainText,
        head=nnx.Linear,
        scale: float = 1 / 0.07,
        bias: float = 0.0,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        def tower(in_features, dropout_rate, pool, inputs):
            return Tower(
                in_features,
                features,
                hidden_features=hidden_features,
                dropout_rates=(dropout_rate, hidden_dropout_rate),
                pool=pool,
                inputs=inputs,
                head=head,
                dtype=dtype,
                rngs=rngs,
            )

        self.image = tower(image_features, image_dropout_rate, image_pool, image_inputs)
        self.text = tower(text_features, text_dropout_rate, text_pool, text_inputs)
        self.temperature = Temperature(scale, bias)

    @property
    def text_features(self) -> int:
        """Dt."""
        return self.text.in_features

    def embed_image(self, image, *, image_mask=None, train: bool = False, rngs=None):
        """Maps images, vectors [B, Di] or tokens [B, M, Di], to [B, F]."""
        return self.image(image, image_mask, train=train, rngs=rngs)

    def embed_text(self, text, *, text_mask=None, train: bool = False, rngs=None):
        """Maps texts, vectors [B, Dt] or tokens [B, S, Dt], to [B, F]."""
        return self.text(text, text_mask, train=train, rngs=rngs)

    def __call__(
        self,
        image: jax.Array,
        text: jax.Array,
        *,
        image_mask: jax.Array | None = None,
        text_mask: jax.Array | None = None,
        train: bool = False,
        rngs=None,
    ) -> tuple[jax.Array, jax.Array]:
        """Both embeddings, [B, F] each, of any length."""
        return (
            self.embed_image(image, image_mask=image_mask, train=train, rngs=rngs),
            self.embed_text(text, text_mask=text_mask, train=train, rngs=rngs),
        )
