"""SG-MFT and its rivals on real posts, on one footing: five folds, then the test posts.

    python benchmarks/posts.py --data=FOLDER --workdir=runs/posts_table
    python benchmarks/posts.py --workdir=runs/posts_table --report

FOLDER holds `train-….parquet` and `test-….parquet` as the Hugging Face hub stores them.
MobileNetV2 (positions averaged to 3 x 3) and the installed sentence model (word pieces)
stay as they are; every method is trained on the same tokens, with the network and the
loss of `configs/posts.py` and the same number of trials:

1. Each of `TRIALS` on fold 0 of the training posts; the one of the lowest cross-entropy
   on the posts held aside is the method's.
2. Five folds with it: every training post is predicted once by a network that has not
   seen it. Methods are ranked by these, paired post by post.
3. Five seeds on all training posts, scored on the test posts.

Runs are kept as they come; the same command goes on after an interruption. `--report`
writes `results/posts.md`, `.json` and `.npz` (who was right about which post) of them
and of the rows that these files had before.
"""

import argparse
import functools
import json
import pathlib
import runpy
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from modal_aware_jax import build
from modal_aware_jax.compare import provenance
from modal_aware_jax.experiment.classifiers import CLASSIFIERS, token_network
from modal_aware_jax.experiment.optimizers import BLOCKS
from modal_aware_jax.models.token_network import averaged
from modal_aware_jax.modes.encoder import lower_maps
from modal_aware_jax.tasks.classification import LOSSES, probabilities_of
from modal_aware_jax.training.optimizer import cosine
from modal_aware_jax.training.update import split_model, starts_with

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from posts_report import write  # noqa: E402

HERE = pathlib.Path(__file__).parent
METHODS = (
    *("concat", "sgmft", "text", "image", "sgmft_no_interaction", "sgmft_no_fusion"),
    *("gmu", "mcb", "modal_aware", "unis_mmc", "loss_balanced", "feature_level"),
    *("sgmft_sigmoid", "sgmft_mean_one", "sgmft_image_wise", "sgmft_one_vector"),
    *("asymmetric_co_attention", "co_attention", "merge_attention", "bridges"),
)
FOLDS, SEEDS, BATCH = 5, 5, 50
WIDTH, HEADS, SIDE, LONGEST = 64, 8, 3, 32  # D, of attention, of the map, S


class Trial(NamedTuple):
    """Dropout of tokens and head, learning rate, the blocks' factor, epochs, layers.

    `text` is the learning rate of a text encoder that is trained along.
    """

    dropout: float
    rate: float
    blocks: float
    epochs: int
    layers: int
    text: float = 0.0


TRIALS = (
    Trial(0.5, 1e-3, 1.0, 8, 2),
    Trial(0.5, 3e-3, 0.1, 8, 2),
    Trial(0.5, 1e-3, 0.1, 16, 2),
    Trial(0.3, 1e-3, 1.0, 8, 5),
)


class Nothing(nnx.Module):
    """Stands for the backbone, whose last maps are there already."""

    upper_features = 1280


def read_features(config, path):
    """Tokens of all posts, of texts maybe their numbers: made once, then read."""
    if not path.exists():
        experiment = build.experiment(config)
        maps, backbone = lower_maps(experiment), experiment.model.backbone
        graphdef, state = nnx.split(backbone)

        @jax.jit
        def upper(state, maps):
            last = nnx.merge(graphdef, state).upper(
                maps.astype(jnp.float32), train=False
            )
            return averaged(last, SIDE).astype(jnp.float16)

        rows = maps.reshape(-1, *maps.shape[2:])
        last = [upper(state, rows[i : i + 100]) for i in range(0, len(rows), 100)]
        pairs = experiment.collection
        text = pairs.text[np.arange(len(pairs))]
        if isinstance(text, dict):
            words = {"tokens": text["tokens"][:, :LONGEST].astype(np.float16)}
            words["mask"] = text["mask"][:, :LONGEST]
        else:
            words = {"numbers": text.astype(np.int32)}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            last=np.concatenate(last).reshape(len(pairs), 2, SIDE, SIDE, -1),
            **words,
            labels=pairs.labels,
            test=experiment.split.query,
            names=np.array(pairs.label_names),
        )
    with np.load(path) as kept:
        return dict(kept)


def folds_of(classes, positions, seed=0):
    """Positions in FOLDS parts with the classes in equal shares."""
    random, parts = np.random.default_rng(seed), [[] for _ in range(FOLDS)]
    for number in np.unique(classes[positions]):
        own = random.permutation(positions[classes[positions] == number])
        for i, part in enumerate(np.array_split(own, FOLDS)):
            parts[i].append(part)
    return [np.sort(np.concatenate(part)) for part in parts]


class Trainer:
    """Trains and evaluates one method; compiled once for all rates, folds and seeds.

    Args:
      config: of `configs/posts.py`.
      method: one of the task's.
      dropout, layers: as in a `Trial`.
      data: of `read_features`.
      reader: the text encoder to train along, where the data has numbers of words.
      batch: posts of a step.
    """

    def __init__(
        self, config, method, dropout, layers, data, *, reader=None, batch=BATCH
    ):
        options = config.model.copy_and_resolve_references()
        with options.unlocked():
            options.token_dropout = options.head_dropout = dropout
            options.head_layers = layers
        row = CLASSIFIERS[method].tokens
        loss = LOSSES["softmax"].make(None, label_smoothing=0.1, balanced=False)
        adam = optax.scale_by_adam()
        words = ("tokens", "mask") if reader is None else ("numbers",)
        self.data = {k: jnp.asarray(data[k]) for k in ("last", "labels", *words)}
        self.batch, num_classes = batch, data["labels"].shape[1]
        width = reader.features if reader else data["tokens"].shape[2]

        def make(seed, reader=None):
            rngs = nnx.Rngs(jax.random.key(seed))
            sizes = (width, num_classes)
            return token_network(options, Nothing(), *sizes, row, rngs, reader=reader)

        graphdef, pretrained, stats = split_model(make(0, reader))
        pretrained = {k: v for k, v in pretrained.items() if k == "reader"}

        @jax.jit
        def start(seed, pretrained):
            params = nnx.to_pure_dict(nnx.split(make(seed), nnx.Param, ...)[1])
            params |= jax.tree.map(jnp.copy, pretrained)
            return params, adam.init(params)

        def outputs(params, data, rows, flips, *, train, rngs=None):
            model = nnx.merge(graphdef, params, stats)
            if reader is None:
                text = {"tokens": data["tokens"][rows].astype(jnp.float32)}
                text["mask"] = data["mask"][rows]
            else:
                text = data["numbers"][rows]
            last = data["last"][rows, flips].astype(jnp.float32)
            return model.joint_from_last(last, text, train=train, rngs=rngs)

        @functools.partial(jax.jit, donate_argnums=0)
        def step(state, data, rows, key, rate, factors):
            params, adam_state = state
            flips, dropout = jax.random.split(key)
            flips = jax.random.randint(flips, rows.shape, 0, 2)

            def total(params):
                rngs = nnx.Rngs(dropout=dropout)
                out = outputs(params, data, rows, flips, train=True, rngs=rngs)
                batch = {"labels": data["labels"][rows]}

                def of_head(logits):
                    return loss(logits, batch, None)

                value = of_head(out["logits"])
                return value + (row.added(out, of_head, batch) if row.added else 0.0)

            grads = jax.grad(total)(params)
            updates, adam_state = adam.update(grads, adam_state)

            def paced(path, update):
                names = tuple(getattr(entry, "key", entry) for entry in path)
                if names[0] == "reader":
                    return -rate * factors["text"] * update
                slow = any(starts_with(names, block) for block in BLOCKS)
                return -rate * (factors["blocks"] if slow else 1.0) * update

            updates = jax.tree.map_with_path(paced, updates)
            return optax.apply_updates(params, updates), adam_state

        @jax.jit
        def logits(params, data, rows):
            zeros = jnp.zeros(len(rows), jnp.int32)
            return outputs(params, data, rows, zeros, train=False)["logits"]

        self._start = functools.partial(start, pretrained=pretrained)
        self._step, self._logits = step, logits

    def run(self, trial, rows, seed):
        """Trains on some posts -> probabilities [N, C] of the others; 0 of these."""
        state, random = self._start(seed), np.random.default_rng(seed)
        per_epoch = len(rows) // self.batch
        factors = {"blocks": trial.blocks, "text": trial.text / trial.rate}
        steps = trial.epochs * per_epoch
        rates = cosine(trial.rate, num_steps=steps, warmup_steps=min(20, steps // 2))
        rates = np.asarray(jax.vmap(rates)(jnp.arange(steps)))
        key = jax.random.key(seed)
        for number, rate in enumerate(rates):
            if number % per_epoch == 0:
                order = random.permutation(rows)[: per_epoch * self.batch]
                batches = order.reshape(per_epoch, self.batch)
            batch = jnp.asarray(batches[number % per_epoch])
            fresh = jax.random.fold_in(key, number)
            state = self._step(state, self.data, batch, fresh, rate, factors)
        found = np.zeros(self.data["labels"].shape)
        others = np.setdiff1d(np.arange(len(found)), rows)
        for part in np.array_split(others, range(100, len(others), 100)):
            padded = np.resize(part, 100)  # one shape, one program
            logits = self._logits(state[0], self.data, padded)[: len(part)]
            found[part] = probabilities_of(logits, one_class=True)
        return found


def kept(path, make):
    """The probabilities of a run [N, C], made where they are not there yet."""
    if not path.exists():
        start = time.process_time()
        found = make()
        seconds = time.process_time() - start
        path.parent.mkdir(parents=True, exist_ok=True)
        made = json.dumps(provenance())
        np.savez(path, probabilities=found, seconds=seconds, made=made)
        print(f"{path.parent.name} {path.stem}: {seconds:.0f} s", flush=True)
    with np.load(path) as run:
        return run["probabilities"]


def measure(config, data, workdir, methods):
    """All runs that are not there yet."""
    classes = data["labels"].argmax(axis=1)
    test = data["test"]
    train = np.setdiff1d(np.arange(len(classes)), test)
    folds = folds_of(classes, train)
    for method in methods:
        trainers = {}

        def run(trial, name, rows, seed, method=method, trainers=trainers):
            def make():
                static = trial.dropout, trial.layers
                if static not in trainers:
                    trainers[static] = Trainer(config, method, *static, data)
                return trainers[static].run(trial, rows, seed)

            return kept(workdir / method / f"{name}.npz", make)

        rest = np.setdiff1d(train, folds[0])
        tried = [run(t, f"trial{i}", rest, 0) for i, t in enumerate(TRIALS)]
        best = chosen(tried, folds[0], classes)
        for i, fold in enumerate(folds[1:], start=1):  # fold 0 is the trial itself
            run(TRIALS[best], f"trial{best}-fold{i}", np.setdiff1d(train, fold), i)
        for seed in range(SEEDS):
            run(TRIALS[best], f"trial{best}-seed{seed}", train, seed)
        jax.clear_caches()


def chosen(tried, fold, classes):
    """The trial of the lowest cross-entropy on the posts held aside."""
    losses = [-np.log(p[fold, classes[fold]] + 1e-12).mean() for p in tried]
    return int(np.argmin(losses))


def arguments(description, methods):
    """What the command line says."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--data", default="", help="the folder of the posts")
    parser.add_argument("--weights", default="", help="of MobileNetV2")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--methods", default=",".join(methods))
    parser.add_argument("--report", action="store_true", help="write what is there")
    return parser.parse_args()


def posts_config(args, choice):
    """The config of the command line, with this benchmark's sizes."""
    get_config = runpy.run_path(str(HERE.parent / "configs" / "posts.py"))
    config = get_config["get_config"](f"source=folder,method=concat{choice}")
    config.data.dir = args.data
    config.backbone.weights = args.weights or config.backbone.weights
    config.model.update(features=WIDTH, num_heads=HEADS, image_side=SIDE)
    return config


def main():
    args = arguments(__doc__, METHODS)
    config = posts_config(args, "")
    data = read_features(config, args.workdir / "features.npz")
    if not args.report:
        measure(config, data, args.workdir, args.methods.split(","))
        return
    classes, test = data["labels"].argmax(axis=1), data["test"]
    folds = folds_of(classes, np.setdiff1d(np.arange(len(classes)), test))
    write(args.workdir, data, args.methods.split(","), TRIALS, folds)


if __name__ == "__main__":
    main()
