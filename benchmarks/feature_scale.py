"""How large the features are after every stage, at initialisation, by form of block.

    python benchmarks/feature_scale.py --weights=mobilenet_v2_imagenet_tf.safetensors

The root mean square of text and maps after each stage of `MultimodalHashing` with
MobileNetV2, on random images and bags of words. From the initialisation of plain layers
the paper's inner products and softmax gates leave almost nothing after two blocks
(commit f40f3ac: text 4e-14); all forms start at the identity now and keep the scale.
Writes `results/feature_scale.md`.
"""

import argparse
import functools
import pathlib

import jax
import jax.numpy as jnp
from flax import nnx

from modal_aware_jax.backbones.image_vector import DenseVector
from modal_aware_jax.backbones.mobilenet import MobileNetV2
from modal_aware_jax.backbones.pretrained import load_mobilenet_v2
from modal_aware_jax.backbones.text_vector import StandardText
from modal_aware_jax.build import BLOCKS
from modal_aware_jax.compare import provenance
from modal_aware_jax.models import MultimodalHashing

METHODS = (
    "modal_aware_low_rank",
    "modal_aware_squeezed",
    "modal_aware",
    "no_kernel",
    "no_attention",
    "concat",
)


def stages(model, images, text):
    """Yields the name of each stage and its maps or vectors."""
    maps = model.backbone.lower(images, train=False)
    text = model.text.wide(text)
    yield "conv4", maps
    yield "text, wide", text
    maps, text = model.block1(maps, text)
    yield "conv4 after block 1", maps
    yield "text after block 1", text
    maps, text = model.backbone.upper(maps, train=False), model.text.narrow(text)
    yield "conv5", maps
    yield "text, narrow", text
    maps, text = model.block2(maps, text)
    yield "conv5 after block 2", maps
    yield "text after block 2", text
    vector = model.image_vector(maps, train=True, rngs=nnx.Rngs(dropout=0))
    yield "image, as fused", vector
    yield "text, as fused", model.text_vector(text, train=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", default="", help="MobileNetV2's; random without")
    parser.add_argument("--wide", type=int, default=8192)
    args = parser.parse_args()
    images = jax.random.uniform(jax.random.key(0), (8, 128, 128, 3), minval=-1.0)
    text = jax.random.bernoulli(jax.random.key(1), 4.5 / 1386, (8, 1386)) * 1.0
    columns, names = {}, None
    for method in METHODS:
        rngs = nnx.Rngs(0)
        backbone = MobileNetV2(freeze_norm=True, rngs=rngs)
        if args.weights:
            load_mobilenet_v2(backbone, args.weights)
        model = MultimodalHashing(
            backbone,
            1386,
            64,
            text_widths=(args.wide, 512),
            block=BLOCKS[method],
            image_vector=functools.partial(DenseVector, features=1024),
            text_vector=StandardText,
            rngs=rngs,
        )
        found = dict(stages(model, images, text))
        columns[method] = [float(jnp.sqrt(jnp.mean(x**2))) for x in found.values()]
        names = list(found)
    lines = [
        "| root mean square | " + " | ".join(METHODS) + " |",
        "|---" * (len(METHODS) + 1) + "|",
    ]
    for row, name in enumerate(names):
        values = " | ".join(f"{columns[method][row]:.1e}" for method in METHODS)
        lines.append(f"| {name} | {values} |")
    table = "\n".join(lines)
    print(table)
    made = provenance()
    where = pathlib.Path(__file__).parent / "results"
    where.mkdir(exist_ok=True)
    weights = "ImageNet weights" if args.weights else "random weights"
    (where / "feature_scale.md").write_text(
        "# Features after every stage\n\nMade by `benchmarks/feature_scale.py` at "
        f"commit {made['commit']}, jax {made['jax']}, {weights}, "
        f"{args.wide:,} wide text features, seed 0.\n\n{table}\n"
    )


if __name__ == "__main__":
    main()
