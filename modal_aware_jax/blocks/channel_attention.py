"""Channel attention: both modalities together choose the channels of each."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.image_vector import mean_over_positions
from modal_aware_jax.blocks.kernel_network import check_pair

# A thousandth of what layers start from: enough for the layer before to learn at once.
NEARLY_ZERO = nnx.initializers.variance_scaling(1e-6, "fan_in", "truncated_normal")


def mean_one_softmax(logits):
    """Softmax times the number of channels: gates that average one, not 1 / C.

    The paper's softmax divides the features by about C at every block; after a block
    of 8,192 text channels and one of 512 almost nothing is left of them.
    """
    return nnx.softmax(logits) * logits.shape[-1]


def double_sigmoid(logits):
    """2 sigmoid(x): gates between 0 and 2, and 1 where the logit is 0.

    Unlike a softmax's, one channel's gate takes nothing from the others.
    """
    return 2.0 * nnx.sigmoid(logits)


def even_gates(gate, features: int) -> float:
    """The gate of each of `features` channels where all logits are 0.

    >>> even_gates(nnx.softmax, 4), even_gates(double_sigmoid, 4)
    (0.25, 1.0)
    """
    with jax.ensure_compile_time_eval():  # a constant, inside jit too
        return float(gate(jnp.zeros((1, features)))[0, 0])


def pool_both(image, text, sizes=(1.0, 1.0)):
    """The mean over positions of [B, H, W, C] beside the text [B, T]: [B, C + T].

    Each is divided by its size, so that weights meet features of about one.
    """
    image_size, text_size = sizes
    pooled = mean_over_positions(image) / image_size, text / text_size
    return jnp.concatenate(pooled, axis=-1)


class ChannelAttention(nnx.Module):
    """Gates the channels of both modalities by an attention over their pooled pair.

    With F = [mean over positions of the image maps; text], C + T features:

        a^I = softmax(W_I F + b_I)    image[..., i] <- a^I_i image[..., i]
        a^T = softmax(W_T F + b_T)    text_i        <- a^T_i text_i

    Source: Zeng et al., "Modal-aware Features for Multimodal Hashing"
    (arXiv:1911.08479), the attention network. The defaults are its literal form.

    Its gates start even: the weights that give the logits are zero. The softmax's are
    then 1 / C and 1 / T: `ModalAwareBlock` starts its similarities at C and T, which
    makes up for it; alone, the next layer must (a batch norm does).

    Features that come C and T times as large make logits that one step of an optimiser
    drives apart: on MIR-Flickr gates then chose one channel, and all codes were alike
    (README). So W is kept times the `sizes` of image and text, which divide the
    features: the same functions of them, learned as those of features of about one.

    Attributes:
      sizes: of image and text, constants; 1 unless `ModalAwareBlock` sets them.
      gate: maps logits [B, C] to gates [B, C]: `nnx.softmax` (the paper's: the gates
        of one sample sum to 1), `mean_one_softmax`, `double_sigmoid`, ...
    """

    def __init__(
        self,
        image_features: int,
        text_features: int,
        *,
        gate=nnx.softmax,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.image_features = image_features
        self.text_features = text_features
        self.gate = gate
        self.sizes = (1.0, 1.0)
        pooled = image_features + text_features
        zeros = nnx.initializers.zeros
        logits = functools.partial(
            nnx.Linear, pooled, kernel_init=zeros, dtype=dtype, rngs=rngs
        )
        self.image_logits = logits(image_features)
        self.text_logits = logits(text_features)

    def gates(self, image: jax.Array, text: jax.Array):
        """The gates of [B, H, W, C] and [B, T]: [B, C] and [B, T]."""
        check_pair(
            "ChannelAttention", image, text, self.image_features, self.text_features
        )
        pooled = pool_both(image, text, self.sizes)  # [B, C + T]
        return self.gate(self.image_logits(pooled)), self.gate(self.text_logits(pooled))

    def __call__(self, image: jax.Array, text: jax.Array):
        """Maps image [B, H, W, C] and text [B, T] to arrays of the same shapes."""
        image_gates, text_gates = self.gates(image, text)
        return image * image_gates[:, None, None, :], text * text_gates


class SqueezedChannelAttention(nnx.Module):
    """`ChannelAttention` through a narrow hidden layer.

    W_T of the literal form has (C + T) x T weights, 69 million at T = 8,192. Here both
    logits are read from `squeeze_features` rectified linear units, as in
    squeeze-and-excitation networks (arXiv:1709.01507, eq. 3).

    Attributes:
      gate, sizes: as in `ChannelAttention`.
      logit_init: of the weights that give the logits: nearly zero by default, so that
        gates start nearly even; zeros give every sample the same gates at the start,
        with `double_sigmoid` gates of one.
    """

    def __init__(
        self,
        image_features: int,
        text_features: int,
        *,
        squeeze_features: int = 128,
        gate=nnx.softmax,
        logit_init=NEARLY_ZERO,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.image_features = image_features
        self.text_features = text_features
        self.gate = gate
        self.sizes = (1.0, 1.0)

        dense = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs)
        logits = functools.partial(dense, squeeze_features, kernel_init=logit_init)
        self.squeeze = dense(image_features + text_features, squeeze_features)
        self.image_logits = logits(image_features)
        self.text_logits = logits(text_features)

    def gates(self, image: jax.Array, text: jax.Array):
        """The gates of [B, H, W, C] and [B, T]: [B, C] and [B, T]."""
        check_pair(
            "SqueezedChannelAttention",
            image,
            text,
            self.image_features,
            self.text_features,
        )
        squeezed = nnx.relu(self.squeeze(pool_both(image, text, self.sizes)))
        return self.gate(self.image_logits(squeezed)), self.gate(
            self.text_logits(squeezed)
        )

    def __call__(self, image: jax.Array, text: jax.Array):
        """Maps image [B, H, W, C] and text [B, T] to arrays of the same shapes."""
        image_gates, text_gates = self.gates(image, text)
        return image * image_gates[:, None, None, :], text * text_gates
