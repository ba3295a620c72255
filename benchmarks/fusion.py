"""Compact bilinear pooling, forward and backward: this package beside PyTorch.

    python benchmarks/fusion.py --torch-python=/path/to/python/with/torch

PyTorch runs in a process of its own, under the interpreter given, on the same arrays;
the two sides take turns, a round each, so that whatever else the machine does hits
both. Writes benchmarks/results/fusion_cpu.{json,md}.

Rows: `raw` is the convolution of the two sketches, `module` adds signed square root and
L2 normalisation. PyTorch: `index_add_` sketches and `torch.fft.rfft`, with autograd.

At 16,000 features the module's temporaries (38 MB) pass the 32 MB up to which glibc
recycles memory, and page faults take about half of its time. With
MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_MMAP_THRESHOLD_=1000000000 they disappear;
the committed table is without.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import numpy as np

FEATURES = (8_000, 16_000)
ROWS = ("raw", "module")
BATCH, INPUTS = 100, 512


def arrays(features):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, BATCH, INPUTS)).astype(np.float32)
    index = rng.integers(0, features, (2, INPUTS))
    sign = rng.choice(np.array([-1, 1], np.float32), (2, INPUTS))
    weight = rng.normal(size=(BATCH, features)).astype(np.float32)
    return a, b, index[0], sign[0], index[1], sign[1], weight


def jax_steps():
    """(row, features) -> a function that runs one step and returns both gradients."""
    import jax
    import jax.numpy as jnp

    from modal_aware_jax.fusion.compact_bilinear import (
        compact_bilinear,
        l2_normalize,
        signed_sqrt,
    )

    def step(row, features):
        a, b, *tables, weight = (jnp.asarray(x) for x in arrays(features))

        def loss(a, b):
            fused = compact_bilinear(a, b, *tables, features)
            if row == "module":
                fused = l2_normalize(signed_sqrt(fused))
            return jnp.sum(fused * weight)

        grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        return lambda: jax.block_until_ready(grad(a, b))[1]

    return {(row, n): step(row, n) for n in FEATURES for row in ROWS}


def torch_steps(threads):
    import torch

    torch.set_num_threads(threads)

    def sketch(x, index, sign, features):
        return torch.zeros(BATCH, features).index_add_(1, index, x * sign)

    def step(row, features):
        a, b, h, s, g, t, weight = (torch.from_numpy(x) for x in arrays(features))
        a.requires_grad_()
        b.requires_grad_()

        def run():
            a.grad = b.grad = None
            fused = torch.fft.irfft(
                torch.fft.rfft(sketch(a, h, s, features))
                * torch.fft.rfft(sketch(b, g, t, features)),
                n=features,
            )
            if row == "module":
                fused = torch.sign(fused) * torch.sqrt(torch.abs(fused) + 1e-10)
                fused = torch.nn.functional.normalize(fused)
            torch.sum(fused * weight).backward()
            return a.grad.numpy(), b.grad.numpy()

        return run

    return {(row, n): step(row, n) for n in FEATURES for row in ROWS}


def serve(threads):
    """The PyTorch side: answers each request line 'row features rounds' with times."""
    import torch

    steps = torch_steps(threads)
    print(json.dumps({"version": torch.__version__}), flush=True)
    for line in sys.stdin:
        row, features, rounds = line.split()
        answer = time_rounds(steps[row, int(features)], int(rounds))
        print(json.dumps(answer), flush=True)


def time_rounds(step, rounds):
    """Milliseconds of each round: wall clock, and processor time of this process."""
    wall, processor = [], []
    for _ in range(rounds):
        start, start_processor = time.perf_counter(), time.process_time()
        gradients = step()
        wall.append(1e3 * (time.perf_counter() - start))
        processor.append(1e3 * (time.process_time() - start_processor))
    probe = [float(np.abs(np.asarray(g)).sum()) for g in gradients]
    return {"wall": wall, "processor": processor, "probe": probe}


def measure(torch_python, threads, turns, rounds):
    import jax

    command = [torch_python, __file__, "--serve", f"--threads={threads}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:

        def ask(row, features, rounds):
            print(row, features, rounds, file=other.stdin, flush=True)
            return json.loads(other.stdout.readline())

        torch_version = json.loads(other.stdout.readline())["version"]
        steps, rows = jax_steps(), []
        for (row, features), step in steps.items():
            ours, theirs = time_rounds(step, 3), ask(row, features, 3)  # warm up
            np.testing.assert_allclose(ours["probe"], theirs["probe"], rtol=1e-2)
            pairs = [
                (time_rounds(step, rounds), ask(row, features, rounds))
                for _ in range(turns)
            ]
            result = {"row": row, "features": features}
            for clock in ("wall", "processor"):
                jax_ms = [statistics.median(ours[clock]) for ours, _ in pairs]
                torch_ms = [statistics.median(theirs[clock]) for _, theirs in pairs]
                result[clock] = {
                    "jax_ms": statistics.median(jax_ms),
                    "torch_ms": statistics.median(torch_ms),
                    "ratio": statistics.median(
                        j / t for j, t in zip(jax_ms, torch_ms, strict=True)
                    ),
                }
            rows.append(result)
            print(json.dumps(result))
        other.stdin.close()
    return {
        "jax": jax.__version__,
        "torch": torch_version,
        "processor": processor_name(),
        "threads": threads,
        "load_average": os.getloadavg()[0],
        "batch": BATCH,
        "inputs": INPUTS,
        "turns": turns,
        "rounds": rounds,
        "rows": rows,
    }


def processor_name():
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def table(result):
    lines = [
        "# Compact bilinear pooling on a CPU, forward + backward",
        "",
        f"Batch {result['batch']}, {result['inputs']} + {result['inputs']} inputs, "
        f"float32, {result['threads']} thread(s), {result['processor']}, "
        f"jax {result['jax']}, torch {result['torch']}; load average "
        f"{result['load_average']:.1f}. Median of {result['turns']} alternating turns "
        f"of {result['rounds']} rounds; the ratio is the median over turns of JAX / "
        "PyTorch (below 1: JAX is faster).",
        "",
        "| row | features | JAX ms | PyTorch ms | ratio | JAX CPU ms | PyTorch CPU ms "
        "| CPU ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        cells = [row["row"], f"{row['features']:,}"]
        for clock in ("wall", "processor"):
            values = row[clock]
            cells += [f"{values['jax_ms']:.1f}", f"{values['torch_ms']:.1f}"]
            cells += [f"**{values['ratio']:.2f}**"]
        lines.append("| " + " | ".join(cells) + " |")
    command = "python benchmarks/fusion.py --torch-python=PYTHON"
    return "\n".join(
        [*lines, "", f"Made by `{command} --threads={result['threads']}`."]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="a Python that has PyTorch")
    parser.add_argument("--threads", type=int, default=1, help="of both sides")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default="benchmarks/results/fusion_cpu")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.threads)
    if not options.torch_python:
        parser.error("--torch-python=PATH is needed: a Python that has PyTorch.")
    # XLA sizes its thread pool by the processors this process may use.
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[-options.threads :])
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    result = measure(
        options.torch_python, options.threads, options.turns, options.rounds
    )
    out = pathlib.Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(table(result) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
