"""Settings tried in equal number for every method, judged on unseen pairs alone.

    python benchmarks/trials.py methods --data=FOLDER
    python benchmarks/trials.py blocks --data=FOLDER
    python benchmarks/trials.py losses --data=FOLDER
    python benchmarks/trials.py places --data=FOLDER
    python benchmarks/trials.py margins --data=FOLDER

`methods` trains each method with each of the same settings, so that none has more
trials than the next. `blocks` varies what is the modal-aware block's own: its pace, its
halves, its widths. `losses` varies the loss of Concat. All on MIR-Flickr's quick config
at 64 bits, seed 0, as it was when they were chosen (`BEFORE`); `places`, both blocks or
one of them, and `margins`, of three rivals' losses, as it is.

The score is the MAP of the 1,000 validation queries after the last epoch; they search
the pairs of the database that are not trained on, 2,677. Test queries are not encoded.
Scores are kept in WORKDIR as they come; the same command goes on after an interruption,
and several processes share the work. `--report` writes `results/trials_NAME.md` and
`.json` of what is there.
"""

import argparse
import contextlib
import gc
import json
import pathlib

import jax
from flickr_settings import BEFORE, quick_config

from modal_aware_jax import build, modes
from modal_aware_jax.compare import provenance
from modal_aware_jax.compare.cells import Cell, cell_config, fingerprint
from modal_aware_jax.training.errors import WorkdirInUse

HERE = pathlib.Path(__file__).parent
BITS, SEED = 64, 0

WORDS = {"data.text": "words", "data.word_vectors": ""}
OWN = {"data.text": "words", "data.word_vectors": "own"}
AP = {
    "loss.name": "expected_ap",
    "loss.label_weight": 1.0,
    "training.batch_size": 250,
    "training.num_epochs": 16,
}


def dropout(image, word):
    return {"model.image_dropout": image, "training.word_dropout": word}


HALF = dropout(0.5, 0.5)
TAUGHT = {"model.head_features": 512}
SLOW = {"optimizer.block_learning_rate": 0.1}
TRIPLET = {
    "loss.name": "triplet_ranking",
    "loss.label_weight": 0.3,
    "training.batch_size": 100,
    "training.num_epochs": 12,
    "data.text": "bag",
} | dropout(0.3, 0.3)

METHODS = (
    *("concat", "modal_aware", "no_kernel", "no_attention", "gmu", "mcb"),
    *("image", "text"),
)
METHOD_TRIALS = {
    "triplet, bag, dropout .3 / .3": TRIPLET,
    "AP, bag, .3 / .3": AP | dropout(0.3, 0.3) | {"data.text": "bag"},
    "AP, bag, .5 / .5": AP | HALF | {"data.text": "bag"},
    "AP, own vectors, .5 / .5": AP | OWN | HALF,
    "AP, model's vectors, .5 / .5": AP | WORDS | HALF,
    "the same, .5 / .7": AP | WORDS | dropout(0.5, 0.7),
    "the same, .5 / .5, 30 epochs": AP | WORDS | HALF | {"training.num_epochs": 30},
}
PACES = (0.1, 1.0, 0.03, 0.3, 0.01)
BLOCK_TRIALS = {
    "no blocks (Concat)": ("concat", {}),
    **{
        f"rate x {pace:g}": ("modal_aware", {"optimizer.block_learning_rate": pace})
        for pace in PACES
    },
    "x 0.1, windows of 4 x 4 positions": (
        "modal_aware",
        SLOW | {"training.map_crop": 4},
    ),
    "x 0.1, windows of 5 x 5 positions": (
        "modal_aware",
        SLOW | {"training.map_crop": 5},
    ),
    "x 0.1, 30 epochs": ("modal_aware", SLOW | {"training.num_epochs": 30}),
    "x 0.1, model's vectors": ("modal_aware", SLOW | WORDS),
    "x 0.1, attention alone": ("no_kernel", SLOW),
    "x 0.1, kernel alone": ("no_attention", SLOW),
    "literal equations, x 0.1": ("modal_aware_low_rank", SLOW),
    "literal equations, x 0.03": (
        "modal_aware_low_rank",
        {"optimizer.block_learning_rate": 0.03},
    ),
}
LOSS_TRIALS = {
    "triplet ranking": {"loss.name": "triplet_ranking", "loss.label_weight": 0.3},
    "average precision x 3": {"loss.options.expected_ap.weight": 3.0},
    "average precision x 10": {},
    "average precision x 30": {"loss.options.expected_ap.weight": 30.0},
    "x 10, label weight .3": {"loss.label_weight": 0.3},
    "x 10, label weight 0": {"loss.label_weight": 0.0},
    "x 10, batch 100": {"training.batch_size": 100},
    "x 10, batch 500": {"training.batch_size": 500},
    "NDCG x 10": {"loss.name": "expected_ndcg"},
    "label head's relevances, soft AP x 10": {"loss.name": "soft_ap"},
    "half of them": {"loss.name": "soft_ap", "loss.options.soft_ap.share": 0.5},
    "AP x 10, and their listwise divergence x 10, temperature .2": {
        "loss.name": "listwise",
        "loss.options.listwise.temperature": 0.2,
        "loss.options.listwise.ap_weight": 10.0,
    },
    "AP x 10, and codes of label probabilities": TAUGHT,
}
# Both blocks, or one of them, and how fast it learns.
PLACE_TRIALS = {
    "no blocks (Concat)": ("concat", {}),
    "both blocks, rate x 0.1": ("modal_aware", {}),
    "block 1 alone, rate x 0.1": ("first_block", {}),
    **{
        f"block 2 alone, rate x {pace:g}": (
            "last_block",
            {"optimizer.block_learning_rate": pace},
        )
        for pace in (0.1, 0.03, 0.3, 1.0)
    },
    **{
        f"literal equations, rate x {pace:g}": (
            "modal_aware_low_rank",
            {"optimizer.block_learning_rate": pace},
        )
        for pace in (0.1, 0.01, 0.001)
    },
}
# Losses of rivals that left bits constant at the margin of their papers.
MARGIN_TRIALS = {
    **{
        f"contrastive, margin {margin:g}": (
            "contrastive",
            {"loss.options.contrastive.margin_per_root_bit": margin / BITS**0.5},
        )
        for margin in (2.0, 4.0, 8.0, 11.3)
    },
    **{
        f"divide and encode, margin {margin:g}": (
            "divide_and_encode",
            {"loss.options.ninh.margin_per_bit": margin / BITS},
        )
        for margin in (1.0, 4.0, 16.0, 32.0)
    },
    **{
        f"DSH, margin {margin:g} a bit, quantization {weight:g}": (
            "dsh",
            {
                "loss.options.dsh.margin_per_bit": margin,
                "loss.options.dsh.quantization_weight": weight,
            },
        )
        for margin, weight in ((2.0, 0.1), (1.0, 0.1), (0.5, 0.1), (2.0, 0.01))
    },
}
ALONE = {"places": PLACE_TRIALS, "margins": MARGIN_TRIALS}  # in today's settings


def trials(name, methods):
    """(method, name of the setting, changes) of each trial."""
    if name == "methods":
        return [(m, t, BEFORE | c) for t, c in METHOD_TRIALS.items() for m in methods]
    if name in ALONE:
        return [(m, title, own) for title, (m, own) in ALONE[name].items()]
    base = BEFORE | AP | OWN | HALF
    if name == "blocks":
        return [(m, title, base | own) for title, (m, own) in BLOCK_TRIALS.items()]
    return [("concat", title, base | own) for title, own in LOSS_TRIALS.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=("methods", "blocks", "losses", *ALONE))
    parser.add_argument("--data", required=True, help="the folder of MIR-Flickr")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--only", default="", help="trials with this in their name")
    parser.add_argument("--workdir", default="runs/trials", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, help="default: results/trials_NAME")
    parser.add_argument("--report", action="store_true", help="write what is there")
    args = parser.parse_args()
    config = quick_config(args.data)
    pairs = None if args.report else build.collection(config.data)
    rows = []
    for method, title, changes in trials(args.name, args.methods.split(",")):
        own = cell_config(config, Cell(method, BITS, SEED))
        own.update_from_flattened_dict(changes)
        folder = args.workdir / f"{method}-{fingerprint(own)}"
        kept = folder / "trial.json"
        if not kept.exists() and not args.report and args.only in title:
            with contextlib.suppress(WorkdirInUse):  # another process has it
                run(own, pairs, folder, kept)
        if kept.exists():
            row = {"method": method, "trial": title, **json.loads(kept.read_text())}
            rows.append(row)
            print(f"{row['validation_map']:.4f} {method}: {title}", flush=True)
    if args.report:
        out = args.out or HERE / "results" / f"trials_{args.name}"
        out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
        out.with_suffix(".md").write_text(table(args.name, rows))


def run(config, pairs, folder, kept):
    """Trains with a setting and keeps its score."""
    _, _, history = modes.fit_run(build.experiment(config, pairs), folder)
    score = {"validation_map": history[-1]["validation_map"], "made": provenance()}
    kept.write_text(json.dumps(score))
    jax.clear_caches()
    gc.collect()


def table(name, rows):
    """One row a setting, one column a method, the best of each method in bold."""
    found = {(row["trial"], row["method"]): row["validation_map"] for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    titles = [build.METHODS[method].title for method in methods]
    lines = [f"| setting | {' | '.join(titles)} |", "|---" * (len(methods) + 1) + "|"]
    best = {
        method: max(score for (_, own), score in found.items() if own == method)
        for method in methods
    }
    for trial in dict.fromkeys(row["trial"] for row in rows):
        cells = []
        for method in methods:
            score = found.get((trial, method))
            text = "–" if score is None else f"{score:.4f}"
            cells.append(f"**{text}**" if score == best[method] else text)
        lines.append(f"| {trial} | {' | '.join(cells)} |")
    commits = sorted({row["made"]["commit"] for row in rows})
    note = (
        f"\nMAP of the 1,000 validation queries among the 2,677 pairs that are not "
        f"trained on, after the last epoch; {BITS} bits, seed {SEED}, "
        f"`configs/flickr.py:variant=quick`, commits {', '.join(commits)}. Made by "
        f"`benchmarks/trials.py {name}`, which holds the settings.\n"
    )
    return "\n".join(lines) + "\n" + note


if __name__ == "__main__":
    main()
