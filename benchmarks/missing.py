"""What missing texts and images cost, with and without stand-ins.

    python -m modal_aware_jax.compare --config=configs/flickr.py:variant=quick \
        --config.data.dir=FOLDER --config.model.image_missing=0.2 \
        --config.model.text_missing=0.2 --workdir=runs/dropout \
        --methods=modal_aware,concat --bits=64 --seeds=0
    python benchmarks/missing.py --data=FOLDER --dropout=runs/dropout \
        --without=runs/table --unimodal=runs/unimodal

Takes the image, the text, or either of them (half of the rows each) from a share of the
test queries, of the database, or of both, at random. Networks without stand-ins read
what stands there for them: a grey picture, an empty text. The unimodal networks read
the one modality that they know, there or not. A row's code depends on what it has and
on nothing else, so every pair is encoded three times and the codes are mixed. Writes
`results/missing.md` and `missing.json`.
"""

import argparse
import json
import pathlib

import numpy as np
from flickr_settings import add_arguments, quick_config

from modal_aware_jax import build
from modal_aware_jax.compare import provenance
from modal_aware_jax.compare.finished import chosen_cells
from modal_aware_jax.data import pipeline
from modal_aware_jax.hashing.encode import encode
from modal_aware_jax.modes.encoder import lower_half, lower_maps, output_of, upper_half
from modal_aware_jax.modes.evaluate import load_run
from modal_aware_jax.retrieval.metrics import mean_average_precision

HERE = pathlib.Path(__file__).parent
SHARES = (0, 25, 50, 75, 100)
SIDES = {"queries": (True, False), "database": (False, True), "both": (True, True)}
WHOLE, NO_TEXT, NO_IMAGE = 0, 1, 2
LOST = {"texts": (NO_TEXT,), "images": (NO_IMAGE,), "either": (NO_TEXT, NO_IMAGE)}
GREY = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_arguments(parser)
    parser.add_argument("--dropout", required=True, type=pathlib.Path)
    parser.add_argument("--without", required=True, type=pathlib.Path)
    parser.add_argument("--unimodal", required=True, type=pathlib.Path)
    parser.add_argument("--methods", default="modal_aware,concat")
    parser.add_argument("--image_missing", default=0.2, type=float)
    parser.add_argument("--text_missing", default=0.2, type=float)
    parser.add_argument("--bits", default=64, type=int)
    args = parser.parse_args()
    config = quick_config(args.data, before=args.before)
    dropped = config.copy_and_resolve_references()
    dropped.model.image_missing = args.image_missing
    dropped.model.text_missing = args.text_missing
    networks = [
        (f"{build.METHODS[method].title}{what}", settings, folder, method)
        for method in args.methods.split(",")
        for what, settings, folder in (
            (", modality dropout", dropped, args.dropout),
            ("", config, args.without),
        )
    ]
    for method in ("text", "image"):
        title = build.METHODS[method].title
        networks.append((title, config, args.unimodal, method))
    pairs = build.collection(config.data)
    tables = {}
    for name, settings, folder, method in networks:
        options = {"methods": [method], "bits": args.bits, "seeds": [0]}
        try:
            (cell,) = chosen_cells(settings, folder, **options)
        except ValueError as error:
            print(f"{name} is left out: {error}", flush=True)
            continue
        tables[name] = measure(settings, cell, folder, pairs)
        print(name, tables[name]["protocol"]["texts"], flush=True)
    write(tables, args)


def measure(settings, cell, folder, pairs):
    """MAP by part of the database, by what is lost, by side, at every share."""
    settings = settings.copy_and_resolve_references()
    settings.model.method, settings.model.num_bits = cell.method, cell.bits
    settings.seed = cell.seed
    experiment = build.experiment(settings, pairs)
    load_run(experiment, folder / cell.folder)
    parts = experiment.split
    codes = codes_of(experiment, np.concatenate([parts.query, parts.database]))
    num_queries = len(parts.query)
    labels = experiment.collection.labels
    unseen = ~np.isin(parts.database, parts.train)
    found = {}
    for part, rows in (("protocol", slice(None)), ("unseen", unseen)):
        scores, whole = found.setdefault(part, {}), None
        for lost, states in LOST.items():
            for side, (of_queries, of_database) in SIDES.items():
                line = []
                for share in SHARES:
                    if share == 0 and whole is not None:
                        line.append(whole)
                        continue
                    states_of = state_of_rows(codes.shape[1], states, share)
                    states_of[:num_queries] *= of_queries
                    states_of[num_queries:] *= of_database
                    mixed = codes[states_of, np.arange(codes.shape[1])]
                    value = mean_average_precision(
                        mixed[:num_queries],
                        mixed[num_queries:][rows],
                        labels[parts.query],
                        labels[parts.database][rows],
                        num_bits=cell.bits,
                    )
                    line.append(float(value))
                whole = line[0]
                scores.setdefault(lost, {})[side] = line
    return found


def state_of_rows(count, states, share):
    """What each row has lost, int [count]: the same rows for every network.

    A row that has lost its modality at one share has lost it at every larger one.
    """
    random = np.random.default_rng(0)
    lost = random.permutation(count) < share / 100 * count
    return np.where(lost, np.array(states)[random.integers(0, len(states), count)], 0)


def codes_of(experiment, positions):
    """Codes of pairs as they are, without text, and without image: [3, n, Wd]."""
    relaxed = output_of(experiment)
    maps, grey = lower_maps(experiment), grey_map(experiment)
    every = []
    for lost in (WHOLE, NO_TEXT, NO_IMAGE):

        def batches(lost=lost):
            for batch in pipeline.cached_eval_batches(
                maps,
                experiment.collection,
                positions,
                batch_size=250,
                mirrored=experiment.mirrored,
            ):
                rows = len(batch["index"])
                if lost == NO_TEXT:
                    batch["text"] = np.zeros_like(batch["text"])
                if lost == NO_IMAGE:
                    batch["image"] = np.broadcast_to(grey, batch["image"].shape)
                batch["has_text"] = np.full(rows, lost != NO_TEXT)
                batch["has_image"] = np.full(rows, lost != NO_IMAGE)
                yield batch

        def output(batch):
            read = ("image", "text", *pipeline.PRESENCE)
            return relaxed({name: batch[name] for name in read})

        every.append(encode(output, batches())[0])
    return np.stack(every)


def grey_map(experiment):
    """What the cached maps would hold for a grey picture."""
    if not hasattr(experiment.model, "backbone"):
        return np.zeros((1, 1, 1, 1), np.float16)
    size = experiment.image_size
    lower, _ = lower_half(experiment)
    maps = np.asarray(lower(np.full((1, size, size, 3), GREY, np.uint8)))
    if experiment.cached_means or experiment.cached_last:
        last, _ = upper_half(experiment)
        maps = np.asarray(last(maps.astype(np.float16)))
    return maps.astype(np.float16)


def write(tables, args):
    made = provenance()
    lines = []
    for part, what in (
        ("protocol", "Whole database (the protocol)"),
        ("unseen", "Pairs that were not trained on"),
    ):
        lines += [
            f"{what}, MAP:\n",
            "| network | missing | on | 0 % | 25 % | 50 % | 75 % | 100 % "
            "| fall at 50 % |",
            "|" + "---|" * 9,
        ]
        for name, scores in tables.items():
            for lost, sides in scores[part].items():
                for side, line in sides.items():
                    fall = 100 * (1 - line[SHARES.index(50)] / line[0])
                    numbers = " | ".join(f"{value:.4f}" for value in line)
                    lines.append(
                        f"| {name} | {lost} | {side} | {numbers} | {fall:.1f} % |"
                    )
        lines.append("")
    lines.append(
        "MIR-Flickr, `configs/flickr.py:variant=quick`, "
        f"{args.bits} bits, seed 0, ties 'expected'. Modality dropout: "
        f"`config.model.image_missing={args.image_missing:g}`, "
        f"`text_missing={args.text_missing:g}` in training. Without it a missing image "
        "is a grey picture, a missing text an empty bag. 'either': half of the rows "
        f"that lose something lose their text. Commit {made['commit']}. Made by "
        "`benchmarks/missing.py`.\n"
    )
    results = HERE / "results"
    (results / "missing.md").write_text("\n".join(lines))
    record = {"shares": SHARES, "scores": tables, "made": made}
    (results / "missing.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
