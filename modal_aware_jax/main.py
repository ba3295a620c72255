"""Train, evaluate, encode, search, serve, predict and export from the command line.

    python -m modal_aware_jax.main --config=configs/shapes.py --workdir=runs/shapes
    python -m modal_aware_jax.main --config=... --workdir=... --mode=evaluate
    python -m modal_aware_jax.main --mode=evaluate --codes=FILE.npz
    python -m modal_aware_jax.main --config=... --workdir=... --mode=encode
    python -m modal_aware_jax.main --config=... --workdir=... --mode=search \\
        --image=photo.jpg --text="beach sunset" --k=10
    python -m modal_aware_jax.main --config=... --workdir=... --mode=serve
    python -m modal_aware_jax.main --config=... --workdir=... --mode=predict \\
        --image=photo.jpg --text="what a day"
    python -m modal_aware_jax.main --config=... --workdir=... --mode=export
    python -m modal_aware_jax.main --config=DATA --mode=encode --model=runs/x/export

Modes:
  train     train to the end (from the last checkpoint where there is one), evaluate
            the test queries with the last checkpoint, write WORKDIR/report/.
  evaluate  a run's checkpoint against its split; or, with --codes, codes made
            elsewhere (see retrieval/codes_file.py for what the file holds).
  encode    the whole collection to WORKDIR/encoded.npz (codes, ids, labels).
  search    an image file and/or a text against the collection, which is indexed on
            first use (WORKDIR/collection-STEP.index); prints the ranked ids and writes
            WORKDIR/search.png. A run of the task matching is asked with one of both,
            for pictures or for sentences: --target=image|text.
  serve     a page and a JSON interface to search the collection, to add items and to
            remove them, at http://127.0.0.1:8000 (--port; other machines are let in by
            --host and --token); --index=FILE serves an index of your own.
  predict   the class of a new post, an image file and/or a text, or of all posts of
            --table=FOLDER_OR_FILE; by a run of the task classification. Prints a line
            for each and writes ids and probabilities to WORKDIR/predicted.csv.
  export    a run's encoder to WORKDIR/export/: a program that runs with JAX alone,
            the weights as safetensors, and config.json.

encode, search, serve and predict take an exported model instead of a run:
--model=FOLDER, or one of the files in it. Of the config they read the data section and
the batch size then.

All devices take part. Several processes train, evaluate and encode together when each
runs the same command, on the same data and a workdir that all of them see:

    ... --coordinator=HOST:1234 --num_processes=2 --process_id=0    (the other one: 1)
    ... --distributed    where SLURM, GKE, Open MPI or a TPU pod tells them all this

Codes that were trained with --config.model.nested_bits are codes of these lengths, too:
evaluate, encode, search and export take --bits=B, and write under names that end in -B.

Any value of the config can be changed: --config.model.num_bits=32.
"""

import os
import pathlib

from absl import flags

from modal_aware_jax import cli
from modal_aware_jax.data.problems import shorten
from modal_aware_jax.training.processes import is_first, start
from modal_aware_jax.training.workdir import check_output

MODES = ("train", "evaluate", "encode", "search", "serve", "predict", "export")
# Which modes read a flag; any other would take it and do nothing with it.
READ_BY = {
    "codes": ("evaluate", "search"),
    "index": ("search", "serve"),
    "output": ("encode", "search", "predict", "export"),
    "image": ("search", "predict"),
    "text": ("search", "predict"),
    "table": ("predict",),
    "target": ("search",),
    "k": ("search",),
    "bits": ("train", "evaluate", "encode", "search", "serve", "export"),
    "host": ("serve",),
    "port": ("serve",),
    "token": ("serve",),
}

flags.adopt_module_key_flags(cli)  # --help shows them
flags.DEFINE_enum("mode", "train", MODES, "What to do; see above.")
flags.DEFINE_string("step", "latest", "A checkpoint: 'latest', 'best' or a step.")
flags.DEFINE_integer(
    "bits",
    None,
    "Of a run with nested codes: the first so many.",
    lower_bound=1,
    allow_override=True,  # the comparison, in the same notebook, takes several
)
flags.DEFINE_string("codes", None, "evaluate, search: codes made elsewhere, .npz.")
flags.DEFINE_string("index", None, "search (by --codes), serve: an index of your own.")
flags.DEFINE_string("model", None, "Instead of a run: an exported model.")
flags.DEFINE_string("output", None, "The file or folder to write.")
flags.DEFINE_string("image", None, "search, predict: an image file.")
flags.DEFINE_string("text", "", "search, predict: tags or text.")
flags.DEFINE_string("table", None, "predict: a folder or table of posts.")
flags.DEFINE_enum(
    "target", "", ("", "image", "text"), "search, task matching: what is searched."
)
flags.DEFINE_integer("k", 10, "search: how many results.", lower_bound=1)
flags.DEFINE_string("host", "127.0.0.1", "serve: the address to listen at.")
flags.DEFINE_integer("port", 8000, "serve: the port; 0: any.", lower_bound=0)
flags.DEFINE_string("token", "", "serve: what a request must bring.")
flags.DEFINE_bool("distributed", False, "Several processes, found in the environment.")
flags.DEFINE_string("coordinator", None, "Several processes: HOST:PORT of the first.")
flags.DEFINE_integer("num_processes", None, "Several processes: how many.")
flags.DEFINE_integer("process_id", None, "Several processes: which, from 0.")


def run(args) -> None:
    """Calls the function of the mode and prints what it found."""
    from modal_aware_jax import build, modes
    from modal_aware_jax.report import format_results

    _check_step(args)
    _check_flags(args)
    if args.mode != "export" and args.output:  # an export is a folder
        check_output(_path(args.output))
    _join_processes(args)
    workdir = _workdir(args)
    if args.mode == "evaluate" and args.codes:
        codes = pathlib.Path(args.codes).expanduser()
        results = modes.evaluate_codes_file(codes, workdir)
        print(format_results({pathlib.Path(args.codes).stem: results}))
        return
    if args.mode == "serve":
        _serve(args, workdir)
        return
    if args.mode == "predict":
        _predict(args, workdir)
        return
    if args.index:
        _search_index(args)
        return
    config = cli.needed_config(args)
    if args.mode == "search":
        _check_query(args, config)
    if args.model:
        _run_model(args, workdir)
        return
    if args.mode in ("search", "export"):
        with config.unlocked():
            config.training.cached_maps = False
    experiment = build.experiment(config)
    if args.bits is not None:
        if args.mode == "train":
            raise ValueError(
                "--bits takes a part of trained codes; for --mode=train say the length "
                "with --config.model.num_bits."
            )
        experiment = build.shortened(experiment, args.bits)
    if args.mode in ("encode", "search"):
        experiment = modes.with_every_item(experiment, config.data)
    step, output = _step(args), _path(args.output)
    if args.mode == "train":
        results = modes.train(experiment, workdir)
    elif args.mode == "evaluate":
        results = modes.evaluate_run(experiment, workdir, step=step)
    elif args.mode == "encode":
        path = modes.encode_collection(experiment, workdir, step=step, output=output)
        if is_first():
            print(f"Wrote {path}")
        return
    elif args.mode == "export":
        print(
            f"Wrote {modes.export_run(experiment, workdir, step=step, output=output)}"
        )
        return
    else:
        _search_run(args, experiment, workdir)
        return
    if is_first():
        print(experiment.task.text({experiment.name: results}))
        print(f"The report is {workdir / 'report' / 'index.html'}")


def _check_query(args, config) -> None:
    """Refuses what cannot be searched for, before anything is read or built."""
    from modal_aware_jax import build, modes

    task, image = build.task_of(config), _path(args.image)
    if task.embeddings is not None and not args.model:
        modes.check_one_query(image, args.text, task.name)
    elif args.target:
        raise ValueError(
            "--target is for runs of the task matching; the codes of "
            f"{task.name} are of pairs."
        )
    else:
        modes.check_query(image, args.text)
    if image is not None:
        modes.read_query_image(image, 1)


def _search_run(args, experiment, workdir) -> None:
    """Ranks the collection of a run, by codes or by embeddings."""
    from modal_aware_jax import modes

    query = {"image": _path(args.image), "words": args.text, "k": args.k}
    query["step"] = _step(args)
    if experiment.task.embeddings is None:
        _print_found(modes.search_run(experiment, workdir, **query), workdir)
        return
    found = modes.search_embeddings(experiment, workdir, target=args.target, **query)
    for row in found:
        caption = shorten(" / ".join(row["caption"].split("\n")))
        print(f"{row['rank']:4} {row['cosine']:6.3f}  {row['id']}  {caption}")
    print(f"The picture is {workdir / 'search.png'}")


def _search_index(args) -> None:
    """Ranks the codes of an index file for codes made elsewhere."""
    from modal_aware_jax import modes

    distances, ids = modes.search_index_file(
        _path(args.index), _path(args.codes), k=args.k, output=_path(args.output)
    )
    for i, (near, found) in enumerate(zip(distances, ids, strict=True)):
        ranked = zip(found.tolist(), near.tolist(), strict=True)
        print(f"{i:4}", "  ".join(f"{id_} ({distance})" for id_, distance in ranked))


def _join_processes(args) -> None:
    given = (args.coordinator, args.num_processes, args.process_id)
    if not args.distributed and given == (None, None, None):
        return
    if args.model or args.codes or args.mode not in ("train", "evaluate", "encode"):
        raise ValueError(
            "Several processes train, evaluate and encode a run together; for "
            f"--mode={args.mode} as you asked for it start one process."
        )
    start(*given)


def _run_model(args, workdir) -> None:
    """Encodes or searches the data of the config with an exported model."""
    from modal_aware_jax import build, modes

    if args.mode not in ("encode", "search"):
        raise ValueError(
            f"--model is for --mode=encode, search and serve, not {args.mode}: an "
            "exported model has neither a split nor an optimiser."
        )
    model = modes.load_model_file(pathlib.Path(args.model))
    options = _reading_options(args.config)
    pairs = build.every_item(args.config.data, model.vocabulary)
    if args.mode == "encode":
        options["output"] = _path(args.output)
        path = modes.encode_with_model(model, pairs, workdir, **options)
        print(f"Wrote {path}")
        return
    workdir.mkdir(parents=True, exist_ok=True)
    query = {"image": _path(args.image), "words": args.text, "k": args.k}
    found = modes.search_with_model(model, pairs, workdir, **query, **options)
    _print_found(found, workdir)


def _serve(args, workdir) -> None:
    """Serves a run or an exported model until it is stopped."""
    try:
        from modal_aware_jax.serve.run import check_place, open_socket, serve
    except ImportError as error:
        raise ValueError(
            f"--mode=serve needs {error.name}: pip install 'modal-aware-jax[serve]'."
        ) from error
    from modal_aware_jax import build, modes

    token = args.token or os.environ.get("MODAL_AWARE_TOKEN")
    check_place(args.host, token)
    with open_socket(args.host, args.port) as listening:
        index = _path(args.index)
        if args.model:
            model = modes.load_model_file(pathlib.Path(args.model))
            pairs, options = None, {}
            if args.config is not None:
                pairs = build.every_item(args.config.data, model.vocabulary)
                options = _reading_options(args.config)
            service = modes.service_of_model(
                model, pairs, workdir, index=index, **options
            )
        else:
            config = cli.needed_config(args)
            with config.unlocked():
                config.training.cached_maps = False
            experiment = build.experiment(config)
            if args.bits is not None:
                experiment = build.shortened(experiment, args.bits)
            experiment = modes.with_every_item(experiment, config.data)
            options = {"step": _step(args), "index": index}
            service = modes.service_of_run(experiment, workdir, **options)
        serve(service, listening, token)


def _predict(args, workdir) -> None:
    """Predicts new posts by a run or by an exported model."""
    from modal_aware_jax import build, modes

    options = {} if args.config is None else args.config.data.get("options", {})
    posts = modes.posts_to_predict(
        _path(args.image),
        args.text,
        _path(args.table),
        image_column=options.get("image_column"),
        text_column=options.get("text_column"),
    )
    if args.model:
        model = modes.load_model_file(pathlib.Path(args.model))
        predictor = modes.predictor_of_model(model)
    else:
        config = cli.needed_config(args)
        modes.need_classes(build.task_of(config).name)
        with config.unlocked():
            config.training.cached_maps = False
        experiment = build.experiment(config)
        predictor = modes.predictor_of_run(experiment, workdir, step=_step(args))
    predictions = []
    for found in modes.predict(predictor, posts):
        print(modes.line_of(found), flush=True)
        predictions.append(found)
    output = _path(args.output) or workdir / "predicted.csv"
    modes.write_predictions_table(output, predictions, predictor.class_names)
    print(f"Wrote {output}")


def _check_step(args) -> None:
    of_a_run = not (args.model or args.codes or args.mode == "train")
    if args.step != "latest" and not of_a_run:
        raise ValueError(
            "--step names a checkpoint of a run: leave it out with --mode=train, "
            "--model and --codes."
        )


def _check_flags(args) -> None:
    """Refuses flags that what is asked for does not read."""
    for name, modes in READ_BY.items():
        if args.mode not in modes and _is_given(args, name):
            words = " and ".join(filter(None, (", ".join(modes[:-1]), modes[-1])))
            raise ValueError(
                f"--{name} is for --mode={words}, not {args.mode}: leave it out."
            )
    if args.model and _is_given(args, "bits"):
        raise ValueError(
            "--bits is for a run: export it so, --mode=export --bits=B, and take that "
            "model."
        )
    if args.codes and _is_given(args, "bits"):
        raise ValueError("--bits is for a run; codes of --codes have a length already.")
    if args.mode != "search":
        return
    if args.index:
        for name in ("image", "text", "target", "model"):
            if _is_given(args, name):
                raise ValueError(
                    f"--index is searched by --codes=FILE.npz, not with --{name}. "
                    "Leave one of both out; --mode=serve --model=FOLDER --index=FILE "
                    "searches it by pictures and words."
                )
    elif args.codes:
        raise ValueError("--codes are searched for in an index: name it, --index=FILE.")
    elif args.output:
        raise ValueError(
            "--output is for a search by --index and --codes; any other prints what it "
            "found, and draws search.png in --workdir."
        )


def _is_given(args, name) -> bool:
    return getattr(args, name, None) not in (None, "", flags.FLAGS[name].default)


def _step(args) -> int | str:
    return int(args.step) if args.step.isdigit() else args.step


def _path(given: str | None) -> pathlib.Path | None:
    return pathlib.Path(given).expanduser() if given else None


def _reading_options(config) -> dict:
    return {
        "batch_size": config.training.batch_size or 100,
        "workers": config.training.workers,
    }


def _print_found(found, workdir) -> None:
    for row in found:
        labels = ", ".join(row["labels"])
        row = {**row, "caption": shorten(row["caption"])}  # on one line
        print("{rank:4} {distance:4}  {id}  {caption}".format(**row), f"[{labels}]")
    print(f"The picture is {workdir / 'search.png'}")


def _workdir(args) -> pathlib.Path:
    if args.workdir:
        return pathlib.Path(args.workdir).expanduser()
    given = args["config"].config_filename if args.config is not None else "codes"
    return pathlib.Path("runs") / pathlib.Path(given.split(":")[0]).stem


if __name__ == "__main__":
    cli.start(run)
