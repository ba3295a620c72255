"""What it is worth to read words that no training pair has through a sentence model.

    python benchmarks/unknown_words.py --data=FOLDER --workdir=runs/table

A share of the vocabulary's words is hidden: the map from the sentence model's vectors
to the network's own is fitted on the others, and in the test queries the hidden words
are dropped, read through the map, or known as they are. The database stays as it is.
The network was trained with all of them, so the hidden words' own vectors are what a
perfect map would give. Writes `results/unknown_words.md`.
"""

import argparse
import pathlib

import numpy as np
from flickr_settings import add_arguments, quick_config

from modal_aware_jax import build
from modal_aware_jax.backbones.sentence_vectors import SentenceModel
from modal_aware_jax.compare import provenance
from modal_aware_jax.compare.finished import chosen_cells
from modal_aware_jax.data import pipeline
from modal_aware_jax.data.unknown_words import OpenWords, fit_map
from modal_aware_jax.hashing.encode import encode
from modal_aware_jax.modes.encoder import (
    Encoder,
    lower_maps,
    output_of,
    variables_of,
)
from modal_aware_jax.modes.evaluate import load_run
from modal_aware_jax.retrieval.metrics import average_precision

HERE = pathlib.Path(__file__).parent
SHARES = (0.1, 0.3, 0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_arguments(parser)
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--method", default="concat")
    parser.add_argument("--bits", default=64, type=int)
    args = parser.parse_args()
    config = quick_config(args.data, before=args.before, arg=f"method={args.method}")
    config.model.num_bits = args.bits
    (cell,) = chosen_cells(
        config, args.workdir, methods=[args.method], bits=args.bits, seeds=[0]
    )
    experiment = build.experiment(config)
    load_run(experiment, args.workdir / cell.folder)
    lines = table_of(experiment)
    title = build.METHODS[args.method].title
    lines.append(
        f"\nMAP on the pairs that were not trained on, {title}, {args.bits} bits, "
        "seed 0, over the test queries that have a hidden word. MIR-Flickr, "
        f"`configs/flickr.py:variant=quick`, commit {provenance()['commit']}. Made by "
        "`benchmarks/unknown_words.py`.\n"
    )
    print("\n".join(lines))
    (HERE / "results" / "unknown_words.md").write_text("\n".join(lines))


def table_of(experiment):
    """Rows of the table: a share of hidden words each."""
    pairs, parts = experiment.collection, experiment.split
    vectors = experiment.text.vectors_of_words
    counted = pairs.text[parts.train].any(axis=0)
    model = SentenceModel()
    own = model(list(pairs.vocabulary))
    maps = lower_maps(experiment)
    variables = variables_of(experiment.model)
    unseen = np.setdiff1d(parts.database, parts.train)
    database = Encoder(experiment, maps)(variables, unseen)
    lines = [
        f"Of the {len(counted):,} words of the vocabulary {int((~counted).sum())} are "
        "in no training pair.\n",
        "| hidden words | tags hidden of the queries' | queries | of the hidden words' "
        "variance explained | dropped | read through the model | known |",
        "|" + "---|" * 7,
    ]
    for share in SHARES:
        random = np.random.default_rng(0)
        hidden = random.random(len(counted)) < share
        known = counted & ~hidden
        to_ours = fit_map(own[known], vectors[known])
        encoder = OpenWords(pairs, vectors, known, to_ours, model)
        bags = pairs.text[parts.query]
        asked = parts.query[bags[:, hidden].any(axis=1)]
        documents = [experiment.text.words(pairs, i) for i in asked]
        texts = {
            "dropped": pairs.text[asked] * known,
            "read": encoder.encode(documents),
            "known": pairs.text[asked],
        }
        wanted = vectors[hidden & counted]
        error = ((to_ours(own[hidden & counted]) - wanted) ** 2).mean()
        explained = 1 - error / ((wanted - vectors[known].mean(axis=0)) ** 2).mean()
        scores = [
            average_precision(
                codes_of(experiment, maps, asked, text.astype(np.float32)),
                database,
                pairs.labels[asked],
                pairs.labels[unseen],
                num_bits=experiment.num_bits,
            ).mean()
            for text in texts.values()
        ]
        gone = bags[:, hidden].sum() / bags.sum()
        numbers = " | ".join(f"{score:.4f}" for score in scores)
        lines.append(
            f"| {share:.0%} ({int(hidden.sum())}) | {gone:.0%} | {len(asked):,} "
            f"| {explained:.2f} | {numbers} |"
        )
        print(lines[-1], flush=True)
    return lines


def codes_of(experiment, maps, positions, text):
    """Packed codes of pairs with texts of their own."""
    output = output_of(experiment)

    def batches():
        start = 0
        for batch in pipeline.cached_eval_batches(
            maps,
            experiment.collection,
            positions,
            batch_size=250,
            mirrored=experiment.mirrored,
        ):
            own = text[start : start + 250]
            batch["text"][: len(own)] = own
            start += 250
            yield batch

    def relaxed(batch):
        return output({name: batch[name] for name in ("image", "text")})

    return encode(relaxed, batches())[0]


if __name__ == "__main__":
    main()
