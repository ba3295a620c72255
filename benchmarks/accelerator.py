"""The sections of `accelerator.sh` that have no script of their own, and the report.

    python benchmarks/accelerator.py evaluator --out=FOLDER [--tiny] [--budget=SECONDS]

Sections: `device` (what it is, its products and memory), `evaluator` (MAP over all
ranks), `search` (against the time it takes to read the codes once), `training` (a whole
run of the command line). Each writes FOLDER/SECTION.json. `report` joins what there is
to RESULTS/DEVICE.json and .md.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
from alternate import commit, num_cores, processor, table

HERE = pathlib.Path(__file__).parent
SECTIONS = ("device", "train_step", "copies", "evaluator", "search", "training")


def random_codes(rows, num_bits=64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**32, (rows, num_bits // 32), dtype=np.uint32)


def random_labels(rows, labels, seed=1):
    return (np.random.default_rng(seed).random((rows, labels), "f4") < 0.03).view(
        np.uint8
    )


def seconds_of(call, repeats=5) -> float:
    """The least time of a call after a first one, to the end of its work."""
    import jax

    jax.block_until_ready(call())
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        best = min(best, time.perf_counter() - start)
    return best


def bandwidth(tiny) -> float:
    """Bytes per second that an array is read and written with on the device."""
    import jax
    import jax.numpy as jnp

    x = jnp.zeros(2**22 if tiny else 2**28, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * x.nbytes / seconds_of(lambda: add(x))


def measure_device(options):
    import jax
    from train_step import matmul_rate

    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    dtypes = ("float32",) if on_cpu else ("float32", "bfloat16")
    return {
        "device": processor() if on_cpu else device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "processor": processor(),
        "cores": num_cores(),
        "jax": jax.__version__,
        "commit": commit(),
        "memory GB/s": bandwidth(options.tiny) / 1e9,
        **{f"product {d} TFLOP/s": matmul_rate(d) / 1e12 for d in dtypes},
    }


def measure_evaluator(options):
    """Queries are left out where the budget does not reach; the row says how many."""
    from modal_aware_jax.retrieval import mean_average_precision

    shapes = [(2100, 193_734, 81), (10_000, 10_000_000, 24)]
    if options.tiny:
        shapes = [(21, 1937, 81), (100, 20_000, 24)]
    rows, end = [], time.monotonic() + options.budget
    for number, (queries, database, labels) in enumerate(shapes):
        codes, tags = random_codes(database), random_labels(database, labels)
        query, query_tags = random_codes(queries, seed=2), tags[:queries]

        def score(some, query=query, tags=tags, query_tags=query_tags, codes=codes):
            start = time.perf_counter()
            mean_average_precision(
                query[:some], codes, query_tags[:some], tags, num_bits=64
            )
            return time.perf_counter() - start

        probe = min(64, queries)
        first, again = score(probe), score(probe)
        left = (end - time.monotonic()) / (len(shapes) - number)
        fitting = int(0.4 * left / max(again, 1e-6) * probe)  # run twice at most
        some = queries if fitting >= queries else max(probe, fitting)
        took = score(some)
        if took < 0.3 * left:
            took = min(took, score(some))
        rows.append(
            {
                "queries": queries,
                "database": database,
                "queries run": some,
                "first call s": first,
                "s": took * queries / some,
                "ns a pair": 1e9 * took / some / database,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def measure_search(options):
    """`search` from host arrays, and what it does on the device with codes there."""
    import jax

    from modal_aware_jax.retrieval import search

    rate, rows = bandwidth(options.tiny) / 2, []  # read only
    database = random_codes(20_000 if options.tiny else 10_000_000)
    end = time.monotonic() + options.budget
    for queries in (1, 10, 100):
        if time.monotonic() > end:
            break
        query = random_codes(queries, seed=3)
        bound = database.nbytes / (2 * rate)
        row = {"queries": queries, "database": len(database), "k": 100}
        row["reading the codes once ms"] = 1e3 * bound
        row["search ms"] = 1e3 * seconds_of(lambda q=query: search(q, database, 100), 2)
        try:
            row["on the device ms"] = 1e3 * on_device(query, database)
            row["on the device / reading once"] = row["on the device ms"] / 1e3 / bound
        except Exception as error:
            row["on the device"] = f"failed: {type(error).__name__}: {error}"[:200]
        row["device"] = jax.devices()[0].platform
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def on_device(query, database) -> float:
    """Seconds of the search inside a compiled program, everything in its memory."""
    import jax

    from modal_aware_jax.retrieval.top_k import nearest_on_device

    count = np.int32(len(database))
    find = jax.jit(nearest_on_device, static_argnames="k")
    codes, query = jax.device_put(database), jax.device_put(query)
    return seconds_of(lambda: find(query, codes, count, k=100), 3)


def measure_training(options):
    """The command line from data to report: MIR-Flickr where given, else the shapes."""
    import jax

    workdir = pathlib.Path(options.out) / "training_run"
    on_cpu = jax.default_backend() == "cpu"
    config = "flickr.py" if options.flickr else "shapes.py"
    command = [sys.executable, "-m", "modal_aware_jax.main"]
    command += [f"--config={HERE.parent / 'configs' / config}:bits=64"]
    command += [f"--workdir={workdir}"]
    if options.flickr:
        command += [f"--config.data.dir={options.flickr}"]
    if not on_cpu:
        command += [f"--config.training.workers={max(0, num_cores() - 2)}"]
    if options.tiny and not options.flickr:
        command += ["--config.data.options.num_pairs=200"]
        command += ["--config.data.num_queries=30", "--config.data.num_validation=30"]
        command += ["--config.data.num_train=100", "--config.training.batch_size=50"]
        command += ["--config.data.options.image_size=32"]
        command += ["--config.data.image_size=32", "--config.training.num_epochs=2"]
        command += ["--config.backbone.options.width=4"]
    command += options.training
    start = time.perf_counter()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    took = time.perf_counter() - start
    if done.returncode:
        last = [line for line in done.stdout.splitlines() if line.strip()][-1:]
        raise RuntimeError(f"status {done.returncode}: {''.join(last)}")
    with open(workdir / "metrics.csv") as file:
        speeds = [
            float(row["images_per_second"] or "nan") for row in csv.DictReader(file)
        ]
    with np.load(workdir / "codes.npz") as codes:
        queries, database = len(codes["query"]), len(codes["database"])
    history = json.loads((workdir / "report" / "history.json").read_text())["history"]
    metrics = json.loads((workdir / "report" / "metrics.json").read_text())
    (result,) = metrics.values()
    return [
        {
            "data": "MIR-Flickr 25k" if options.flickr else "shapes",
            "bits": 64,
            "epochs": len(history),
            "queries": queries,
            "database": database,
            "images/s": float(np.nanmedian(speeds)),
            "all s": took,
            "MAP": float(result["map_expected"]),
        }
    ]


def report(options):
    """Joins the sections; what is missing or failed is said."""
    folder = pathlib.Path(options.out)
    found = {}
    for section in SECTIONS:
        path = folder / f"{section}.json"
        found[section] = json.loads(path.read_text()) if path.exists() else None
    notes = folder / "failed.txt"
    failed = notes.read_text().splitlines() if notes.exists() else []
    device = found["device"] or {"device": "unknown device"}
    titles = {
        "train_step": "The training step",
        "copies": "Batches from the host against one on the device",
        "evaluator": "MAP over all ranks, 64 bits",
        "search": "Search, 64 bits, against reading the codes once",
        "training": "A whole training from the command line",
    }
    lines = [f"# {device['device']}", ""]
    told = (f"{x:,.3g}" if isinstance(x, float) else x for x in device.values())
    pairs = zip(device, told, strict=True)
    lines += [", ".join(f"{name} {value}" for name, value in pairs) + ".", ""]
    for section, title in titles.items():
        rows = found[section]
        if isinstance(rows, dict):  # of a script with conditions of its own
            rows = rows.get("rows", rows.get(section))
        lines += [f"## {title}", "", table(rows or [])]
    lines += [f"Failed: {line}" for line in failed]
    lines += ["", "Made by `benchmarks/accelerator.sh`.", ""]
    name = "-".join(device["device"].replace("(", " ").replace(")", " ").split())
    name += "-tiny" if options.tiny else ""
    results = pathlib.Path(options.results)
    results.mkdir(parents=True, exist_ok=True)
    found = {"failed": failed, **found}
    (results / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    (results / f"{name}.md").write_text("\n".join(lines))
    print("\n".join(lines))
    print(f"Wrote {results / name}.json and .md")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    own = ("device", "evaluator", "search", "training", "report")
    parser.add_argument("section", choices=own)
    parser.add_argument("--out", required=True, help="folder of the sections' files")
    parser.add_argument("--results", default=str(HERE / "results"))
    parser.add_argument("--budget", type=float, default=80, help="seconds")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--flickr", default="", help="a folder with MIR-Flickr 25k")
    options, options.training = parser.parse_known_args()
    if options.section == "report":
        return report(options)
    rows = globals()[f"measure_{options.section}"](options)
    path = pathlib.Path(options.out) / f"{options.section}.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
