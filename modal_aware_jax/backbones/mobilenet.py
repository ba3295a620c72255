"""MobileNetV2 in two halves, fine-tuned from ImageNet weights on small machines."""

import functools

import jax
from flax import nnx

from modal_aware_jax.cpu.batch_norm import BatchNorm
from modal_aware_jax.cpu.depthwise import depthwise_conv
from modal_aware_jax.cpu.in_turn import in_turn
from modal_aware_jax.cpu.pointwise import pointwise_conv

# (expansion, channels, blocks, first stride), Table 2 of arXiv:1801.04381.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class ConvNorm(nnx.Module):
    """Convolution, batch norm and, unless linear, ReLU6."""

    def __init__(
        self,
        in_features,
        features,
        kernel,
        *,
        stride=1,
        groups=1,
        linear=False,
        padding="SAME",
        freeze_norm=False,
        dtype=None,
        rngs,
    ):
        self.linear = linear
        self.freeze_norm = freeze_norm
        self.conv = nnx.Conv(
            in_features,
            features,
            (kernel, kernel),
            strides=stride,
            padding="VALID" if kernel == 1 else padding,
            feature_group_count=groups,
            use_bias=False,
            conv_general_dilated=pointwise_conv if kernel == 1 else depthwise_conv,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = BatchNorm(
            features, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs
        )

    def __call__(self, x, *, train):
        average = self.freeze_norm or not train
        x = self.norm(self.conv(x), use_running_average=average)
        return x if self.linear else jax.nn.relu6(x)


class InvertedResidual(nnx.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; a skip where the shapes agree."""

    def __init__(self, in_features, features, expansion, stride, **options):
        hidden = in_features * expansion
        self.skip = stride == 1 and in_features == features
        layers = []
        if expansion != 1:
            layers.append(ConvNorm(in_features, hidden, 1, **options))
        layers.append(
            ConvNorm(hidden, hidden, 3, stride=stride, groups=hidden, **options)
        )
        layers.append(ConvNorm(hidden, features, 1, linear=True, **options))
        self.layers = nnx.List(layers)

    def __call__(self, x, *, train):
        y = x
        for layer in self.layers:
            y = layer(y, train=train)
        return x + y if self.skip else y


class MobileNetV2(nnx.Module):
    """MobileNetV2 1.0 without its pooling and classifier (arXiv:1801.04381).

    `lower` ends at the 14x14x96 maps (at 224 pixels), `upper` at the 7x7x1280 maps.
    Images are RGB scaled to [-1, 1].

    Args:
      num_lower_blocks: how many blocks, the stem among them, `lower` has: 14 ends at
        96 channels before the last halving of the side, 18 at 320 after it, so that
        `upper` is the last 1x1 convolution alone, a fifth of the multiplications.
      padding: 'SAME' pads as TensorFlow does (stride 2 on an even side: none before,
        one after); 1 pads as torchvision does.
      freeze_norm: batch norms use their stored averages in training too. Needed for
        weights whose norms were folded into the convolutions.
      rngs: source of the initial weights.
    """

    upper_features = 1280

    def __init__(
        self,
        *,
        num_lower_blocks: int = 14,
        padding="SAME",
        freeze_norm=False,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        options = {
            "padding": padding,
            "freeze_norm": freeze_norm,
            "dtype": dtype,
            "rngs": rngs,
        }
        blocks, channels, widths = [ConvNorm(3, 32, 3, stride=2, **options)], 32, [32]
        for expansion, features, count, first_stride in STAGES:
            for i in range(count):
                stride = first_stride if i == 0 else 1
                blocks.append(
                    InvertedResidual(channels, features, expansion, stride, **options)
                )
                channels = features
                widths.append(features)
        if not 1 <= num_lower_blocks <= len(widths):
            raise ValueError(
                f"MobileNetV2: num_lower_blocks is 1 to {len(widths)}, got "
                f"{num_lower_blocks}."
            )
        self.num_lower_blocks = num_lower_blocks
        self.freeze_norm = freeze_norm
        self.lower_features = widths[num_lower_blocks - 1]
        blocks.append(ConvNorm(channels, 1280, 1, **options))
        self.blocks = nnx.List(blocks)

    def lower(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps images [B, H, W, 3] in [-1, 1] to the first tap's maps [B, h, w, C].

        By default [B, H/16, W/16, 96].
        """
        blocks = self.blocks[: self.num_lower_blocks]
        if train:
            return _through(blocks, images, train=True)
        return in_turn(functools.partial(_through, blocks, train=False), images)

    def upper(self, maps: jax.Array, *, train: bool) -> jax.Array:
        """Maps the maps of `lower` [B, h, w, C] to [B, H/32, W/32, 1280]."""
        return _through(self.blocks[self.num_lower_blocks :], maps, train=train)

    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Both maps of images [B, H, W, 3], by name: 'conv4' and 'conv5'."""
        conv4 = self.lower(images, train=train)
        return {"conv4": conv4, "conv5": self.upper(conv4, train=train)}


def _through(blocks, maps, *, train):
    for block in blocks:
        maps = block(maps, train=train)
    return maps
