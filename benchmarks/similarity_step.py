"""SG-MFT's similarity interaction and fusion beside PyTorch: forward and backward.

    python benchmarks/similarity_step.py --torch-python=PYTHON

One `SimilarityInteraction` and one `SimilarityFusion` on tokens of texts of different
lengths and of images, the gradients of all weights and of both inputs. The same
equations in PyTorch (its fused attention where there is one), with our weights: losses
and gradients must agree to 1e-3 of their norm first. Each side is a process of its own;
they take turns, and a row has the median over rounds of neighbours in time, by the
clock and by the time of all cores. Writes results/similarity_step.json and .md.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np
from alternate import (
    Child,
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

OUT = pathlib.Path(__file__).parent / "results" / "similarity_step"
CLOSE = 1e-3


class Ours:
    """Built of a spec; `step` gives the loss and all gradients."""

    def __init__(self, spec):
        import jax
        from flax import nnx

        from modal_aware_jax.blocks.similarity_interaction import SimilarityInteraction
        from modal_aware_jax.fusion import SimilarityFusion

        class Both(nnx.Module):
            def __init__(self, rngs):
                sizes = spec["features"], spec["heads"]
                hidden = 4 * spec["features"]
                self.interaction = SimilarityInteraction(*sizes, hidden, rngs=rngs)
                self.fusion = SimilarityFusion(*sizes, rngs=rngs)

        graphdef, params = nnx.split(Both(nnx.Rngs(0)))
        params = nnx.to_pure_dict(params)
        with np.load(spec["inputs"]) as arrays:
            text, image, mask = (
                jax.device_put(arrays[name]) for name in ("text", "image", "mask")
            )

        def loss(params, text, image):
            model = nnx.merge(graphdef, params)
            text, image = model.interaction(text, image, text_mask=mask)
            return (model.fusion(text, image, text_mask=mask) ** 2).sum()

        leaves = jax.tree.leaves_with_path(params)
        flat = {
            jax.tree_util.keystr(p, simple=True, separator="."): x for p, x in leaves
        }
        np.savez(spec["weights"], **flat)
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
        self.step = lambda: step(params, text, image)
        self.version = f"jax {jax.__version__}"

    def wait(self, outcome):
        import jax

        return float(jax.block_until_ready(outcome)[0])

    def numbers(self, outcome):
        value, (weights, text, image) = outcome
        found = {"loss": value, "text": text, "image": image}
        query = weights["interaction"]["text_cross"]["attention"]["query"]["kernel"]
        return found | {"weights": np.asarray(query).T}


class Theirs:
    """The same in PyTorch, filled with the weights that `Ours` left."""

    def __init__(self, spec):
        import torch
        from torch import nn
        from torch.nn import functional
        from torch_network import carry_over

        torch.set_num_threads(num_cores())
        torch.set_flush_denormal(True)  # as XLA does
        width, heads = spec["features"], spec["heads"]

        class Attention(nn.Module):
            def __init__(self):
                super().__init__()
                self.query, self.value, self.out = (
                    nn.Linear(width, width) for _ in range(3)
                )
                self.key = nn.Linear(width, width, bias=False)

            def forward(self, queries, context, mask=None):
                def cut(x):
                    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)

                mixed = functional.scaled_dot_product_attention(
                    cut(self.query(queries)),
                    cut(self.key(context)),
                    cut(self.value(context)),
                    attn_mask=None if mask is None else mask[:, None, None, :],
                )
                return self.out(mixed.transpose(1, 2).flatten(2))

        class Asking(nn.Module):
            def __init__(self):
                super().__init__()
                self.attention = Attention()

        class FeedForward(nn.Module):
            def __init__(self, guided):
                super().__init__()
                self.inner = nn.Linear(width, 4 * width)
                self.outer = nn.Linear(4 * width, width)
                if guided:
                    self.guide = nn.Linear(width, 4 * width, bias=False)

        class Pair(nn.Module):
            def __init__(self):
                super().__init__()
                self.text, self.image = FeedForward(True), FeedForward(False)

        def norm():
            return nn.LayerNorm(width, eps=1e-6)

        def mean(text, mask):
            return (text * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

        class Interaction(nn.Module):
            def __init__(self):
                super().__init__()
                self.text_self, self.image_self = Attention(), Attention()
                self.text_cross, self.image_cross = Asking(), Asking()
                self.text_norm, self.image_norm = norm(), norm()
                self.text_out_norm, self.image_out_norm = norm(), norm()
                self.feed_forward = Pair()

            def forward(self, text, image, mask):
                there = mask[..., None]
                text = text * there
                share = (mean(text, mask) * image.mean(1)).softmax(-1)[:, None]
                read = self.text_cross.attention(text, image)
                own = self.text_self(text, text, mask)
                words = self.text_norm(read * share + own * (1 - share) + text)
                read = self.image_cross.attention(image, text, mask)
                own = self.image_self(image, image)
                places = self.image_norm(read * share + own * (1 - share) + image)
                alike = (text @ image.transpose(1, 2)).softmax(-1) @ places
                layers = self.feed_forward.text
                inner = layers.inner(words) + layers.guide(alike)
                words = self.text_out_norm(words + layers.outer(inner.relu()))
                layers = self.feed_forward.image
                inner = layers.inner(places).relu()
                return words * there, self.image_out_norm(places + layers.outer(inner))

        class Cross(nn.Module):
            def __init__(self):
                super().__init__()
                self.text_attention, self.image_attention = Attention(), Attention()
                self.text_norm, self.image_norm = norm(), norm()

            def forward(self, text, image, mask):
                by_text = self.text_attention(text, image)
                by_image = self.image_attention(image, text, mask)
                return self.text_norm(text + by_text), self.image_norm(image + by_image)

        class Fusion(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.ModuleList(Cross() for _ in range(2))

            def forward(self, text, image, mask):
                for layer in self.layers:
                    text, image = layer(text, image, mask)
                return mean(text, mask) + image.mean(1)

        class Both(nn.Module):
            def __init__(self):
                super().__init__()
                self.interaction, self.fusion = Interaction(), Fusion()

            def forward(self, text, image, mask):
                return self.fusion(*self.interaction(text, image, mask), mask)

        self.model = Both()
        carry_over(self.model, spec["weights"])
        with np.load(spec["inputs"]) as arrays:
            self.text, self.image = (
                torch.from_numpy(arrays[name]).requires_grad_()
                for name in ("text", "image")
            )
            self.mask = torch.from_numpy(arrays["mask"])
        self.version = f"torch {torch.__version__}"

    def step(self):
        self.model.zero_grad(set_to_none=True)
        self.text.grad = self.image.grad = None
        loss = (self.model(self.text, self.image, self.mask) ** 2).sum()
        loss.backward()
        return loss.detach()

    def wait(self, outcome):
        return float(outcome)

    def numbers(self, outcome):
        query = self.model.interaction.text_cross.attention.query.weight.grad
        found = {"text": self.text.grad, "image": self.image.grad, "weights": query}
        return {"loss": outcome} | found


def serve_side(side):
    """Builds what is asked for, leaves its numbers in a file, then runs steps."""
    runner = None

    def answer(request):
        nonlocal runner
        if spec := request.get("build"):
            runner = side(spec)
            outcome = runner.step()
            runner.wait(outcome)
            found = runner.numbers(outcome)
            np.savez(spec["numbers"], **{k: np.asarray(v) for k, v in found.items()})
            return {"version": runner.version}
        if request.get("peak"):
            forget_peak()
            before = resident_peak()
            runner.wait(runner.step())
            return {"peak": resident_peak(), "before": before}
        return time_steps(runner.step, runner.wait, request["steps"])

    serve(answer)


def inputs_of(options, path):
    """Random tokens; texts have between half of S and S of them."""
    random, (batch, words) = np.random.default_rng(0), (options.batch, options.words)

    def tokens(count):
        shape = (batch, count, options.features)
        # Small, as after a layer: the element similarity has no scale.
        return 0.2 * random.standard_normal(shape, np.float32)

    ends = random.integers(words // 2, words + 1, batch)
    mask = np.arange(words) < ends[:, None]
    np.savez(path, text=tokens(words), image=tokens(options.places), mask=mask)


def apart(folder):
    """How far each array is off, its difference's norm over its own.

    Where the input of a ReLU is 0 but for rounding, the sides fall either way and one
    token's gradient is off by a thousandth: 1e-4 of the norm.
    """
    with np.load(folder / "ours.npz") as ours, np.load(folder / "theirs.npz") as theirs:
        return {
            name: float(
                np.linalg.norm(ours[name] - theirs[name]) / np.linalg.norm(theirs[name])
            )
            for name in ours.files
        }


def measure(options, folder):
    """The row, and all that it is of."""
    spec = {"features": options.features, "heads": options.heads}
    spec |= {name: str(folder / f"{name}.npz") for name in ("inputs", "weights")}
    inputs_of(options, folder / "inputs.npz")
    pythons = {"ours": sys.executable, "theirs": options.torch_python}
    commands = {k: [p, __file__, f"--serve={k}"] for k, p in pythons.items()}
    with Child(commands["ours"]) as ours, Child(commands["theirs"]) as theirs:
        children, built = {"ours": ours, "theirs": theirs}, {}
        for side, child in children.items():  # ours first: it leaves the weights
            numbers = str(folder / f"{side}.npz")
            built[side] = child.ask(build=spec | {"numbers": numbers})["version"]
        differences = apart(folder)
        if not max(differences.values()) < CLOSE:
            raise SystemExit(f"The sides differ: {differences}.")
        answers = take_turns(
            children, rounds=options.rounds, steps=options.steps, budget=options.budget
        )
        memory = {side: child.ask(peak=True) for side, child in children.items()}
    clock, cores = compare(answers, "ours"), compare(answers, "ours", "cores")
    row = {
        "B": options.batch,
        "S": options.words,
        "M": options.places,
        "D": options.features,
        "heads": options.heads,
        "ours ms": 1e3 * clock["seconds"]["ours"],
        "PyTorch ms": 1e3 * clock["seconds"]["theirs"],
        "ours / PyTorch": clock["ratio"]["theirs"],
        "by cores' time": cores["ratio"]["theirs"],
        "ours MB": memory["ours"]["peak"] / 1e6,
        "PyTorch MB": memory["theirs"]["peak"] / 1e6,
        "rounds": len(answers["ours"]),
    }
    return row, {
        "versions": built,
        "differences": differences,
        "answers": answers,
        "memory": memory,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", choices=["ours", "theirs"])
    parser.add_argument("--torch-python", help="a Python with torch")
    for name, value in (("batch", 20), ("words", 64), ("places", 49)):
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, value in (("features", 512), ("heads", 8), ("rounds", 9), ("steps", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--budget", type=float, default=240, help="seconds")
    options = parser.parse_args()
    if options.serve:
        serve_side(Ours if options.serve == "ours" else Theirs)
        return
    if not options.torch_python:
        parser.error("--torch-python is needed: a Python with torch")
    with tempfile.TemporaryDirectory() as folder:
        row, details = measure(options, pathlib.Path(folder))
    made = {"processor": processor(), "cores": num_cores(), "commit": commit()}
    record = {"row": row, **made, **details}
    OUT.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    versions = ", ".join(details["versions"].values())
    far = max(details["differences"].values())
    text = (
        f"{table([row])}\n{made['processor']}, cores: {made['cores']}; {versions}, "
        f"commit {made['commit']}. One interaction and one fusion, forward and backward"
        " to all weights and both inputs, the same weights on both sides; loss and "
        f"gradients differ by {far:.1g} of their norm at most. Medians of rounds in "
        "turn, the ratio over rounds (below 1: ours is faster); MB is what a process "
        "held at most during a step, its libraries too. Made by "
        "`benchmarks/similarity_step.py`.\n"
    )
    OUT.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
