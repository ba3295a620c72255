"""A 1x1 convolution as the matrix product that it is.

XLA's CPU backend sends it through its spatial convolution all the same, and takes 1.5
to 3.5 times as long for value and gradients at MobileNetV2's shapes
(`benchmarks/cpu_rules.py`). Accelerators lose nothing by the product.
"""

import jax
from jax import lax

from modal_aware_jax.cpu.rows import dot_of_rows


def pointwise_conv(x: jax.Array, kernel: jax.Array, strides, padding, **options):
    """Drop-in for `lax.conv_general_dilated` in an `nnx.Conv` of kernel 1x1.

    Convolutions that are wider, strided, padded or grouped are passed on unchanged.

    Args:
      x: maps [B, H, W, C].
      kernel: [1, 1, C, D].
      strides: of rows and columns.
      padding: 'SAME', 'VALID' or ((top, bottom), (left, right)).
      **options: the other arguments that `nnx.Conv` passes.

    Returns:
      Maps [B, H, W, D].

    >>> from flax import nnx
    >>> conv = nnx.Conv(8, 4, (1, 1), conv_general_dilated=pointwise_conv,
    ...                 rngs=nnx.Rngs(0))
    >>> conv(jax.numpy.ones((2, 5, 5, 8))).shape
    (2, 5, 5, 4)
    """
    plain = (
        kernel.shape[:2] == (1, 1)
        and all(stride == 1 for stride in strides)
        and (isinstance(padding, str) or not any(map(any, padding)))
        and options.get("feature_group_count", 1) == 1
    )
    if not plain:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    return dot_of_rows(x, kernel[0, 0], precision=options.get("precision"))
