"""Is the `shapes` collection a fair test? An independent probe answers.

Trains a small CNN and a small text network, written here with nothing of the package
but the data, on the image alone, the text alone and both, and prints the MAP of 32-bit
codes by brute force, equal distances in random order, for all labels and for each group
of labels. CPU seconds are of one core. Run:

    python benchmarks/shapes_probe.py --loss=triplet --epochs=12
"""

import argparse
import io
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from PIL import Image

from modal_aware_jax.data import shapes

QUERIES, BATCH, BITS, MARGIN = 500, 100, 32, 2.0
MODES = {"joint": (1, 1), "image": (1, 0), "text": (0, 1)}  # sees, reads


class SmallCNN(nnx.Module):
    """Four convolutions with batch norm, [B, 64, 64, 3] -> [B, 128]."""

    def __init__(self, *, rngs):
        widths = (3, 24, 48, 96, 128)
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.convs = nnx.List(
            [nnx.Conv(a, b, (3, 3), strides=2, rngs=rngs) for a, b in pairs]
        )
        self.norms = nnx.List([nnx.BatchNorm(b, rngs=rngs) for b in widths[1:]])

    def __call__(self, x, *, train):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.relu(norm(conv(x), use_running_average=not train))
        return x.mean((1, 2))


class Hasher(nnx.Module):
    """Image and text features side by side, then one linear layer to the bits."""

    def __init__(self, words, sees, reads, *, rngs):
        self.sees, self.reads = sees, reads
        self.cnn = SmallCNN(rngs=rngs)
        self.text = nnx.Linear(words, 128, rngs=rngs)
        self.norm = nnx.BatchNorm(128, rngs=rngs)
        self.bits = nnx.Linear(128 * (sees + reads), BITS, rngs=rngs)

    def __call__(self, images, text, *, train):
        features = jnp.zeros((len(text), 0))
        if self.sees:
            features = self.cnn(images, train=train)
        if self.reads:
            words = self.norm(self.text(text), use_running_average=not train)
            features = jnp.concatenate([features, nnx.relu(words)], 1)
        return self.bits(features)


def triplet_loss(codes, labels):
    """Mean over the valid triplets of max(0, margin + d(i, j) - d(i, k))."""
    squared = jnp.sum((codes[:, None] - codes[None]) ** 2, -1)
    zero = squared == 0
    distance = jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, squared)))
    same = labels @ labels.T > 0
    valid = same[:, :, None] & ~same[:, None, :]
    hinge = nnx.relu(MARGIN + distance[:, :, None] - distance[:, None, :])
    return jnp.sum(hinge * valid) / jnp.maximum(valid.sum(), 1)


def pairwise_loss(u, labels):
    """Logistic loss of half the codes' products, pulled to ±1 (DPSH)."""
    product = u @ u.T / 2
    same = labels @ labels.T > 0
    away = jnp.mean((u - jnp.sign(u)) ** 2)
    return jnp.mean(nnx.softplus(product) - same * product) + 0.1 * away


LOSSES = {
    "triplet": lambda u, labels: triplet_loss(jnp.tanh(u), labels),
    "pairwise": pairwise_loss,
}


def train(images, text, labels, sees, reads, loss_fn, epochs, seed):
    model = Hasher(text.shape[1], sees, reads, rngs=nnx.Rngs(seed))
    steps = epochs * (len(images) // BATCH)
    tx = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, images, text, labels):
        def loss(model):
            return loss_fn(model(images / 127.5 - 1, text, train=True), labels)

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        for rows in np.split(rng.permutation(len(images)), len(images) // BATCH):
            batch = np.pad(images[rows], ((0, 0), (6, 6), (6, 6), (0, 0)), "edge")
            x, y, flip = rng.integers(0, 13), rng.integers(0, 13), rng.integers(2)
            batch = batch[:, y : y + 64, x : x + 64][:, :, :: 1 - 2 * flip]
            step(model, optimizer, jnp.asarray(batch), text[rows], labels[rows])
    return model


def encode(model, images, text):
    run = nnx.jit(lambda m, i, t: m(i / 127.5 - 1, t, train=False))
    parts = [
        run(model, images[s : s + BATCH], text[s : s + BATCH])
        for s in range(0, len(images), BATCH)
    ]
    return np.concatenate(parts) >= 0


def mean_average_precision(query, database, query_labels, database_labels):
    rng = np.random.default_rng(0)
    values = []
    for code, label in zip(query, query_labels, strict=True):
        distance = (code != database).sum(1)
        order = np.lexsort((rng.random(len(database)), distance))
        hits = (database_labels @ label > 0)[order]
        ranks = np.flatnonzero(hits) + 1
        values.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return np.mean(values)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loss", default="triplet", choices=LOSSES)
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()

    pairs = shapes.load()
    images = np.stack([np.asarray(Image.open(io.BytesIO(b))) for b in pairs.images])
    text, labels = pairs.text.astype(np.float32), pairs.labels.astype(np.float32)
    queries, rest = slice(0, QUERIES), slice(QUERIES, None)
    chance = np.mean(labels[queries] @ labels[rest].T > 0)
    print(f"{len(pairs)} pairs, {labels.sum(1).mean():.2f} labels each")
    print(f"random ranking: MAP {chance:.3f}")
    for mode in args.modes:
        for seed in range(args.seeds):
            start = time.process_time()
            data = images[1000:], text[1000:], labels[1000:]
            model = train(*data, *MODES[mode], LOSSES[args.loss], args.epochs, seed)
            codes = encode(model, images, text)
            score = mean_average_precision(
                codes[queries], codes[rest], labels[queries], labels[rest]
            )
            seconds = time.process_time() - start
            print(f"{mode:6} seed {seed}: MAP {score:.3f}  ({seconds:.0f} s)")
            report_groups(codes, labels, pairs.label_names, queries, rest)


def report_groups(codes, labels, names, queries, rest):
    """MAP when only one group of labels counts, over the queries that have one."""
    groups = {
        "either": shapes.EITHER,
        "image only": shapes.IMAGE_ONLY,
        "text only": shapes.TEXT_ONLY,
        "only both": shapes.ONLY_BOTH,
    }
    for group, members in groups.items():
        columns = [names.index(m) for m in members]
        ql, dl = labels[queries][:, columns], labels[rest][:, columns]
        has = ql.any(1)
        score = mean_average_precision(codes[queries][has], codes[rest], ql[has], dl)
        print(f"    {group}: {score:.3f} (chance {np.mean(ql[has] @ dl.T > 0):.3f})")


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
