"""Two towers whose codes are of label probabilities, one function for both sides."""

import jax

from modal_aware_jax.hashing.head import CodesOfLabels
from modal_aware_jax.models.captioned import CaptionedTowers
from modal_aware_jax.models.two_tower import TwoTower


class TaughtTowers(CaptionedTowers):
    """Towers to K direct bits and L label logits a side, and codes of the logits.

    The losses of the direct bits and of the labels train the towers. The codes learn to
    rank as the label probabilities do (`losses.taught_codes`): an image and a text that
    seem to have the same labels get the same code, whichever side tells it.

    Args:
      backbone: as of `CaptionedTowers`.
      towers: whose F = K + L outputs are direct bits, then logits.
      codes: from logits [B, L] to relaxed bits [B, K].

    Example:
      >>> from flax import nnx
      >>> import jax.numpy as jnp
      >>> codes = CodesOfLabels(3, 4, rngs=nnx.Rngs(0))
      >>> towers = TwoTower(5, 6, 4 + 3, hidden_features=8, rngs=nnx.Rngs(0))
      >>> network = TaughtTowers(None, towers, codes)
      >>> outputs = towers.embed_text(jnp.ones((2, 6)))
      >>> direct, logits = network.direct_and_logits(outputs)
      >>> direct.shape, logits.shape
      ((2, 4), (2, 3))
    """

    def __init__(self, backbone, towers: TwoTower, codes: CodesOfLabels):
        super().__init__(backbone, towers)
        self.codes = codes
        self.num_bits = codes.code.num_bits

    def direct_and_logits(self, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Parts [..., K] and [..., L] of one side's outputs [..., K + L]."""
        return outputs[..., : self.num_bits], outputs[..., self.num_bits :]

    def codes_of(self, outputs: jax.Array) -> jax.Array:
        """Relaxed bits [..., K] of one side's outputs [..., K + L]."""
        return self.codes.of_labels(self.direct_and_logits(outputs)[1])
