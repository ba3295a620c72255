"""Retrieval against others, on one machine in one run; also growth and memory.

    python benchmarks/retrieval.py            # everything, about 20 minutes
    python benchmarks/retrieval.py --quick    # every target, 64 bits, under 4 minutes
    python benchmarks/retrieval.py --sections=map,search --repeats=3

Writes benchmarks/results/retrieval.json and .md, where sections that are not run stay
as they are. Every row runs ours and the other in
turn, `--repeats` times after one warm-up, and states medians; the ratio is the median
of the ratios of neighbours, which survives a busy machine better than the times.
A file that is read cold has left the page cache (`posix_fadvise`), as far as the system
obeys; a host below a virtual machine may hold it still.
Needs faiss-cpu and usearch for `search`, gcc for the bound of `map`.
"""

import argparse
import ctypes
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np

from modal_aware_jax.hashing.codes import num_words, unpack
from modal_aware_jax.retrieval import (
    HammingIndex,
    mean_average_precision,
    search,
)
from modal_aware_jax.retrieval.inputs import label_words, last_word_mask
from modal_aware_jax.retrieval.ranking import num_threads

HERE = Path(__file__).parent
SIZES = ((2000, 18_015, 24), (2100, 193_734, 81))
SECTIONS = ("map", "search", "compile", "growth", "memory", "stream", "gpu")


def random_data(queries, rows, num_bits, labels, seed=0):
    """Uniform codes, and labels of which 3 % (8 of 256) are set."""
    rng = np.random.default_rng(seed)
    mask = last_word_mask(num_bits)
    codes = [
        rng.integers(0, 2**32, (n, num_words(num_bits)), dtype=np.uint32) & mask
        for n in (queries, rows)
    ]
    tags = [
        (rng.integers(0, 256, (n, labels), np.uint8) < 8).view(np.uint8)
        for n in (queries, rows)
    ]
    return *codes, *tags


def paired(functions: dict, repeats: int) -> dict:
    """Wall and processor seconds [repeats, 2] of every function, called in turn."""
    seconds = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter(), time.process_time()
            function()
            stop = time.perf_counter(), time.process_time()
            seconds[name].append(np.subtract(stop, start))
    return {name: np.array(values) for name, values in seconds.items()}


def summary(seconds, ours, scale=None) -> dict:
    """Median seconds (wall, and of all cores), and median ratios of neighbours."""
    scale = scale or {}
    seconds = {name: values * scale.get(name, 1) for name, values in seconds.items()}
    row = {}
    for name, values in seconds.items():
        wall, cores = np.median(values, axis=0)
        row |= {f"{name} s": float(wall), f"{name} core s": float(cores)}
    for name, values in seconds.items():
        if name != ours:
            ratios = values / np.maximum(seconds[ours], 1e-9)
            row[f"{name} / {ours}"] = float(np.median(ratios[:, 0]))
    return row


def common_map(query, database, query_labels, database_labels):
    """The evaluator in common use: +-1 floats, dot product and argsort per query."""
    total, num_bits = 0.0, query.shape[1]
    for code, labels in zip(query, query_labels, strict=True):
        relevant = (labels @ database_labels.T > 0).astype(np.float32)
        distance = 0.5 * (num_bits - code @ database.T)
        relevant = relevant[np.argsort(distance)]
        found = int(relevant.sum())
        if found:
            ranks = np.flatnonzero(relevant == 1) + 1.0
            total += np.mean(np.arange(1, found + 1) / ranks)
    return total / len(query)


class Bound:
    """The C function of count_bound.c, compiled for this machine; one thread."""

    def __init__(self, query, database, query_labels, database_labels, num_bits):
        library = Path(tempfile.mkdtemp()) / "count_bound.so"
        source = HERE / "count_bound.c"
        options = ["-O3", "-march=native", "-shared", "-fPIC"]
        subprocess.run(["gcc", *options, source, "-o", library], check=True)
        self.function = ctypes.CDLL(str(library)).count_by_distance
        self.bins, self.rows = num_bits + 1, len(database)
        self.padded = -(-self.rows // 8) * 8
        self.codes = self.words(database, np.uint64, 2)
        self.labels = self.words(label_words(database_labels), np.uint32, 1)
        extra = -query.shape[1] % 2
        query = np.pad(query, ((0, 0), (0, extra)))
        self.query = np.ascontiguousarray(query).view(np.uint64)
        self.query_words = label_words(query_labels)

    def words(self, words, kind, multiple):
        extra = -words.shape[1] % multiple
        words = np.pad(words, ((0, self.padded - self.rows), (0, extra)))
        return np.ascontiguousarray(np.ascontiguousarray(words).view(kind).T)

    def counts(self) -> np.ndarray:
        """uint32 [Q, 2, K + 1], with the padding rows in it."""
        counts = np.empty((len(self.query), 2, self.bins), np.uint32)

        def pointer(array):
            return array.ctypes.data_as(ctypes.c_void_p)

        for i in range(len(counts)):
            self.function(
                pointer(self.codes),
                pointer(self.labels),
                ctypes.c_long(self.padded),
                len(self.codes),
                len(self.labels),
                pointer(self.query[i]),
                pointer(self.query_words[i]),
                self.bins,
                pointer(counts[i]),
            )
        return counts


def measure_map(options):
    rows = []
    for queries, database, labels in SIZES:
        for num_bits in options.bits:
            data = random_data(queries, database, num_bits, labels)
            some = max(2, min(queries, 2_000_000 // database))
            signs = [np.asarray(unpack(x, num_bits), np.float32) for x in data[:2]]
            floats = [x.astype(np.float32) for x in data[2:]]
            bound = Bound(*data, num_bits)
            functions = {
                "expected": lambda d=data, k=num_bits: mean_average_precision(
                    *d, num_bits=k
                ),
                "index": lambda d=data, k=num_bits: mean_average_precision(
                    *d, num_bits=k, ties="index"
                ),
                "NumPy": lambda s=signs, f=floats, n=some: common_map(
                    s[0][:n], s[1], f[0][:n], f[1]
                ),
                "C, 1 thread": bound.counts,
            }
            seconds = paired(functions, options.repeats)
            scaled = {"NumPy": queries / some}
            row = summary(seconds, "expected", scaled)
            ratios = seconds["NumPy"] * scaled["NumPy"] / seconds["index"]
            row["NumPy / index"] = float(np.median(ratios[:, 0]))
            sizes = {"queries": queries, "database": database, "bits": num_bits}
            rows.append({**sizes, "NumPy queries": some, **row})
            print(rows[-1], flush=True)
    return rows


def measure_search(options):
    import faiss
    from usearch.index import MetricKind
    from usearch.index import search as usearch_exact

    faiss.omp_set_num_threads(num_threads())
    rows = []
    for queries, database, _ in SIZES:
        for num_bits in options.bits:
            query, codes, *_ = random_data(queries, database, num_bits, 1)
            octets = query.view(np.uint8), codes.view(np.uint8)
            flat = faiss.IndexBinaryFlat(8 * octets[1].shape[1])
            flat.add(octets[1])
            for k in (100,) if options.quick else (1, 10, 100, 1000):
                some = max(2, min(queries, 10_000_000 // database))
                functions = {
                    "ours": lambda q=query, c=codes, k=k: search(q, c, k),
                    "FAISS flat": lambda q=octets[0], f=flat, k=k: f.search(q, k),
                    "usearch exact": lambda o=octets, k=k, n=some: usearch_exact(
                        o[1],
                        o[0][:n],
                        k,
                        MetricKind.Hamming,
                        exact=True,
                        threads=num_threads(),
                    ),
                }
                if k != 100:
                    del functions["usearch exact"]
                seconds = paired(functions, options.repeats)
                row = summary(seconds, "ours", {"usearch exact": queries / some})
                sizes = {"queries": queries, "database": database, "bits": num_bits}
                rows.append({**sizes, "k": k, **row})
                print(rows[-1], flush=True)
                found = search(query[:50], codes, k)[0]
                truth = flat.search(octets[0][:50], k)[0]
                np.testing.assert_array_equal(found, truth)
    return rows


def measure_compile(options):
    """First and second call in a fresh process, and a first call at a new N."""
    program = """
import sys, time
sys.path.insert(0, sys.argv[1])
from retrieval import mean_average_precision, random_data, search
import jax, numpy as np
jax.numpy.zeros(3).block_until_ready()
for name in ("map", "search"):
    for rows in (193_734, 193_734, 194_999):
        data = random_data(32, rows, 64, 81)
        start = time.perf_counter()
        if name == "map":
            mean_average_precision(*data, num_bits=64)
        else:
            search(data[0], data[1], 100)
        print(time.perf_counter() - start)
"""
    rows = []
    for _ in range(1 if options.quick else options.repeats):
        lines = subprocess.run(
            [sys.executable, "-c", program, str(HERE)],
            env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        rows.append([float(x) for x in lines])
    first_map, map_, new_map, first_search, search_, new_search = np.median(
        rows, axis=0
    )
    return [
        {"call": "MAP", "first s": first_map, "again s": map_, "new N s": new_map},
        {
            "call": "search",
            "first s": first_search,
            "again s": search_,
            "new N s": new_search,
        },
    ]


def measure_growth(options):
    rows = []
    shapes = [(100, n) for n in (10**4, 10**5, 10**6, 10**7)]
    shapes += [(q, 10**5) for q in (1, 10, 1000, 10_000)]
    if options.quick:
        shapes = [(q, n) for q, n in shapes if n <= 10**6 and q <= 1000]
    for queries, database in shapes:
        data = random_data(queries, database, 64, 24)
        functions = {
            "expected": lambda d=data: mean_average_precision(*d, num_bits=64),
            "index": lambda d=data: mean_average_precision(
                *d, num_bits=64, ties="index"
            ),
            "search": lambda d=data: search(d[0], d[1], 100),
        }
        seconds = paired(functions, options.repeats)
        row = summary(seconds, "expected")
        row = {name: x for name, x in row.items() if "/" not in name}
        per_pair = row["expected core s"] / (queries * database) * 1e9
        sizes = {"queries": queries, "database": database}
        rows.append({**sizes, **row, "expected core ns a pair": per_pair})
        print(rows[-1], flush=True)
    return rows


class Peak:
    """Peak resident memory while the block runs, above what was there, in MB."""

    def __enter__(self):
        self.start = self.peak = self.resident()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def resident(self):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    def watch(self):
        while not self.done.wait(0.002):
            self.peak = max(self.peak, self.resident())

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.added = self.peak - self.start


def measure_memory(options):
    rows = []
    shapes = [(100, 10**6), (10_000, 10**5), (20, 10**7)]
    if options.quick:
        shapes = shapes[-1:]
    for queries, database in shapes:
        data = random_data(queries, database, 64, 81)
        small = [x[:200] for x in data]
        row = {"queries": queries, "database": database}
        for name, function in (
            ("expected", lambda d: mean_average_precision(*d, num_bits=64)),
            ("index", lambda d: mean_average_precision(*d, num_bits=64, ties="index")),
            ("search", lambda d: search(d[0], d[1], min(100, len(d[1])))),
        ):
            function(small)
            with Peak() as peak:
                function(data)
            row[f"{name} MB"] = round(peak.added, 1)
        rows.append(row)
        print(rows[-1], flush=True)
    return rows


def read_through(path) -> int:
    """Reads a file from start to end in pieces of 16 MB."""
    piece, size = bytearray(2**24), 0
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(piece):
            size += count
    return size


def leave_the_cache(path):
    """Asks the system to forget the pages of a file that nobody has mapped."""
    handle = os.open(path, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def paired_cold(path, functions: dict, repeats: int) -> dict:
    """`paired` with the file read anew from the disk by every call."""

    def cold(function):
        leave_the_cache(path)
        start = time.perf_counter(), time.process_time()
        function()
        return np.subtract((time.perf_counter(), time.process_time()), start)

    seconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            seconds[name].append(cold(function))
    return {name: np.array(values) for name, values in seconds.items()}


def measure_stream(options):
    """A file of codes, read from the page cache and from the disk."""
    codes = 50_000_000
    rng = np.random.default_rng(0)
    index = HammingIndex(64)
    memory = rng.integers(0, 2**32, (codes, 2), dtype=np.uint32)
    index.add(memory)
    query = rng.integers(0, 2**32, (100, 2), dtype=np.uint32)
    rows = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as directory:
        path = Path(directory) / "index"
        index.save(path)
        del index

        def ours(some):
            HammingIndex.load(path, verify=False).search(some, 100)

        for queries in (1, 10, 100):
            functions = {
                "ours": lambda n=queries: ours(query[:n]),
                "read": lambda: read_through(path),
            }
            warm = dict(functions, memory=memory.max)
            for source, seconds in (
                ("page cache", paired(warm, options.repeats)),
                ("disk", paired_cold(path, functions, options.repeats)),
            ):
                row = {"queries": queries, "codes": codes, "from": source}
                row |= summary(seconds, "ours")
                for name in seconds:
                    row[f"{name} GB/s"] = 8 * codes / row[f"{name} s"] / 1e9
                rows.append(row)
                print(rows[-1], flush=True)
    return rows


def measure_gpu(options):
    """MAP and search on the default device, where that is no CPU."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        print("JAX sees no accelerator here: this section has no rows.", flush=True)
        return []
    rows = []
    for queries, database, labels in SIZES:
        for num_bits in options.bits:
            data = random_data(queries, database, num_bits, labels)
            functions = {
                "expected": lambda d=data, k=num_bits: mean_average_precision(
                    *d, num_bits=k
                ),
                "index": lambda d=data, k=num_bits: mean_average_precision(
                    *d, num_bits=k, ties="index"
                ),
                "search": lambda d=data: search(d[0], d[1], 100),
            }
            seconds = paired(functions, options.repeats)
            row = {
                f"{name} s": float(np.median(x[:, 0])) for name, x in seconds.items()
            }
            sizes = {"queries": queries, "database": database, "bits": num_bits}
            rows.append({"device": device.device_kind, **sizes, **row})
            print(rows[-1], flush=True)
    return rows


def targets(results) -> list[dict]:
    """What was aimed at, beside what the stored sections measured."""
    large = {"queries": 2100, "database": 193_734, "bits": 64}

    def value(section, column, **wanted):
        for row in results.get(section, {}).get("rows", []):
            if all(row.get(name) == x for name, x in wanted.items()):
                return row.get(column)
        return None

    def most(section, *columns):
        rows = results.get(section, {}).get("rows", [])
        return max((row[c] for row in rows for c in columns if c in row), default=None)

    lines = [
        ("MAP 'expected' 2,100 x 193,734, s", "<= 0.5", ("map", "expected s", large)),
        ("the same, NumPy / ours", ">= 150", ("map", "NumPy / expected", large)),
        (
            "the same, C on one core / ours",
            ">= 0.5",
            ("map", "C, 1 thread / expected", large),
        ),
        ("MAP 'index', s", "<= 4", ("map", "index s", large)),
        ("the same, NumPy / ours", ">= 20", ("map", "NumPy / index", large)),
        (
            "search k = 100, FAISS flat / ours",
            ">= 1.0",
            ("search", "FAISS flat / ours", {**large, "k": 100}),
        ),
        (
            "first MAP, with compiling, s",
            "<= 2",
            ("compile", "first s", {"call": "MAP"}),
        ),
        (
            "first search, with compiling, s",
            "<= 2",
            ("compile", "first s", {"call": "search"}),
        ),
    ]
    for queries in (1, 10, 100):
        for source in ("page cache", "disk"):
            row = {"queries": queries, "from": source}
            name = f"50 M codes, {queries} queries: reading / ours, from {source}"
            lines.append((name, ">= 0.5", ("stream", "read / ours", row)))
    rows = [
        {"target": name, "wanted": wanted, "measured": value(section, column, **row)}
        for name, wanted, (section, column, row) in lines
    ]
    peak = most("memory", "expected MB", "index MB", "search MB")
    rows.append(
        {"target": "memory above inputs, MB", "wanted": "<= 200", "measured": peak}
    )
    return [row for row in rows if row["measured"] is not None]


def processor() -> str:
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


def conditions(options) -> dict:
    def git(*arguments):
        command = ["git", "-C", str(HERE), *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    return {
        "commit": git("rev-parse", "--short", "HEAD"),
        "processor": processor(),
        "threads": num_threads(),
        "device": str(jax.devices()[0]),
        "load at start": os.getloadavg()[0],
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "repeats": options.repeats,
        **({"variant": "quick"} if options.quick else {}),
        **({"note": options.note} if options.note else {}),
    }


def table(rows) -> str:
    if not rows:
        return "no rows: nothing of this kind here\n"

    def text(value):
        if isinstance(value, str):
            return value
        return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"

    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [text(row[name]) if name in row else "" for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--bits", help="16,32,64,128; 64 with --quick")
    parser.add_argument("--repeats", type=int, help="5; 3 with --quick")
    parser.add_argument("--quick", action="store_true", help="the targets only")
    parser.add_argument("--scratch", help="directory for the file of `stream`")
    parser.add_argument("--output", default=str(HERE / "results"))
    parser.add_argument("--note", default="", help="said with the conditions")
    options = parser.parse_args()
    bits = options.bits or ("64" if options.quick else "16,32,64,128")
    options.bits = [int(x) for x in bits.split(",")]
    options.repeats = options.repeats or (3 if options.quick else 5)
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "retrieval.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    titles = {
        "map": "MAP over all ranks, all queries (NumPy: some queries, scaled)",
        "search": "Search, all queries, equal threads",
        "compile": "First calls, fresh process, 32 queries, N = 193,734, new N 194,999",
        "growth": "How time grows, 64 bits, 24 labels, k = 100",
        "memory": "Peak memory above the inputs, 64 bits, 81 labels",
        "stream": "A file of 64-bit codes, opened and searched, k = 100",
        "gpu": "On an accelerator",
    }
    for section in options.sections.split(","):
        print(f"== {section}", flush=True)
        said = conditions(options)
        rows = globals()[f"measure_{section}"](options)
        said["load at end"] = os.getloadavg()[0]
        results[section] = {"conditions": said, "rows": rows}
        path.write_text(json.dumps(results, indent=1) + "\n")
        parts = ["# Retrieval: measured by `python benchmarks/retrieval.py`\n"]
        parts.append(f"## Targets\n\n{table(targets(results))}")
        for name, title in titles.items():
            if name in results:
                said = results[name]["conditions"]
                said = "; ".join(f"{key} {value}" for key, value in said.items())
                parts.append(f"## {title}\n\n{table(results[name]['rows'])}\n{said}\n")
        (output / "retrieval.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
