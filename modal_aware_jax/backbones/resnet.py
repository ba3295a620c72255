"""ResNet-18 in two halves, so that a block may change the map between them."""

import jax
from flax import nnx

from modal_aware_jax.cpu.batch_norm import BatchNorm
from modal_aware_jax.cpu.max_pool import max_pool
from modal_aware_jax.cpu.winograd import winograd_conv


class ConvNorm(nnx.Module):
    """Convolution without bias, padded as PyTorch pads it, and batch norm."""

    def __init__(self, in_features, features, kernel, stride=1, *, dtype, rngs):
        self.conv = nnx.Conv(
            in_features,
            features,
            (kernel, kernel),
            strides=stride,
            # 'SAME' would pad stride 2 after the last pixel only: another network.
            padding=kernel // 2,
            use_bias=False,
            conv_general_dilated=winograd_conv,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = BatchNorm(
            features, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs
        )

    def __call__(self, x, *, train):
        return self.norm(self.conv(x), use_running_average=not train)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a skip (arXiv:1512.03385, figure 2)."""

    def __init__(self, in_features, features, stride, *, dtype, rngs):
        options = {"dtype": dtype, "rngs": rngs}
        self.first = ConvNorm(in_features, features, 3, stride, **options)
        self.second = ConvNorm(features, features, 3, **options)
        self.projection = nnx.data(None)
        if stride != 1 or in_features != features:
            self.projection = ConvNorm(in_features, features, 1, stride, **options)

    def __call__(self, x, *, train):
        y = jax.nn.relu(self.first(x, train=train))
        y = self.second(y, train=train)
        if self.projection is not None:
            x = self.projection(x, train=train)
        return jax.nn.relu(x + y)


class ResNet18(nnx.Module):
    """ResNet-18 without its pooling and classifier (arXiv:1512.03385).

    Given torchvision's weights (`pretrained.load_resnet18`) it computes torchvision's
    maps. Two things differ in training only: the initial weights are Flax's defaults,
    and the running variance is the biased one.

    Args:
      width: channels of the first stage; the later ones have 2, 4 and 8 times as many.
      dtype: of the computation; the parameters stay float32.
      rngs: source of the initial weights.

    Attributes:
      lower_features: channels of conv4_2, the output of the third stage (256).
      upper_features: channels of conv5_2, the output of the fourth stage (512).
      num_lower_blocks: the stem and the residual blocks that `lower` has.

    >>> import jax.numpy as jnp
    >>> backbone = ResNet18(width=4, rngs=nnx.Rngs(0))
    >>> maps = backbone(jnp.zeros((2, 64, 64, 3)), train=False)
    >>> maps["conv4_2"].shape, maps["conv5_2"].shape
    ((2, 4, 4, 16), (2, 2, 2, 32))
    """

    num_lower_blocks = 7

    def __init__(self, *, width: int = 64, dtype=None, rngs: nnx.Rngs):
        options = {"dtype": dtype, "rngs": rngs}
        self.lower_features, self.upper_features = 4 * width, 8 * width
        self.stem = ConvNorm(3, width, 7, 2, **options)
        stages, in_features = [], width
        for features, stride in ((1, 1), (2, 2), (4, 2), (8, 2)):
            first = BasicBlock(in_features, features * width, stride, **options)
            in_features = features * width
            second = BasicBlock(in_features, in_features, 1, **options)
            stages.append(nnx.List([first, second]))
        self.stages = nnx.List(stages)

    def lower(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps images [B, H, W, 3] to conv4_2 [B, H/16, W/16, 256], sizes rounded up.

        Images are RGB with ImageNet's mean and deviation taken out, where the weights
        come from ImageNet.
        """
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(
                "ResNet18.lower: expected images [B, H, W, 3], channels last, but got "
                f"{list(images.shape)}."
            )
        x = jax.nn.relu(self.stem(images, train=train))  # [B, H/2, W/2, 64]
        x = max_pool(x)  # [B, H/4, W/4, 64]
        for stage in self.stages[:3]:
            x = _run(stage, x, train)
        return x

    def upper(self, maps: jax.Array, *, train: bool) -> jax.Array:
        """Maps conv4_2 [B, h, w, 256] to conv5_2 [B, h/2, w/2, 512], rounded up."""
        if maps.ndim != 4 or maps.shape[-1] != self.lower_features:
            raise ValueError(
                f"ResNet18.upper: expected maps [B, h, w, {self.lower_features}], "
                f"as lower returns them, but got {list(maps.shape)}."
            )
        return _run(self.stages[3], maps, train)

    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Both maps of images [B, H, W, 3], by the paper's names."""
        conv4_2 = self.lower(images, train=train)
        return {"conv4_2": conv4_2, "conv5_2": self.upper(conv4_2, train=train)}


def _run(stage, x, train):
    for block in stage:
        x = block(x, train=train)
    return x
