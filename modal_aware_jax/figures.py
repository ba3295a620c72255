"""The papers' remaining figures and tables, from the finished cells of a comparison.

    python -m modal_aware_jax.figures --config=configs/shapes.py --workdir=runs/demo

Reads the cells of `python -m modal_aware_jax.compare` with the same --config and
--workdir, and writes to WORKDIR/figures/. Precision-recall and precision at N are in
WORKDIR/report/ already. --figures names what to make, all by default:

  convergence  validation MAP by epoch of every method: PNG and table.
  latency      how long every method takes to encode, batches of 1 and 100: tables.
  codes        the space of the codes by PCA and t-SNE; the full network and the two
               ablations side by side.
  attention    what the same three look at, drawn over photographs, for both blocks.
  statistics   the data set in one table; needs no cells.
  vectors      task classification, where it is the only figure: the fused vectors of
               the test posts by PCA and t-SNE, coloured by class, method beside method.

The task cross_modal has convergence and statistics; the others' figures are in their
reports.
"""

import csv
import functools
import json
import pathlib

import jax
import numpy as np
from absl import flags
from flax import nnx

from modal_aware_jax import build, cli
from modal_aware_jax.compare import cell_flags
from modal_aware_jax.compare.cells import Cell, cell_config
from modal_aware_jax.compare.finished import chosen_cells, open_cell
from modal_aware_jax.compare.origin import provenance
from modal_aware_jax.compare.perturbed import Reader
from modal_aware_jax.compare.vectors import draw_vectors
from modal_aware_jax.data import pipeline
from modal_aware_jax.experiment.sources import split_of
from modal_aware_jax.hashing.codes import unpack
from modal_aware_jax.models.attention import network_attention
from modal_aware_jax.modes.evaluate import load_run
from modal_aware_jax.report import attention, code_space, convergence, latency
from modal_aware_jax.report.statistics import dataset_statistics, statistics_markdown
from modal_aware_jax.training.metrics import read_metrics

ABLATION = ("modal_aware", "no_kernel", "no_attention")
BATCH_SIZES = (1, 100)

flags.adopt_module_key_flags(cli)  # --help shows them
flags.adopt_module_key_flags(cell_flags)
flags.DEFINE_list("figures", [], "What to make; see above.")
flags.DEFINE_integer("seed", None, "Training seed of codes, attention and latency.")
flags.DEFINE_integer(
    "points", 900, "codes, vectors: so many pairs at most.", lower_bound=10
)
flags.DEFINE_integer(
    "photographs", 4, "attention: so many test queries.", lower_bound=1
)
flags.DEFINE_integer(
    "rounds", 9, "latency: timings of each method; the median counts.", lower_bound=1
)


def title(method: str) -> str:
    """What figures call a method, of whichever task."""
    tables = (task.methods for task in build.TASKS.values())
    return next(table[method].title for table in tables if method in table)


def draw_all_convergence(workdir, directory, cells) -> None:
    """convergence.png and .md from the cells' metrics."""
    curves = {}
    for cell in cells:
        rows = [
            row
            for row in read_metrics(workdir / cell.folder)
            if "validation_map" in row
        ]
        if rows:
            epochs = np.array([int(row["epoch"]) for row in rows])
            scores = np.array([row["validation_map"] for row in rows])
            curves.setdefault(title(cell.method), []).append((epochs, scores))
    if not curves:
        raise ValueError("convergence: no cell was validated; set data.num_validation.")
    convergence.draw_convergence(curves, directory / "convergence.png")
    table = convergence.convergence_markdown(curves)
    (directory / "convergence.md").write_text(table, encoding="utf-8")
    print(table)


def measure_latency(settings, workdir, directory, cells, pairs, *, rounds) -> None:
    """latency.md, .csv and .json: pixels and text vectors in, packed codes out."""
    readers = {}
    for cell in _one_seed(cells):
        own = cell_config(settings, cell).copy_and_resolve_references()
        own.training.cached_maps = False  # the whole network, from the pixels
        experiment = build.experiment(own.lock(), pairs)
        load_run(experiment, workdir / cell.folder)
        readers[title(cell.method)] = Reader(experiment)
    size, text = experiment.image_size, experiment.collection.text
    medians = {}
    for batch in BATCH_SIZES:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
        nothing = np.zeros((batch, 1, 1, 1), np.uint8)
        words = np.resize(text[:batch], (batch, text.shape[1])).astype(np.float32)
        calls = {
            name: functools.partial(
                reader.codes, images if reader.needs_image else nothing, words
            )
            for name, reader in readers.items()
        }
        medians[batch] = latency.alternating_medians(calls, rounds=rounds)
    rows, made = latency.latency_rows(medians), provenance()
    devices, bits = ", ".join(made["devices"]), next(iter(cells)).bits
    table = latency.latency_markdown(
        rows,
        note=(
            f"From decoded images of {size}x{size} pixels and text vectors in memory "
            f"to packed codes of {bits} bits; medians of {rounds} rounds that "
            f"alternate between the methods; {devices}, {made['machine']}; commit "
            f"{made['commit']}."
        ),
    )
    (directory / "latency.md").write_text(table, encoding="utf-8")
    with open(directory / "latency.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    record = json.dumps({"rows": rows, "provenance": made}, indent=1)
    (directory / "latency.json").write_text(record + "\n", encoding="utf-8")
    print(table)


def draw_codes(workdir, directory, cells, pairs, *, points) -> None:
    """codes_pca.png and codes_tsne.png from the cells' codes of the database."""
    if not pairs.labels.any():
        print("codes: left out; they are coloured by label, and the pairs have none.")
        return
    found = {}
    for cell in _one_seed(cells, ABLATION):
        path = workdir / cell.folder / "codes.npz"
        with np.load(path, allow_pickle=False) as kept:
            found[cell] = unpack(kept["database"], cell.bits), kept["database_labels"]
    labels = next(iter(found.values()))[1]
    rows, label, _ = code_space.one_label_each(labels)
    chosen = code_space.balanced(label, points)
    rows, label = rows[chosen], label[chosen]
    for name, project in code_space.PROJECTIONS.items():
        spaces = {
            title(cell.method): project(np.asarray(codes)[rows])
            for cell, (codes, _) in found.items()
        }
        what = {"pca": "two principal components", "tsne": "t-SNE"}[name]
        code_space.draw_code_space(
            spaces,
            label,
            list(pairs.label_names),
            directory / f"codes_{name}.png",
            title=(
                f"{len(rows)} codes of {next(iter(cells)).bits} bits, {what};\n"
                "pairs with exactly one of these labels"
            ),
        )


def draw_all_attention(settings, workdir, directory, cells, pairs, *, count) -> None:
    """attention_1.png and attention_2.png: both blocks of the three networks."""
    blocks = {}
    for cell in _one_seed(cells, ABLATION):
        experiment = open_cell(settings, cell, workdir, pairs)
        queries, seen = experiment.split.query, experiment.collection
        # The pairs with most to read say most about the attention.
        many = sorted(queries, key=lambda i: -len(experiment.text.words(seen, i)))
        chosen = np.sort(many[: max(count, len(many) // 4)])
        chosen = chosen[np.linspace(0, len(chosen) - 1, count).astype(int)]
        photos = np.stack(
            [
                pipeline.resize(
                    pipeline.decode(seen.images[int(i)]), experiment.image_size
                )
                for i in chosen
            ]
        )
        graphdef, state = nnx.split(experiment.model)

        @jax.jit
        def look(state, images, text, graphdef=graphdef, ready=experiment.normalize):
            return network_attention(nnx.merge(graphdef, state), ready(images), text)

        found = look(state, photos, seen.text[chosen].astype(np.float32))
        blocks[title(cell.method)] = jax.tree.map(np.asarray, found)
        captions = [seen.captions[int(i)] for i in chosen]
    for number in (0, 1):
        attention.draw_attention(
            photos,
            captions,
            {name: found[number] for name, found in blocks.items()},
            directory / f"attention_{number + 1}.png",
            title=f"What block {number + 1} looks at, {next(iter(cells)).bits} bits",
        )


def write_statistics(settings, directory, pairs) -> None:
    """statistics.md and .json of the config's data."""
    parts = split_of(settings.data, pairs)
    words = pairs.text.sum(axis=1)
    facts = dataset_statistics(pairs.labels, words, len(pairs.vocabulary), parts)
    table = statistics_markdown({pairs.name: facts})
    (directory / "statistics.md").write_text(table, encoding="utf-8")
    (directory / "statistics.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(table)


def figures_of(task) -> tuple[str, ...]:
    """The names of a task's figures; a ValueError where it has none."""
    if task.figures:
        return task.figures
    raise ValueError(
        f"The task {task.name} has no figures but those of its report, which "
        "`python -m modal_aware_jax.compare` writes."
    )


def _one_seed(cells, methods=None) -> list[Cell]:
    """The first seed's cell of each method."""
    first = {}
    for cell in cells:
        if methods is None or cell.method in methods:
            first.setdefault(cell.method, cell)
    if not first:
        raise ValueError(
            f"None of {', '.join(methods)} has a finished cell: run them with "
            "`python -m modal_aware_jax.compare`."
        )
    return list(first.values())


def run(args) -> None:
    """Makes the figures that are asked for."""
    settings = cli.needed_config(args)
    task = build.task_of(settings)
    known = figures_of(task)
    wanted = args.figures or list(known)
    for name in wanted:
        build.choose("figure", dict.fromkeys(known), name)
    workdir = pathlib.Path(args.workdir or "runs/compare").expanduser()
    directory = workdir / "figures"
    cells, pairs = {}, None
    if set(wanted) != {"statistics"}:
        options = {"methods": args.methods, "bits": args.bits, "codes": False}
        cells = chosen_cells(settings, workdir, **options)
    one = {c: f for c, f in cells.items() if args.seed in (None, c.seed)}
    if cells and not one:
        seeds = ", ".join(map(str, sorted({cell.seed for cell in cells})))
        raise ValueError(
            f"--seed={args.seed}: the finished cells have the seeds {seeds}."
        )
    if not set(wanted) <= {"convergence", "vectors"}:
        pairs = build.collection(settings.data)
    directory.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        if name == "convergence":
            draw_all_convergence(workdir, directory, cells)
        elif name == "latency":
            measure_latency(
                settings, workdir, directory, one, pairs, rounds=args.rounds
            )
        elif name == "codes":
            draw_codes(workdir, directory, one, pairs, points=args.points)
        elif name == "vectors":
            some = _one_seed(one)
            draw_vectors(settings, workdir, directory, some, points=args.points)
        elif name == "attention":
            draw_all_attention(
                settings, workdir, directory, one, pairs, count=args.photographs
            )
        else:
            write_statistics(settings, directory, pairs)
    print(f"The figures are in {directory}")


if __name__ == "__main__":
    cli.start(run)
