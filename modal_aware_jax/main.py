"""Train, evaluate, encode and search from the command line.

    python -m modal_aware_jax.main --config=configs/shapes.py --workdir=runs/shapes
    python -m modal_aware_jax.main --config=... --workdir=... --mode=evaluate
    python -m modal_aware_jax.main --mode=evaluate --codes=FILE.npz
    python -m modal_aware_jax.main --config=... --workdir=... --mode=encode
    python -m modal_aware_jax.main --config=... --workdir=... --mode=search \\
        --image=photo.jpg --text="beach sunset" --k=10

Modes:
  train     train to the end (from the last checkpoint where there is one), evaluate
            the test queries with the last checkpoint, write WORKDIR/report/.
  evaluate  a run's checkpoint against its split; or, with --codes, codes made
            elsewhere (see retrieval/codes_file.py for what the file holds).
  encode    the whole collection to WORKDIR/encoded.npz (codes, ids, labels).
  search    an image file and/or a text against the collection, which is indexed on
            first use (WORKDIR/collection-STEP.index); prints the ranked ids and writes
            WORKDIR/search.png.

Any value of the config can be changed: --config.model.num_bits=32.
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from modal_aware_jax.overrides import parse_flags
from modal_aware_jax.training.errors import RunError

MODES = ("train", "evaluate", "encode", "search")

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The experiment: configs/NAME.py.")
flags.DEFINE_enum("mode", "train", MODES, "What to do; see above.")
flags.DEFINE_string("workdir", None, "The run's directory; runs/CONFIG by default.")
flags.DEFINE_string("step", "latest", "evaluate: 'latest', 'best' or a step.")
flags.DEFINE_string("codes", None, "evaluate: codes made elsewhere, an .npz file.")
flags.DEFINE_string("output", None, "encode: the file to write.")
flags.DEFINE_string("image", None, "search: an image file.")
flags.DEFINE_string("text", "", "search: tags or text.")
flags.DEFINE_integer("k", 10, "search: how many results.", lower_bound=1)


def run(args) -> None:
    """Calls the function of the mode and prints what it found."""
    from modal_aware_jax import build, modes
    from modal_aware_jax.report import format_results

    workdir = _workdir(args)
    if args.mode == "evaluate" and args.codes:
        results = modes.evaluate_codes_file(pathlib.Path(args.codes), workdir)
        print(format_results({pathlib.Path(args.codes).stem: results}))
        return
    if args.config is None:
        raise ValueError("Name an experiment, for example --config=configs/shapes.py.")
    config = args.config
    if args.mode == "search":
        with config.unlocked():
            config.training.cached_maps = False
    experiment = build.experiment(config)
    if args.mode == "train":
        results = modes.train(experiment, workdir)
    elif args.mode == "evaluate":
        step = int(args.step) if args.step.isdigit() else args.step
        results = modes.evaluate_run(experiment, workdir, step=step)
    elif args.mode == "encode":
        output = pathlib.Path(args.output) if args.output else None
        print(f"Wrote {modes.encode_collection(experiment, workdir, output=output)}")
        return
    else:
        image = pathlib.Path(args.image) if args.image else None
        found = modes.search_run(
            experiment, workdir, image=image, words=args.text, k=args.k
        )
        for row in found:
            labels = ", ".join(row["labels"])
            print("{rank:4} {distance:4}  {id}  {caption}".format(**row), f"[{labels}]")
        print(f"The picture is {workdir / 'search.png'}")
        return
    print(format_results({experiment.name: results}))
    print(f"The report is {workdir / 'report' / 'index.html'}")


def _workdir(args) -> pathlib.Path:
    if args.workdir:
        return pathlib.Path(args.workdir).expanduser()
    given = FLAGS["config"].config_filename if args.config is not None else "codes"
    return pathlib.Path("runs") / pathlib.Path(given.split(":")[0]).stem


def main(argv) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step otherwise
    try:
        run(FLAGS)
    except (ValueError, RunError) as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
