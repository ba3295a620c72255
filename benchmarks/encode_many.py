"""What encoding in bulk costs, and what 10^8 and 10^9 items would.

    python benchmarks/encode_many.py --model=runs/x/export --workers=2

`throughput`: pairs per second of one exported model on the same generated photographs,
by `--mode=encode` on the prepared collection, by encode_many in one process from
shards, and on Ray with so many workers (0: none); sides take turns, medians. Beside the
seconds stands the processor time of the process and of all that it started, which other
work on the machine changes less: pairs per second of a core. On Ray both count the
start of the workers, which load JAX and compile; more pairs make less of it. `scale`:
bytes and seconds by these rates, and by the searching rates in results/retrieval.json.
Writes OUT.json and OUT.md.
"""

import argparse
import io
import json
import os
import pathlib
import statistics
import tarfile
import tempfile
import threading
import time

import numpy as np
from alternate import commit, num_cores, processor, table
from PIL import Image

from modal_aware_jax.data import folder
from modal_aware_jax.encode_many.on_ray import Actors
from modal_aware_jax.encode_many.run import encode_many
from modal_aware_jax.modes.encode import encode_with_model
from modal_aware_jax.modes.model_files import load_model_file

HERE = pathlib.Path(__file__).parent


def write_shards(directory, words, *, pairs, shards, size):
    """Smooth random photographs with three words each, in WebDataset shards."""
    rng = np.random.default_rng(0)
    for shard in range(shards):
        with tarfile.open(directory / f"{shard:04}.tar", "w") as archive:
            for i in range(shard, pairs, shards):
                small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
                picture = Image.fromarray(small).resize((size * 4 // 3, size))
                buffer = io.BytesIO()
                picture.save(buffer, "JPEG", quality=90)
                text = " ".join(rng.choice(words, 3))
                for kind, content in (
                    ("jpg", buffer.getvalue()),
                    ("txt", text.encode()),
                ):
                    member = tarfile.TarInfo(f"{i:08}.{kind}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


class ProcessorTime:
    """Seconds of processor time of this process and its descendants, within a context.

    Workers may end before they can be asked, so all are asked a few times a second.

    Attributes:
      seconds: at the end.
    """

    def __enter__(self):
        self._before, self._seen = self._times(), {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._done.set()
        self._thread.join()
        before = self._before
        self.seconds = sum(t - before.get(p, 0.0) for p, t in self._seen.items())

    def _watch(self):
        more = True
        while more:
            more = not self._done.wait(0.2)
            self._seen.update(self._times())

    @staticmethod
    def _times() -> dict[tuple, float]:
        parents, times, tick = {}, {}, os.sysconf("SC_CLK_TCK")
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:  # it ended
                continue
            process = int(path.parent.name)
            parents[process] = int(fields[1])
            times[process] = fields[19], (int(fields[11]) + int(fields[12])) / tick
        found = {}
        for process, (start, seconds) in times.items():
            above = process
            while above > 1 and above != os.getpid():
                above = parents.get(above, 0)
            if above == os.getpid():
                found[process, start] = seconds
        return found


def throughput(options, directory) -> list[dict]:
    model_path = pathlib.Path(options.model)
    model = load_model_file(model_path)
    shards = directory / "shards"
    shards.mkdir()
    write_shards(
        shards,
        np.array(model.vocabulary),
        pairs=options.pairs,
        shards=options.shards,
        size=options.size,
    )
    prepared = dict(prepared_dir=directory / "cache", progress=False)
    pairs = folder.load(
        shards, vocabulary=model.vocabulary, allow_empty_text=True, **prepared
    )
    rounds = iter(range(10**6))

    def whole():
        encode_with_model(model, pairs, directory, batch_size=100)

    def bulk(actors=None):
        output = str(directory / f"codes-{next(rounds)}")
        encode_many([str(shards)], model_path, output, actors=actors)

    sides = {"--mode=encode": whole, "encode_many": bulk}
    if options.workers:
        actors = Actors(options.workers, cpus=num_cores() / options.workers / 2)
        sides[f"encode_many, Ray, {options.workers} workers"] = lambda: bulk(actors)
    seconds = {name: [] for name in sides}
    processor_time = {name: [] for name in sides}
    for turn in range(options.rounds + 1):  # the first compiles, and starts Ray
        for name, side in sides.items():
            start = time.monotonic()
            with ProcessorTime() as used:
                side()
            if turn:
                seconds[name].append(time.monotonic() - start)
                processor_time[name].append(used.seconds)
    first = statistics.median(seconds["--mode=encode"])
    first_used = statistics.median(processor_time["--mode=encode"])
    return [
        {
            "way": name,
            "pairs": options.pairs,
            "seconds": statistics.median(times),
            "pairs/s": options.pairs / statistics.median(times),
            "of --mode=encode": first / statistics.median(times),
            "CPU s": statistics.median(processor_time[name]),
            "a core, of --mode=encode": first_used
            / statistics.median(processor_time[name]),
        }
        for name, times in seconds.items()
    ]


def scale(rate, stream) -> list[dict]:
    """Of 64-bit codes with 8 bytes of id; `rate` in pairs/s of this machine."""
    one = next(r for r in stream if r["queries"] == 1 and r["from"] == "page cache")
    hundred = next(
        r for r in stream if r["queries"] == 100 and r["from"] == "page cache"
    )
    rows = []
    for items in (10**8, 10**9):
        times = items / one["codes"]
        rows.append(
            {
                "items": items,
                "codes, GB": items * 8 / 1e9,
                "codes and ids, GB": items * 16 / 1e9,
                "encoding, machine-days": items / rate / 86400,
                "machines to encode in a day": -(-items // int(rate * 86400)),
                "one query, exact, s": one["ours s"] * times,
                "a query of 100 together, exact, s": hundred["ours s"] * times / 100,
            }
        )
    return rows


STORES = """\
A `HammingIndex` file, opened as a memory map, answers exactly at the rates above;
shared out over machines, each searches its part. Ids that are texts take their own
length more. Where many write at once, or other columns filter the search: LanceDB
(`--lance`) keeps the codes in object storage and scans them exactly; PostgreSQL with
pgvector (`HammingIndex.to_postgres`) finds most of the nearest by HNSW, whose graph
takes more memory than codes as short as these. Encoding is what takes machines; GPUs
(`--gpus_a_worker`) are not measured here.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="an exported folder")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--size", type=int, default=240, help="pixels of a short side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", default=str(HERE / "results" / "encode_many"))
    options = parser.parse_args()
    conditions = {
        "commit": commit(),
        "processor": processor(),
        "cores": num_cores(),
        "load at start": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory() as directory:
        rows = throughput(options, pathlib.Path(directory))
    conditions["load at end"] = os.getloadavg()[0]
    stream = json.loads((HERE / "results" / "retrieval.json").read_text())["stream"]
    rates = [row["pairs/s"] for row in rows if row["way"].startswith("encode_many")]
    sizes = scale(max(rates), stream["rows"])
    result = {"conditions": conditions, "throughput": rows, "scale": sizes}
    text = (
        "# Encoding in bulk: measured by `python benchmarks/encode_many.py`\n\n"
        f"{table(rows)}\n"
        + "; ".join(f"{k} {v}" for k, v in conditions.items())
        + "\n\n## 10^8 and 10^9 items, 64 bits, machines like this one\n\n"
        f"{table(sizes)}\n"
        "Searching by `retrieval.md` (50 M codes in the page cache, two cores), "
        "multiplied.\n\n" + STORES
    )
    pathlib.Path(f"{options.out}.json").write_text(json.dumps(result, indent=1))
    pathlib.Path(f"{options.out}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
