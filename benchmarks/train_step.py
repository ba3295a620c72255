"""The full training step against the same network in PyTorch, in one run.

    python benchmarks/train_step.py --torch-python=PYTHON    # a Python with PyTorch
    python benchmarks/train_step.py --sizes=64 --batch=8 --forms=recommended \\
        --dtypes=float32 --rounds=3 --wide=512               # about a minute

ResNet-18 at 224 and at 128 pixels, a bag of 1,386 words to 8,192 and 512 features, two
modal-aware blocks, 64 bits, all triplets, Adam with coupled L2, the batch already on
the device. Each side is a process of its own, without a compilation cache; they take
turns. Forms of the blocks: `literal` (the paper's), `low_rank` (the same functions by a
smaller kernel network), `squeezed` (that one, and an attention of low rank),
`recommended` (weights of positions, squeezed attention). Modes of PyTorch: `eager`,
`channels_last`, `compile`; without PyTorch the rows have no ratios.

A row: images per second, compile time, peak memory, achieved FLOP/s of the step, its
convolutions counted as direct sums however they are done, and their share of the
device's peak, the ratios ours / PyTorch (below 1: ours is faster), and the share of the
step that the two blocks cost, from the same network without them. First of all, both
sides start from the same weights in a small network, and their losses and gradients
must agree. Writes OUT.json and OUT.md.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import pathlib
import sys
import tempfile
import time

import numpy as np
from alternate import (
    Child,
    ChildError,
    commit,
    compare,
    forget_peak,
    num_cores,
    processor,
    resident_peak,
    serve,
    table,
    take_turns,
    time_steps,
)

HERE = pathlib.Path(__file__).parent
FORMS = {  # their names among the package's blocks
    "recommended": "modal_aware",
    "squeezed": "modal_aware_squeezed",
    "low_rank": "modal_aware_low_rank",
    "literal": "modal_aware_paper",
}
SETTINGS = "XLA_FLAGS", "GLIBC_TUNABLES"  # of the environment, which speed depends on
WHOLE_BATCH = 256  # all triplets at once up to this batch, chunks above

# Data sheets: dense products, TFLOP/s of one JAX device, bfloat16 and float32 (which
# is TF32 on NVIDIA's from Ampere on, and bfloat16 passes on a TPU).
PEAKS = {
    "H100": (989, 495),
    "H200": (989, 495),
    "A100": (312, 156),
    "L4": (121, 60),
    "TPU v5 lite": (197, 197),
    "TPU v5p": (459, 459),
    "TPU v6 lite": (918, 918),
    "TPU v4": (275, 275),
    "TPU v3": (61.5, 61.5),
    "TPU v2": (22.5, 22.5),
}


# ---- our side, in the child ----


def network(spec):
    """`MultimodalHashing` with ResNet-18, as the spec says; form `none`: no blocks."""
    from flax import nnx

    from modal_aware_jax import MultimodalHashing, ResNet18
    from modal_aware_jax.build import BLOCKS
    from modal_aware_jax.experiment.precision import compute_in

    @nnx.jit
    def build():
        rngs = nnx.Rngs(0)
        model = MultimodalHashing(
            ResNet18(width=spec["width"], rngs=rngs),
            spec["words"],
            spec["bits"],
            text_widths=(spec["wide"], spec["narrow"]),
            block=BLOCKS[FORMS.get(spec["form"], "concat")],
            rngs=rngs,
        )
        return compute_in(model, spec["dtype"])

    return build()


class Trainer:
    """Compiles the training step of a spec and runs it on one random batch."""

    def __init__(self, spec):
        import jax
        import jax.numpy as jnp
        from flax import nnx

        from modal_aware_jax.losses.triplet import (
            triplet_ranking,
            triplet_ranking_chunked,
        )
        from modal_aware_jax.training import (
            adam_l2,
            init_state,
            make_update,
            split_model,
        )

        self.device = jax.devices()[0]
        ranking = triplet_ranking
        if spec["batch"] > WHOLE_BATCH:
            ranking = triplet_ranking_chunked

        def loss(model, batch, key):
            del key
            relaxed = model(batch["images"], batch["text"], train=True)
            return ranking(jnp.tanh(relaxed.astype(jnp.float32)), batch["labels"])

        graphdef, params, stats = split_model(network(spec))
        if spec.get("save"):
            flat = nnx.traversals.flatten_mapping(params)
            named = {".".join(map(str, path)): value for path, value in flat.items()}
            np.savez(spec["save"], **named)
        tx = adam_l2(1e-4)
        self.state = jax.device_put(init_state(params, stats, tx), self.device)
        del params, stats
        with np.load(spec["data"]) as data:
            self.batch = jax.device_put(dict(data), self.device)
        self.key = jax.random.key(0)
        update = make_update(graphdef, loss, tx)
        start = time.perf_counter()
        traced = update.trace(self.state, self.batch, self.key)
        lowered = traced.lower()
        self.lower_s = time.perf_counter() - start
        start = time.perf_counter()
        self.update = lowered.compile()
        self.compile_s = time.perf_counter() - start
        # Of the program for a GPU before its optimisation: every convolution is the
        # direct sum, nothing hides in library calls, and no loop counts only once.
        program = traced.lower(lowering_platforms=("cuda",))
        self.flops = (program.cost_analysis() or {}).get("flops", 0)

    def step(self):
        self.state, metrics = self.update(self.state, self.batch, self.key)
        return metrics

    def wait(self, metrics):
        """The loss, once the whole step is done."""
        self.state.params["head"]["dense"]["bias"].block_until_ready()
        return float(metrics["loss"])

    def peak_bytes(self):
        stats = self.device.memory_stats() or {}
        return stats.get("peak_bytes_in_use") or resident_peak()


def matmul_rate(dtype):
    """FLOP/s of a large matrix product on this device: the best of five."""
    import jax
    import jax.numpy as jnp

    size = 2048 if jax.default_backend() == "cpu" else 8192
    a = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def serve_ours():
    trainer = None

    def answer(request):
        nonlocal trainer
        if "where" in request:
            import jax

            device = jax.devices()[0]
            kind = device.device_kind
            kind = processor() if device.platform == "cpu" else kind
            return {"platform": device.platform, "kind": kind, "jax": jax.__version__}
        if dtype := request.get("matmul"):
            return {"flops_per_s": matmul_rate(dtype)}
        if spec := request.get("build"):
            trainer = Trainer(spec)
            metrics = trainer.step()
            return {
                "compile_s": trainer.compile_s,
                "lower_s": trainer.lower_s,
                "flops": trainer.flops,
                "loss": float(metrics["loss"]),
                "gradient_norm": float(metrics["gradient_norm"]),
            }
        if "peak" in request:
            return {"peak_bytes": trainer.peak_bytes()}
        if "forget" in request:
            forget_peak()
            return {}
        return time_steps(trainer.step, trainer.wait, request["steps"])

    serve(answer)


# ---- the comparison, in the parent ----


def save_batch(spec, path):
    """Random images, bags of 4.5 words on average, and 24 labels."""
    rng = np.random.default_rng(0)
    batch, size = spec["batch"], spec["size"]
    np.savez(
        path,
        images=rng.standard_normal((batch, size, size, 3), np.float32),
        text=(rng.random((batch, spec["words"])) < 4.5 / spec["words"]).astype("f4"),
        labels=(rng.random((batch, 24)) < 0.12).astype(np.uint8),
    )


def ours_child(options):
    environment = {
        "JAX_ENABLE_COMPILATION_CACHE": "false",  # compile times are a column
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # PyTorch wants memory too
    }
    command = [sys.executable, __file__, "--serve"]
    return Child(command, patience=options.patience, environment=environment)


def torch_child(options):
    command = [options.torch_python, HERE / "torch_network.py"]
    return Child(command, patience=options.patience)


def check_same_network(options, folder):
    """Raises unless loss and gradient agree from the same weights, for every form."""
    small = {"size": 64, "batch": 12, "wide": 48, "narrow": 24, "words": 100}
    small |= {"bits": 16, "width": 8, "dtype": "float32", "mode": "channels_last"}
    save_batch(small, folder / "data.npz")
    small |= {"data": str(folder / "data.npz")}
    worst, where = 0.0, str(folder / "weights.npz")
    with ours_child(options) as ours, torch_child(options) as theirs:
        for form in options.forms:
            a = ours.ask(build={**small, "form": form, "save": where})
            b = theirs.ask(build={**small, "form": form, "weights": where})
            for name in ("loss", "gradient_norm"):
                worst = max(worst, abs(a[name] / b[name] - 1))
            # Some steps of Adam later: the same rates, decay and signs of the gradient.
            a, b = (child.ask(steps=2)["loss"] for child in (ours, theirs))
            worst = max(worst, abs(a / b - 1))
    if not worst < 1e-4:
        raise ValueError(f"The networks differ: loss or gradient by {worst:.2%}.")
    return worst


def measure_row(options, spec, folder, rates):
    """One row: every side built, then in turns."""
    save_batch(spec, folder / "data.npz")
    spec = {**spec, "data": str(folder / "data.npz")}
    row = {name: spec[name] for name in ("size", "form", "dtype", "batch")}
    children, built, notes = {}, {}, {}
    with contextlib.ExitStack() as stack:
        sides = {"ours": {**spec}, "no blocks": {**spec, "form": "none"}}
        if options.torch_python:
            sides |= {mode: {**spec, "mode": mode} for mode in options.torch_modes}
        for name, side in sides.items():
            try:
                start = torch_child if "mode" in side else ours_child
                child = stack.enter_context(start(options))
                built[name] = child.ask(build=side)
                child.ask(forget=True)  # of what compiling took
                child.ask(steps=1)
                children[name] = child
            except ChildError as error:
                if name == "ours":
                    raise
                notes[name] = str(error)
        answers = take_turns(
            children, rounds=options.rounds, steps=options.steps, budget=options.budget
        )
        peaks = {
            name: child.ask(peak=True)["peak_bytes"] for name, child in children.items()
        }
    result = compare(answers, "ours")
    cores = compare(answers, "ours", "cores")
    seconds = result["seconds"]
    flops = built["ours"]["flops"] / seconds["ours"]
    row |= {
        "images/s": spec["batch"] / seconds["ours"],
        "step ms": 1e3 * seconds["ours"],
        "compile s": built["ours"]["compile_s"],
        "peak GB": peaks["ours"] / 1e9,
        "TFLOP/s": flops / 1e12,
        "of a product": flops / rates[spec["dtype"]],
        "of the data sheet": None,
    }
    for kind, peak in PEAKS.items():
        if kind in options.where["kind"]:
            row["of the data sheet"] = flops / 1e12 / peak[spec["dtype"] == "float32"]
    for mode in options.torch_modes if options.torch_python else ():
        row[f"/ {mode}"] = result["ratio"].get(mode)
        row[f"{mode} GB"] = peaks[mode] / 1e9 if mode in peaks else None
        if mode in built:
            notes["torch"] = built[mode]["torch"]
    if "no blocks" in seconds:
        row["blocks' share"] = 1 - 1 / result["ratio"]["no blocks"]
    row["rounds"] = len(answers["ours"])
    detail = {
        "seconds": seconds,
        "core seconds": cores["seconds"],
        "ratio of cores": cores["ratio"],
        "flops a step": built["ours"]["flops"],
        "built": built,
    }
    return row, {**detail, "peak bytes": peaks, "notes": notes}


def measure(options):
    result = {"rows": [], "details": [], "failed": []}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        with ours_child(options) as child:
            options.where = child.ask(where=True)
            rates = {d: child.ask(matmul=d)["flops_per_s"] for d in options.dtypes}
        on_cpu = options.where["platform"] == "cpu"
        options.batch = options.batch or (16 if on_cpu else 256)
        options.steps = options.steps or (1 if on_cpu else 10)
        result["conditions"] = {
            **options.where,
            "commit": commit(),
            "cores": num_cores(),
            "load average": os.getloadavg()[0],
            "environment": {name: os.environ.get(name, "") for name in SETTINGS},
            "product TFLOP/s": {d: rate / 1e12 for d, rate in rates.items()},
            "network": f"{options.words} -> {options.wide} -> {options.narrow} text, "
            f"ResNet-18 of width {options.width}, {options.bits} bits",
        }
        if options.torch_python and not options.no_check:
            worst = check_same_network(options, folder)
            result["conditions"]["same network"] = (
                f"loss and gradient within {worst:.1e}"
            )
        names = "width", "wide", "narrow", "words", "bits", "batch"
        shared = {name: getattr(options, name) for name in names}
        for size, form, dtype in itertools.product(
            options.sizes, options.forms, options.dtypes
        ):
            spec = {**shared, "size": size, "form": form, "dtype": dtype}
            try:
                row, detail = measure_row(options, spec, folder, rates)
            except ChildError as error:
                result["failed"].append({**spec, "error": str(error)})
                print(json.dumps(result["failed"][-1]), flush=True)
                continue
            result["rows"].append(row)
            result["details"].append(detail)
            print(json.dumps(row), flush=True)
            if options.out:
                write(result, pathlib.Path(options.out))
    return result


def describe(result) -> str:
    said = result["conditions"]
    product = ", ".join(f"{d} {x:.3g}" for d, x in said["product TFLOP/s"].items())
    lines = [
        "# The training step beside PyTorch's",
        "",
        f"{said['kind']} ({said['platform']}, {said['cores']} cores, load "
        f"{said['load average']:.1f}), jax {said['jax']}"
        + "".join(
            f", torch {notes['torch']}"
            for notes in [d["notes"] for d in result["details"]][:1]
            if "torch" in notes
        )
        + f", commit {said['commit']}; {said['network']}. "
        + "".join(
            f"`{name}={value}`. "
            for name, value in said["environment"].items()
            if value
        )
        + (
            f"Both sides from the same weights: {said['same network']}. "
            if "same network" in said
            else ""
        )
        + f"TFLOP/s of a large matrix product here: {product}. Medians of rounds in "
        "turn; `/ mode` is ours / PyTorch in that mode, median over rounds (below 1: "
        "ours is faster). `blocks' share` is what the two modal-aware blocks cost of "
        "the step.",
        "",
        table(result["rows"]),
    ]
    for failed in result["failed"]:
        lines.append(f"Failed: {json.dumps(failed)}")
    for row, detail in zip(result["rows"], result["details"], strict=True):
        for name, note in detail["notes"].items():
            if name != "torch":
                lines.append(
                    f"{row['size']} {row['form']} {row['dtype']}, {name}: {note}"
                )
    return "\n".join(lines) + "\nMade by `benchmarks/train_step.py`.\n"


def write(result, out):
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(describe(result))


def words(text):
    return [word for word in text.split(",") if word]


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = sys.executable if importlib.util.find_spec("torch") else ""
    parser.add_argument("--torch-python", default=here, help="a Python with PyTorch")
    parser.add_argument(
        "--torch-modes", type=words, default="eager,channels_last,compile"
    )
    parser.add_argument("--sizes", type=words, default="224,128")
    parser.add_argument("--forms", type=words, default=",".join(FORMS))
    parser.add_argument("--dtypes", type=words, default="float32,bfloat16")
    parser.add_argument("--batch", type=int, help="default: 16 on a CPU, else 256")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, help="of a turn: 1 on a CPU, else 10")
    parser.add_argument("--budget", type=float, default=120, help="s of turns a row")
    parser.add_argument("--patience", type=float, default=600, help="s for an answer")
    parser.add_argument("--width", type=int, default=64, help="of ResNet-18")
    parser.add_argument("--wide", type=int, default=8192)
    parser.add_argument("--narrow", type=int, default=512)
    parser.add_argument("--words", type=int, default=1386)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--no-check", action="store_true", help="of equal networks")
    parser.add_argument("--out", default=str(HERE / "results" / "train_step"))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.sizes = [int(size) for size in options.sizes]
    for given, known in (
        (options.forms, FORMS),
        (options.torch_modes, ("eager", "channels_last", "compile")),
        (options.dtypes, ("float32", "bfloat16")),
    ):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return options


def main():
    options = parse()
    if options.serve:
        return serve_ours()
    result = measure(options)
    if options.out:
        write(result, pathlib.Path(options.out))
    print(describe(result))


if __name__ == "__main__":
    main()
