"""Our transformer encoders against the transformers library's, on the same cores.

    python benchmarks/encoders.py --torch-python=PYTHON   # torch and transformers there
    python benchmarks/encoders.py --torch-python=PYTHON --cases=smoke --rounds=2

Both sides read the same random weights from one folder, as that library saves it, and
their outputs must agree to 1e-4 first (float32). Each is a process of its own; they
take turns. A row: images or sentences a second of ours, milliseconds of a call, and the
ratio ours / theirs (below 1: ours is faster), the median over rounds of neighbours in
time, by the clock and by the time of all cores. `mobilenet-v2` at 160 pixels is that of
`configs/flickr8k.py`, in PyTorch `torch_mobilenet.py`, its norms folded. `sentences`
stands for 5,000 sentences of the lengths of Flickr8k's, sorted by length: eight of
their batches, padded to the lengths of `backbones/word_pieces.py` on our side and to
the longest of the batch on theirs. `encode` reads a batch without gradients; `step` is
forward, backward and Adam on the mean of the squared tokens. Modes of PyTorch: `eager`
and `compile`.
Writes OUT.json and OUT.md.
"""

import argparse
import contextlib
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
    num_cores,
    processor,
    serve,
    table,
    take_turns,
    time_steps,
)

SHAPES = {  # of config.json; what it leaves out is the library's default, "base"
    "minilm": {
        "model_type": "bert",
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "intermediate_size": 1536,
    },
    "bert-base": {"model_type": "bert"},
    "vit-b16": {"model_type": "vit"},
    "mobilenet-v2": {"model_type": "mobilenet", "image_size": 160},
    "tiny-bert": {
        "model_type": "bert",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 100,
    },
    "tiny-vit": {
        "model_type": "vit",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 32,
    },
}
SORTED = -1  # batches of sentences of many lengths
NUM_SENTENCES, NUM_BATCHES = 5000, 8
# Name: network, what is done, batch, word pieces of a text (0: images).
CASES = {
    "mobilenet-v2-encode": ("mobilenet-v2", "encode", 64, 0),
    "sentences-encode": ("minilm", "encode", 32, SORTED),
    "minilm-encode": ("minilm", "encode", 32, 32),
    "vit-b16-encode": ("vit-b16", "encode", 8, 0),
    "bert-base-encode": ("bert-base", "encode", 8, 32),
    "vit-b16-step": ("vit-b16", "step", 8, 0),
    "bert-base-step": ("bert-base", "step", 8, 32),
    "tiny-bert-encode": ("tiny-bert", "encode", 4, 8),
    "tiny-bert-step": ("tiny-bert", "step", 4, 8),
    "tiny-vit-step": ("tiny-vit", "step", 2, 0),
}
SETS = {
    "all": [name for name in CASES if "tiny" not in name],
    "smoke": [name for name in CASES if "tiny" in name],
}
RATE = 1e-5
DROPOUTS = "hidden_dropout_prob", "attention_probs_dropout_prob"


# ---- our side, in the child ----


class Ours:
    def __init__(self, spec):
        import jax
        import jax.numpy as jnp
        import optax
        from flax import nnx

        model = our_model(spec)
        graphdef, self.weights = nnx.split(model)
        self.weights = nnx.to_pure_dict(self.weights)
        batches = read_batches(spec["inputs"], padded_length)
        self.batches = [jax.device_put(inputs) for inputs in batches]
        self.inputs = self.batches[0]

        def tokens(weights, inputs):
            model = nnx.merge(graphdef, weights)
            if spec["kind"] != "mobilenet":
                return model(*inputs).astype(jnp.float32)
            maps = model(*inputs, train=False)["conv5"].astype(jnp.float32)
            return maps.reshape(len(maps), -1, maps.shape[-1])

        def loss(weights, inputs):
            return (tokens(weights, inputs) ** 2).mean()

        tx = optax.adam(RATE)

        def update(weights, moments, inputs):
            value, gradients = jax.value_and_grad(loss)(weights, inputs)
            updates, moments = tx.update(gradients, moments, weights)
            return optax.apply_updates(weights, updates), moments, value

        start = time.perf_counter()
        self.moments = None
        encode = jax.jit(tokens)
        if spec["what"] == "encode":
            self._calls = [
                encode.lower(self.weights, inputs).compile() for inputs in self.batches
            ]
        else:
            self.moments = jax.jit(tx.init)(self.weights)
            arguments = self.weights, self.moments, self.inputs
            self._call = jax.jit(update, donate_argnums=(0, 1)).lower(*arguments)
            self._call = self._call.compile()
        self.compile_s = time.perf_counter() - start
        made = [np.asarray(encode(self.weights, inputs)) for inputs in self.batches]
        self.tokens = there(made, batches)

    def step(self):
        if self.moments is None:
            calls = zip(self._calls, self.batches, strict=True)
            return [call(self.weights, inputs) for call, inputs in calls][-1]
        self.weights, self.moments, value = self._call(
            self.weights, self.moments, self.inputs
        )
        return value

    def wait(self, outcome):
        return float(outcome.ravel()[0])


def our_model(spec):
    """The network of a spec with the weights of its folder."""
    import jax.numpy as jnp
    from flax import nnx

    from modal_aware_jax.backbones import MobileNetV2, from_pretrained
    from modal_aware_jax.backbones.pretrained import load_mobilenet_v2

    dtype = jnp.dtype(spec["dtype"])
    if spec["kind"] != "mobilenet":
        return from_pretrained(spec["folder"], dtype=dtype)
    model = MobileNetV2(dtype=dtype, rngs=nnx.Rngs(0))
    load_mobilenet_v2(model, f"{spec['folder']}/model.safetensors")
    return model


def padded_length(longest):
    from modal_aware_jax.backbones.word_pieces import LENGTHS

    return next(length for length in LENGTHS if length >= longest)


# ---- both sides ----


def read_batches(path, length_of):
    """Batches of a file, a list of arrays each; sorted sentences cut to a length.

    Args:
      path: of images [B, H, W, 3], of ids and mask [B, S], or [n, B, S] of n batches.
      length_of: from the longest sentence of a batch to the length that it gets.
    """
    with np.load(path) as kept:
        arrays = [kept[name] for name in sorted(kept)]
    if arrays[0].ndim != 3:
        return [arrays]
    return [
        [array[:, : length_of(int(mask.sum(axis=1).max()))] for array in (ids, mask)]
        for ids, mask in zip(*arrays, strict=True)
    ]


def there(tokens, batches):
    """All tokens of batches but those of padding, [n, D]."""
    kept = []
    for some, inputs in zip(tokens, batches, strict=True):
        mask = inputs[1] if len(inputs) > 1 else np.ones(some.shape[:2])
        kept.append(some[np.asarray(mask) != 0])
    return np.concatenate(kept)


# ---- PyTorch's side, in the child ----


class Theirs:
    def __init__(self, spec):
        import torch
        import transformers

        torch.set_num_threads(num_cores())
        device = "cuda" if torch.cuda.is_available() else "cpu"
        kind = {"bert": transformers.BertModel, "vit": transformers.ViTModel}
        if spec["kind"] == "mobilenet":
            import torch_mobilenet

            model = torch_mobilenet.load(f"{spec['folder']}/model.safetensors")
        else:
            model = kind[spec["kind"]].from_pretrained(
                spec["folder"], add_pooling_layer=False
            )
        model = model.to(device)
        model.train(spec["what"] == "step")
        read = read_batches(spec["inputs"], lambda longest: longest)
        batches = []
        for arrays in read:
            arrays = [torch.from_numpy(array.copy()).to(device) for array in arrays]
            if len(arrays) == 1:
                batches.append([arrays[0].permute(0, 3, 1, 2)])
            else:
                batches.append([array.long() for array in arrays])

        def tokens(inputs=batches[0]):
            half = spec["dtype"] == "bfloat16"
            with torch.autocast(device, torch.bfloat16, enabled=half):
                found = network(*inputs)
                if spec["kind"] == "mobilenet":
                    return found.flatten(2).transpose(1, 2).float()
                return found.last_hidden_state.float()

        network = torch.compile(model) if spec["mode"] == "compile" else model
        start = time.perf_counter()
        with torch.inference_mode():
            made = [tokens(inputs).cpu().numpy() for inputs in batches]
            self.tokens = there(made, read)
        adam = torch.optim.Adam(model.parameters(), RATE, fused=True)

        def encode():
            with torch.inference_mode():
                return [tokens(inputs) for inputs in batches][-1]

        def update():
            adam.zero_grad(set_to_none=True)
            value = (tokens() ** 2).mean()
            value.backward()
            adam.step()
            return value.detach()

        self.step = encode if spec["what"] == "encode" else update
        self.wait(self.step())
        self.compile_s = time.perf_counter() - start

    def wait(self, outcome):
        return float(outcome.ravel()[0])


def serve_side(side):
    """Builds what is asked for, keeps its tokens in a file, then runs steps."""
    runner = None

    def answer(request):
        nonlocal runner
        if spec := request.get("build"):
            runner = side(spec)
            np.save(spec["tokens"], runner.tokens)
            return {"compile_s": runner.compile_s, "versions": versions()}
        return time_steps(runner.step, runner.wait, request["steps"])

    serve(answer)


def versions():
    """Of the libraries that this process has loaded."""
    names = ("jax", "flax", "torch", "transformers")
    loaded = {name: sys.modules.get(name) for name in names}
    return {k: module.__version__ for k, module in loaded.items() if module}


# ---- the comparison, in the parent ----


def write_folder(folder, facts):
    """`config.json` and random weights of a network, in the library's layout."""
    from safetensors.numpy import save_file

    from modal_aware_jax.backbones.transformer_names import slots_of
    from modal_aware_jax.backbones.transformer_shapes import empty_model

    folder.mkdir(exist_ok=True)
    if facts["model_type"] == "mobilenet":
        save_file(mobilenet_weights(), folder / "model.safetensors")
        return
    generator, state = np.random.default_rng(0), {}
    for key, slot in slots_of(empty_model(facts, {}), {}).items():
        shift = 1 if key.lower().endswith("norm.weight") or "layernorm_" in key else 0
        shift = shift if key.endswith("weight") else 0
        values = 0.02 * generator.standard_normal(slot.shape, np.float32) + shift
        state[key] = values.astype(np.float32)
    facts = facts | dict.fromkeys(DROPOUTS, 0.0)  # none on either side
    (folder / "config.json").write_text(json.dumps(facts))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def mobilenet_weights():
    """Random weights in torchvision's names that keep the activations' size."""
    from flax import nnx

    from modal_aware_jax.backbones import MobileNetV2
    from modal_aware_jax.backbones.fill import layer_slots
    from modal_aware_jax.backbones.pretrained import _mobilenet_v2_names

    generator, state = np.random.default_rng(0), {}
    for prefix, layer in _mobilenet_v2_names(MobileNetV2(rngs=nnx.Rngs(0))):
        for key, slot in layer_slots(prefix, layer).items():
            values = generator.standard_normal(slot.shape, np.float32)
            if key.endswith("running_var") or len(slot.shape) == 1 and "weight" in key:
                values = 1 + 0.1 * values
            elif len(slot.shape) == 4:
                values *= np.sqrt(2 / np.prod(slot.shape[1:]))
            else:
                values *= 0.1
            state[key] = np.abs(values) if key.endswith("running_var") else values
    return {key: value.astype(np.float32) for key, value in state.items()}


def sorted_sentences(generator, words):
    """Some of the batches of many sentences that were sorted by their length."""
    lengths = np.sort(generator.normal(13.6, 4, NUM_SENTENCES).round().clip(5, 40))
    each = len(lengths) // 32
    some = np.linspace(0, each - 1, NUM_BATCHES).astype(int)
    lengths = lengths[: each * 32].reshape(each, 32)[some]  # [n, B]
    mask = np.arange(48) < lengths[..., None]
    return generator.integers(1, words, mask.shape) * mask, mask


def write_inputs(path, facts, batch, length):
    generator = np.random.default_rng(1)
    if facts["model_type"] != "bert":
        size = facts.get("image_size", 224)
        images = generator.standard_normal((batch, size, size, 3), np.float32)
        np.savez(path, a_images=images)
        return
    words = facts.get("vocab_size", 30522)
    if length == SORTED:
        ids, mask = sorted_sentences(generator, words)
        np.savez(path, a_ids=ids.astype(np.int32), b_mask=mask.astype(np.int32))
        return
    ids = generator.integers(1, words, (batch, length))
    ends = generator.integers(length // 2, length + 1, batch)
    mask = np.arange(length) < ends[:, None]
    np.savez(path, a_ids=ids.astype(np.int32), b_mask=mask.astype(np.int32))


def child(options, side):
    python = sys.executable if side == "ours" else options.torch_python
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [python, __file__, f"--serve={side}"]
    return Child(command, patience=options.patience, environment=environment)


def measure_case(options, name, folder):
    """A row: every side built, their tokens compared, then turns."""
    network, what, batch, length = CASES[name]
    facts = SHAPES[network]
    write_folder(folder / network, facts)
    inputs = folder / f"{name}.npz"
    write_inputs(inputs, facts, batch, length)
    spec = {
        "folder": str(folder / network),
        "inputs": str(inputs),
        "kind": facts["model_type"],
        "what": what,
        "dtype": options.dtype,
    }
    sides, built = ["ours", *options.modes], {}
    with contextlib.ExitStack() as stack:
        children = {
            side: stack.enter_context(
                child(options, "ours" if side == "ours" else "theirs")
            )
            for side in sides
        }
        for side, process in children.items():
            here = {"mode": side, "tokens": str(folder / f"{side}.npy")}
            built[side] = process.ask(build=spec | here)
        tokens = {side: np.load(folder / f"{side}.npy") for side in sides}
        largest = max(1.0, float(np.abs(tokens["ours"]).max()))
        apart = max(float(np.abs(tokens["ours"] - tokens[x]).max()) for x in sides)
        apart /= largest
        if not apart < (1e-4 if options.dtype == "float32" else 0.5):
            raise ValueError(f"{name}: the sides' tokens differ by {apart:.2g}.")
        answers = take_turns(
            children, rounds=options.rounds, steps=options.steps, budget=options.budget
        )
    clock, cores = compare(answers, "ours"), compare(answers, "ours", "cores")
    seconds = clock["seconds"]["ours"]
    row = {
        "case": name,
        "dtype": options.dtype,
        "batch": batch,
        "items/s": batch * (NUM_BATCHES if length == SORTED else 1) / seconds,
        "ms": 1e3 * seconds,
    }
    for mode in options.modes:
        row |= {
            f"{mode} ms": 1e3 * clock["seconds"][mode],
            f"/ {mode}": clock["ratio"][mode],
            f"/ {mode}, cores": cores["ratio"][mode],
        }
    row |= {"rounds": len(answers["ours"]), "apart": apart}
    return row, {"built": built, "answers": answers}


def describe(result):
    said = result["conditions"]
    versions = ", ".join(f"{k} {v}" for k, v in said["versions"].items())
    return (
        "# Transformer encoders beside PyTorch's\n\n"
        f"{said['processor']}, {said['cores']} cores, load {said['load']:.1f}; "
        f"{versions}, commit {said['commit']}. The same weights on both sides. "
        "`items/s`: images or sentences of ours. Medians of rounds in turn; `/ mode` "
        "is ours / PyTorch in that mode, the median over rounds (below 1: ours is "
        "faster), by the clock and by the time of all cores; "
        "`apart` is the largest difference of the tokens, as a part of the largest "
        "token where that is above 1.\n\n"
        f"{table(result['rows'])}\nMade by `benchmarks/encoders.py`.\n"
    )


def measure(options):
    names = [n for word in options.cases for n in SETS.get(word, [word])]
    conditions = {
        "processor": processor(),
        "cores": num_cores(),
        "load": os.getloadavg()[0],
        "commit": commit(),
        "versions": {},
    }
    result = {"conditions": conditions, "rows": [], "details": []}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                row, detail = measure_case(options, name, pathlib.Path(folder))
            except ChildError as error:
                print(json.dumps({"case": name, "error": str(error)}), flush=True)
                continue
        for built in detail["built"].values():
            conditions["versions"] |= built["versions"]
        result["rows"].append(row)
        result["details"].append(detail)
        print(json.dumps(row), flush=True)
        if options.out:
            out = pathlib.Path(options.out)
            out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
            out.with_suffix(".md").write_text(describe(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", choices=["ours", "theirs"])
    parser.add_argument("--torch-python", help="a Python with torch and transformers")
    parser.add_argument(
        "--cases", nargs="+", default=["all"], choices=[*SETS, *CASES], metavar="CASE"
    )
    parser.add_argument(
        "--modes", nargs="+", default=["eager"], choices=["eager", "compile"]
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=1, help="calls of a turn")
    parser.add_argument("--budget", type=float, default=300, help="seconds of a case")
    parser.add_argument("--patience", type=float, default=600, help="for an answer")
    parser.add_argument("--out", help="writes OUT.json and OUT.md")
    options = parser.parse_args()
    if options.serve:
        serve_side(Ours if options.serve == "ours" else Theirs)
        return
    if not options.torch_python:
        parser.error("--torch-python is needed: a Python with torch and transformers")
    measure(options)


if __name__ == "__main__":
    main()
