"""An encoder as one file of StableHLO that runs wherever JAX runs, by itself.

    import jax
    import numpy as np

    encoder = jax.export.deserialize(open("encoder.stablehlo", "rb").read())
    packed, relaxed = encoder.call(images, text)

images uint8 [B, S, S, 3], text float32 [B, T], packed uint32 [B, Wd] as
`hashing.codes.pack` lays the bits out, relaxed float32 [B, K]. B may be any number. The
weights are inside. Reading and writing need the package flatbuffers beside JAX.

An encoder that has learned what stands in for a missing modality is called with two
masks more, `encoder.call(images, text, has_image, has_text)`, bool [B] each.
"""

import os
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.export
import jax.numpy as jnp

from modal_aware_jax.hashing.codes import binarize, num_words, pack

PLATFORMS = ("cpu", "cuda", "tpu")


def export_encoder(
    relaxed: Callable,
    *,
    image_size: int,
    text_features: int,
    num_masks: int = 0,
    platforms: Sequence[str] = PLATFORMS,
) -> bytes:
    """Serialises an encoder for several platforms at once and any batch size.

    Args:
      relaxed: maps images uint8 [B, S, S, 3] and text float32 [B, T] to relaxed bits
        [B, K]; what it closes over is written into the file.
      image_size: S.
      text_features: T.
      num_masks: 2 where `relaxed` also reads `has_image` and `has_text`, bool [B] each.
      platforms: of 'cpu', 'cuda', 'rocm', 'tpu'; none of them has to be here.

    Returns:
      The bytes of the file.

    Example:
      >>> blob = export_encoder(lambda images, text: text - 0.5, image_size=4,
      ...                       text_features=2)
      >>> packed, _ = jax.export.deserialize(blob).call(
      ...     jnp.zeros((1, 4, 4, 3), jnp.uint8), jnp.array([[1.0, 0.0]]))
      >>> packed.tolist()
      [[1]]
    """

    def encode(images, text, *masks):
        bits = relaxed(images, text, *masks).astype(jnp.float32)
        return pack(binarize(bits)), bits

    (batch,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(jax.jit(encode), platforms=tuple(platforms))(
        jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.uint8),
        jax.ShapeDtypeStruct((batch, text_features), jnp.float32),
        *[jax.ShapeDtypeStruct((batch,), jnp.bool)] * num_masks,
    )
    return bytes(exported.serialize())


def load_encoder(path: str | os.PathLike) -> jax.export.Exported:
    """Reads an exported encoder: `.call(images, text)` -> packed, relaxed.

    `num_masks(encoder)` says whether it reads masks after the text.

    Raises:
      ValueError: the file is no exported encoder, or not for this machine's platform.
    """
    path = pathlib.Path(path)
    try:
        exported = jax.export.deserialize(bytearray(path.read_bytes()))
    except ImportError:
        raise  # it names the package that is missing
    except Exception as error:  # flatbuffers raises whatever the bytes lead it to
        raise ValueError(
            f"load_encoder: {path} cannot be read as an exported encoder "
            f"({type(error).__name__}). Expected a file that --mode=export wrote; copy "
            "it again if it was cut short."
        ) from error
    if not _is_encoder(exported):
        raise ValueError(
            f"load_encoder: {path} holds another function than an encoder: expected "
            "images uint8 [b, S, S, 3] and text float32 [b, T] -> packed codes and "
            f"relaxed bits, got {exported.in_avals} -> {exported.out_avals}."
        )
    here = jax.default_backend()
    here = {"gpu": "cuda"}.get(here, here)
    if here not in exported.platforms:
        raise ValueError(
            f"load_encoder: {path} was exported for {', '.join(exported.platforms)}, "
            f"this process runs on {here}. Export it again for this platform."
        )
    return exported


def num_masks(exported: jax.export.Exported) -> int:
    """How many masks an exported encoder reads after the text: 0, or 2."""
    return len(exported.in_avals) - 2


def _is_encoder(exported) -> bool:
    read = [len(aval.shape) for aval in exported.in_avals]
    made = [len(aval.shape) for aval in exported.out_avals]
    if read not in ([4, 2], [4, 2, 1, 1]) or made != [2, 2]:
        return False
    packed, relaxed = exported.out_avals
    return packed.dtype == jnp.uint32 and packed.shape[1] == num_words(relaxed.shape[1])
