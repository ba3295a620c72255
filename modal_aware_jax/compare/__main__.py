"""Methods x code lengths x seeds on one footing: a table that can be believed.

    python -m modal_aware_jax.compare --config=configs/shapes.py \\
        --methods=modal_aware,image,text --bits=32 --seeds=0 --workdir=runs/demo

Each cell is an ordinary run in WORKDIR/METHOD-BITS-SEED. A finished cell is never run
again, an interrupted one goes on; cells share the prepared data and the cached maps.
The same command may run several times at once: each takes what no other has begun.

WORKDIR/report/ covers every finished cell of the same config in WORKDIR, whichever call
ran it, so that a table may grow:

    ... --workdir=runs/table --bits=64 --seeds=0,1,2
    ... --workdir=runs/table --bits=16,32,48 --seeds=0
    ... --workdir=runs/table --report_only

A report's cells.npz holds its cells, scores of single queries among them. It continues
on another machine, without checkpoints and codes, by --records=cells.npz.

In the report: the table of means and standard deviations over seeds, published numbers
beside it, against the first method intervals of a paired bootstrap over the queries,
the ablation, and curves; as CSV, JSON, Markdown, LaTeX, PNG and one page.

The methods are those of the config's task; `--methods=all` runs them all. Each is
trained with its own loss, unless --config.loss.name names one for all.
"""

import itertools
import pathlib

from absl import flags

from modal_aware_jax import cli

flags.adopt_module_key_flags(cli)  # --help shows them
flags.DEFINE_list("methods", "modal_aware,image,text", "Methods, ours first; or all.")
flags.DEFINE_list("bits", "64", "Code lengths.", allow_override=True)
flags.DEFINE_list("seeds", "0", "Training seeds.")
flags.DEFINE_string(
    "records", None, "Take the cells of this cells.npz, of another report, as finished."
)
flags.DEFINE_bool("report_only", False, "Write the report of what is finished.")


def run(args) -> None:
    """Runs all cells and writes the report."""
    from modal_aware_jax import compare
    from modal_aware_jax.build import task_of

    config = cli.needed_config(args)
    workdir = pathlib.Path(args.workdir or "runs/compare").expanduser()
    task = task_of(config)
    methods = list(task.methods) if args.methods == ["all"] else args.methods
    bits = [0]  # of a task without codes
    if task.comparison.by_bits:
        bits = _numbers("bits", args.bits, lowest=1)
    cells = itertools.product(
        methods,
        bits,
        _numbers("seeds", args.seeds, lowest=0),
    )
    if args.records:
        records = pathlib.Path(args.records).expanduser()
        added = compare.unpack_records(records, workdir, config)
        print(f"{args.records}: {added} finished cells taken over.")
    if not args.report_only:
        compare.run_cells(config, cells, workdir)
    finished, left_out = compare.find_cells(config, workdir)
    for message in left_out:
        print(f"Left out: {message}")
    if not finished:
        raise ValueError(
            f"{workdir} holds no finished cell of this config. Without --report_only "
            "the cells are run."
        )
    directory = workdir / "report"
    table = compare.write_comparison(
        directory, finished, config, first=methods, left_out=left_out
    )
    print(table)
    print(f"The report is {directory / 'index.html'}")


def _numbers(name, texts, *, lowest):
    """The whole numbers of a flag's list."""
    for text in texts:
        if not text.isdecimal() or int(text) < lowest:
            raise ValueError(
                f"--{name} takes whole numbers from {lowest}, such as --{name}="
                f"{'16,32' if lowest else '0,1,2'}; got {text!r}."
            )
    return [int(text) for text in texts]


if __name__ == "__main__":
    cli.start(run)
