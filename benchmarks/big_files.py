"""What large collections cost: seconds and memory of an index, and of a whole way.

    JAX_PLATFORMS=cpu python benchmarks/big_files.py [--codes=50000000] \\
        [--rows=10000,100000] [--place=FOLDER]

1. An index of so many codes of 64 bits, numbered, is written in blocks, opened by
   memory map without reading it, and searched for the 10 nearest of 16 queries.
2. A Parquet table of so many rows, pictures of 16 x 16 inside, with words and labels,
   is prepared, encoded by a narrow ResNet-18 that was not trained (its codes mean
   nothing), and indexed with text ids and saved.

Each step is a process of its own. Its memory is told twice: the peak of all pages
resident, which counts those of files that the system may drop, and those of its own at
the end. Writes `benchmarks/results/big_files.md` and `.json`.
"""

import argparse
import io
import json
import pathlib
import platform
import runpy
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = 1_000_000  # codes added at a time
FILE_ROWS = 50_000  # of a Parquet file
SIDE, NUM_BITS, BATCH = 16, 64, 500
WORDS = tuple(f"word{i}" for i in range(200))
LABELS = tuple("abcdefgh")


def memory() -> dict:
    """Peak of resident pages and own pages now, in MB."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return {
        "peak_mb": round(int(found["VmHWM"].split()[0]) / 1024),
        "own_mb": round(int(found["RssAnon"].split()[0]) / 1024),
    }


def write_index(place, count):
    """Adds random codes in blocks, saving after each."""
    from modal_aware_jax.retrieval.index import HammingIndex

    random, index = np.random.default_rng(0), HammingIndex(NUM_BITS)
    for start in range(0, count, BLOCK):
        rows = min(BLOCK, count - start)
        index.add(random.integers(0, 2**32, (rows, 2), np.uint32))
        index.save(place / "big.index")
    return {"bytes": (place / "big.index").stat().st_size}


def search_index(place, count):
    """Opens the index without reading its blocks, and searches it twice."""
    from modal_aware_jax.retrieval.index import HammingIndex

    start = time.perf_counter()
    index = HammingIndex.load(place / "big.index", verify=False)
    opened = time.perf_counter() - start
    assert len(index) == count
    queries = np.random.default_rng(1).integers(0, 2**32, (16, 2), np.uint32)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        distances, _ = index.search(queries, k=10)
        seconds.append(round(time.perf_counter() - start, 3))
    return {
        "open_s": round(opened, 3),
        "first_search_s": seconds[0],
        "search_s": seconds[1],
        "nearest": int(distances.min()),
    }


def write_table(place, count):
    """Parquet files as the Hugging Face hub has them, pictures inside."""
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    random = np.random.default_rng(2)
    (place / "data").mkdir(exist_ok=True)
    for start in range(0, count, FILE_ROWS):
        rows = []
        for number in range(start, min(start + FILE_ROWS, count)):
            pixels = random.integers(0, 256, (SIDE // 4, SIDE // 4, 3), np.uint8)
            picture = Image.fromarray(pixels).resize((SIDE, SIDE))
            jpeg = io.BytesIO()
            picture.save(jpeg, "JPEG")
            words = random.integers(0, len(WORDS), 5)
            rows.append(
                {
                    "id": f"{number:08d}",
                    "image": {"bytes": jpeg.getvalue(), "path": f"{number:08d}.jpg"},
                    "text": " ".join(WORDS[i] for i in words),
                    "labels": [LABELS[int(random.integers(len(LABELS)))]],
                }
            )
        table = pyarrow.Table.from_pylist(rows)
        path = place / "data" / f"train-{start // FILE_ROWS:05d}.parquet"
        pyarrow.parquet.write_table(table, path, row_group_size=1000)
    files = (place / "data").glob("*.parquet")
    return {"bytes": sum(path.stat().st_size for path in files)}


def config_of(place):
    """`configs/folder.py`, narrow and for tiny pictures."""
    get_config = runpy.run_path(str(ROOT / "configs" / "folder.py"))["get_config"]
    config = get_config()
    config.data.dir = str(place / "data")
    config.data.options.prepared_dir = str(place / "prepared")
    config.data.image_size = SIDE
    config.backbone.options.width = 8
    config.training.batch_size = BATCH
    return config


def prepare(place, count):
    """Reads the table, checks every picture, and keeps what was read."""
    from modal_aware_jax import build

    pairs = build.collection(config_of(place).data)
    assert len(pairs) == count
    files = (path for path in (place / "prepared").rglob("*") if path.is_file())
    return {"bytes": sum(path.stat().st_size for path in files)}


def encode(place, count):
    """Codes of all rows from what was prepared."""
    from modal_aware_jax import build
    from modal_aware_jax.modes.encoder import Encoder, variables_of

    experiment = build.experiment(config_of(place))
    encoder = Encoder(experiment)
    start = time.perf_counter()
    codes = encoder(variables_of(experiment.model), np.arange(count))
    rate = count / (time.perf_counter() - start)
    np.savez(place / "codes.npz", codes=codes, ids=experiment.collection.ids)
    return {"images_a_second": round(rate)}


def index(place, count):
    """The codes with their text ids, saved."""
    from modal_aware_jax.retrieval.index import HammingIndex

    with np.load(place / "codes.npz") as kept:
        made = HammingIndex(NUM_BITS)
        made.add(kept["codes"], ids=kept["ids"])
    made.save(place / "rows.index")
    assert len(HammingIndex.load(place / "rows.index")) == count
    return {"bytes": (place / "rows.index").stat().st_size}


STEPS = {
    function.__name__: function
    for function in (write_index, search_index, write_table, prepare, encode, index)
}


def run_step(name, place, count) -> dict:
    """A step in a process of its own: its seconds, memory and what it tells."""
    start = time.perf_counter()
    command = (sys.executable, __file__, f"--step={name}", f"--place={place}")
    done = subprocess.run(
        [*command, f"--codes={count}"], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = round(time.perf_counter() - start, 1)
    told = json.loads(done.stdout.splitlines()[-1])
    row = {"step": name, "count": count, "seconds": seconds, **told}
    print(json.dumps(row), flush=True)
    return row


def markdown(rows) -> str:
    """A table of the steps."""
    header = "| step | rows | seconds | peak MB | own MB at the end | more |"
    lines = [header, "|---|---|---|---|---|---|"]
    shown = ("step", "count", "seconds", "peak_mb", "own_mb")
    for row in rows:
        more = {key: value for key, value in row.items() if key not in shown}
        told = ", ".join(f"{k.replace('_', ' ')} {v:,}" for k, v in more.items())
        cells = [row["step"].replace("_", " "), f"{row['count']:,}"]
        cells += [f"{row[key]:,}" for key in shown[2:]]
        lines.append(f"| {' | '.join([*cells, told])} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", type=int, default=50_000_000)
    parser.add_argument("--rows", default="10000,100000")
    parser.add_argument("--place", default="", help="where the files go")
    parser.add_argument("--step", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        told = STEPS[args.step](pathlib.Path(args.place), args.codes)
        print(json.dumps({**memory(), **told}))
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=args.place or None) as folder:
        place = pathlib.Path(folder)
        if args.codes:
            for name in ("write_index", "search_index"):
                rows.append(run_step(name, place, args.codes))
            (place / "big.index").unlink()
        for count in (int(text) for text in args.rows.split(",") if text):
            own = place / f"rows{count}"
            own.mkdir()
            for name in ("write_table", "prepare", "encode", "index"):
                rows.append(run_step(name, own, count))
    from modal_aware_jax.compare.origin import provenance

    made = provenance()
    results = ROOT / "benchmarks" / "results"
    record = json.dumps({"rows": rows, "provenance": made}, indent=1)
    (results / "big_files.json").write_text(record + "\n")
    about = (
        f"\nMade by `benchmarks/big_files.py`, commit {made['commit']}; "
        f"{made['machine']}, {platform.machine()}. Steps are described there.\n"
    )
    (results / "big_files.md").write_text(markdown(rows) + about)


if __name__ == "__main__":
    main()
