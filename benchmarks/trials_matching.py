"""Settings of matching tried in equal number for every method, on images held aside.

    python benchmarks/trials_matching.py --data=FOLDER [--methods=towers,vse]
    python benchmarks/trials_matching.py --report

The score is rsum of 1,000 of the 6,000 training images of Flickr8k, which and whose
sentences ask each other, after the last epoch; `configs/flickr8k.py`, seed 0. Of
methods that score pairs it is rsum of the embeddings and, with the first 50 ranked
again, of the best of some weights. Test images are not encoded.

Scores are kept in WORKDIR as they come; the same command goes on after an interruption,
and several processes share the work. `--report` writes `results/trials_matching.md` and
`.json` of what is there and of what these files had before.
"""

import argparse
import contextlib
import functools
import gc
import itertools
import json
import pathlib
import runpy

import jax
import numpy as np

from modal_aware_jax import build, modes
from modal_aware_jax.compare import provenance
from modal_aware_jax.compare.cells import Cell, cell_config, fingerprint
from modal_aware_jax.modes.pair_scorer import PairScorer
from modal_aware_jax.retrieval.evaluate_matching import evaluate_matching
from modal_aware_jax.tasks.matching import embeddings_of, in_order, look_again
from modal_aware_jax.training.errors import WorkdirInUse

HERE = pathlib.Path(__file__).parent
WEIGHTS = (0.125, 0.25, 0.5, 1.0, 2.0)  # of the score beside the similarity


def towers(rate, image, text, hidden):
    return {
        "optimizer.learning_rate": rate,
        "model.image_dropout": image,
        "model.text_dropout": text,
        "model.hidden_dropout": hidden,
        "data.image_size": 160,
        "data.mirrored": False,
    }


def tokens(dropout, pace):
    return {
        "model.token_dropout": dropout,
        "optimizer.block_learning_rate": pace,
        "data.image_size": 160,
        "data.mirrored": False,
    }


def wide_tokens(dropout, pace):
    """Tokens 256 wide at 256 pixels, and twice as many pairs of a batch scored."""
    return tokens(dropout, pace) | {
        "model.token_features": 256,
        "loss.pair_rows": 32,
        "data.image_size": 256,
    }


TOWER_TRIALS = {
    "rate 2e-3, dropout .5 / .3 / .3": towers(2e-3, 0.5, 0.3, 0.3),
    "rate 1e-3": towers(1e-3, 0.5, 0.3, 0.3),
    "rate 4e-3": towers(4e-3, 0.5, 0.3, 0.3),
    "features as they are, rate 1e-3": towers(1e-3, 0.5, 0.3, 0.3)
    | {"model.standard_inputs": False},
    **{
        f"images read at {size} pixels": towers(2e-3, 0.5, 0.3, 0.3)
        | {"data.image_size": size}
        for size in (192, 224, 256)
    },
}
TOKEN_TRIALS = {
    "token dropout .1, pace 1": tokens(0.1, 1.0),
    "token dropout .3, pace 1": tokens(0.3, 1.0),
    "token dropout .1, pace .1": tokens(0.1, 0.1),
    "token dropout .3, pace .1": tokens(0.3, 0.1),
    "256 pixels, 256 wide, token dropout .1, pace .25": wide_tokens(0.1, 0.25),
    "256 pixels, 256 wide, token dropout .3, pace .1": wide_tokens(0.3, 0.1),
    **{
        f"256 pixels, mirrored, groups of 8, pace .25, token dropout {dropout:g}": {
            "data.image_size": 256,
            "data.mirrored": True,
            "model.token_dropout": dropout,
        }
        for dropout in (0.1, 0.4)
    },
}
FINE_TUNED_TRIALS = {
    f"sentence model trained along, rate {rate:g}, {epochs} epochs": {
        "optimizer.text_learning_rate": rate,
        "training.num_epochs": epochs,
        "data.image_size": 256,
    }
    for rate, epochs in ((5e-5, 20), (1e-4, 20), (2e-5, 20), (1e-4, 30))
}
# At 2e-3 the hinge stays at its margin through the whole training.
HINGE_TRIALS = {
    f"256 pixels, mirrored, rate {rate:g}": towers(rate, 0.5, 0.3, 0.3)
    | {"data.image_size": 256, "data.mirrored": True}
    for rate in (2e-3, 5e-4, 2e-4)
}
CCA_TRIALS = {
    f"ridge {ridge:g}, power {power:g}": {
        "model.cca.regularization": ridge,
        "model.cca.power": power,
    }
    for ridge, power in ((0.1, 4.0), (0.1, 1.0), (1.0, 1.0), (1.0, 4.0))
}


def trials_of(method, text):
    """{name of the setting: changes of the config} of a method."""
    if text == "fine_tuned":
        return FINE_TUNED_TRIALS
    if method == "cca":
        return CCA_TRIALS
    if method in ("vse", "vse_sum"):
        return HINGE_TRIALS
    return (
        TOKEN_TRIALS
        if build.TASKS["matching"].methods[method].tokens
        else (TOWER_TRIALS)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="", help="the folder of Flickr8k")
    parser.add_argument("--weights", default="", help="of the backbone")
    parser.add_argument("--methods", default=",".join(build.TASKS["matching"].methods))
    parser.add_argument("--text", default="frozen,fine_tuned", help="either or both")
    parser.add_argument("--only", default="", help="trials with this in their name")
    parser.add_argument("--workdir", default="runs/trials_matching", type=pathlib.Path)
    parser.add_argument("--report", action="store_true", help="write what is there")
    args = parser.parse_args()
    get_config = runpy.run_path(str(HERE.parent / "configs" / "flickr8k.py"))
    rows, pairs = [], None
    for method, text in itertools.product(
        args.methods.split(","), args.text.split(",")
    ):
        config = get_config["get_config"](f"method=cmfg,text={text}")
        config.data.dir = args.data
        config.backbone.weights = args.weights or config.backbone.weights
        if pairs is None and not args.report:
            pairs = build.collection(config.data)
        for title, changes in trials_of(method, text).items():
            own = cell_config(config, Cell(method, 0, 0))
            own.update_from_flattened_dict(changes)
            folder = args.workdir / f"{method}-{fingerprint(own)}"
            kept = folder / "trial.json"
            if not kept.exists() and not args.report and args.only in title:
                with contextlib.suppress(WorkdirInUse):  # another process has it
                    run(own, pairs, folder, kept)
            if kept.exists():
                row = {"method": method, "trial": title, **json.loads(kept.read_text())}
                rows.append(row)
                print(f"{row['rsum']:.1f} {method}: {title} {row['again']}", flush=True)
    if args.report:
        out = HERE / "results" / "trials_matching"
        before = json.loads(out.with_suffix(".json").read_text())
        rows = list({(r["method"], r["trial"]): r for r in before + rows}.values())
        rows.sort(key=lambda row: row["method"])
        out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
        out.with_suffix(".md").write_text(table(rows))


def run(config, pairs, folder, kept):
    """Trains with a setting and keeps its scores."""
    experiment = build.experiment(config, pairs)
    encoder, variables, history = modes.fit_run(experiment, folder)
    positions = experiment.split.validation
    outputs = encoder.outputs(variables, positions)
    images, texts, owners = embeddings_of(experiment, positions, outputs)
    found = {"again": {}, "rsum": evaluate_matching(images, texts, owners)["rsum"]}
    if experiment.pairs is not None:
        scorer = functools.partial(PairScorer, experiment, variables, encoder.maps)
        seen = look_again(experiment, positions, outputs, scorer)
        for weight in WEIGHTS:
            again = evaluate_matching(
                images, texts, owners, reranked=in_order(seen, weight)
            )
            found["again"][str(weight)] = round(again["rsum"], 2)
    loss = history[-1]["loss"] if history else None
    found |= {"loss": loss, "made": provenance()}
    kept.write_text(json.dumps(found))
    jax.clear_caches()
    gc.collect()


def table(rows):
    """A line a method and setting, the best of each method in bold."""
    lines = [
        "| method | setting | rsum | ranked again | weight |",
        "|---|---|---|---|---|",
    ]
    best = {}
    for row in rows:
        again = max(row["again"].values(), default=row["rsum"])
        best[row["method"]] = max(best.get(row["method"], 0), again)
    for row in rows:
        weight = max(row["again"], key=row["again"].get, default="")
        again = row["again"].get(weight)
        score = row["rsum"] if again is None else again
        title = build.TASKS["matching"].methods[row["method"]].title
        own, other = f"{row['rsum']:.1f}", "" if again is None else f"{again:.1f}"
        if np.isclose(score, best[row["method"]]):
            own, other = (f"**{x}**" if x else x for x in (own, other))
        lines.append(f"| {title} | {row['trial']} | {own} | {other} | {weight} |")
    commits = sorted({row["made"]["commit"] for row in rows})
    note = (
        "\nrsum of 1,000 training images of Flickr8k held aside and their sentences, "
        "after the last epoch; read at 160 pixels where none are told; "
        "`configs/flickr8k.py`, seed 0, commits "
        f"{', '.join(commits)}. Made by `benchmarks/trials_matching.py`, which holds "
        "the settings.\n"
    )
    return "\n".join(lines) + "\n" + note


if __name__ == "__main__":
    main()
