"""An exported encoder gives the run's codes: with JAX alone, and from its weights."""

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_end_to_end import tiny_config

from modal_aware_jax import build, modes
from modal_aware_jax.cpu.depthwise import depthwise_conv
from modal_aware_jax.data import pipeline
from modal_aware_jax.hashing.exported import export_encoder, load_encoder
from modal_aware_jax.modes.encode import in_vocabulary
from modal_aware_jax.modes.model_files import flat_variables
from modal_aware_jax.training import update as updates
from modal_aware_jax.training.checkpoint import Checkpointer


def config_of():
    """Codes of label probabilities, of pictures as they are and mirrored."""
    config = tiny_config()
    with config.unlocked():
        config.data.mirrored = True
        config.loss.label_weight, config.model.head_features = 1.0, 8
    return config.lock()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkpoint of weights unlike the initial ones, and its export."""
    workdir = tmp_path_factory.mktemp("run")
    config = config_of()
    with config.unlocked():
        config.seed = 3
    trained = build.experiment(config)
    tx = trained.make_optimizer(3)
    _, params, stats = updates.split_model(trained.model, trained.is_trained)
    state = updates.init_state(params, stats, tx)._replace(step=jax.numpy.int32(6))
    history = [{"epoch": 2, "step": 6, "loss": 1.0, "validation_map": 0.75}]
    record = {"epoch": 2, "history": history, "best": None}
    with Checkpointer(workdir / "checkpoints") as checkpointer:
        checkpointer.save(6, state, data=None, run=record)
    experiment = build.experiment(config_of())
    return workdir, experiment, modes.export_run(experiment, workdir)


@pytest.fixture(scope="module")
def expected(run):
    """ids, codes and relaxed bits of the whole collection by the run itself."""
    workdir, experiment, _ = run
    with np.load(modes.encode_collection(experiment, workdir)) as encoded:
        return encoded["ids"], encoded["codes"]


ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        package = name.split(".")[0]
        if package in {"flax", "orbax", "optax", "grain", "safetensors", "PIL",
                       "modal_aware_jax", "ml_collections", "tensorstore"}:
            raise ImportError(f"{package} is not there")

sys.meta_path.insert(0, Refuse())
import jax, jax.export
import numpy as np
encoder = jax.export.deserialize(open(sys.argv[1], "rb").read())
with np.load(sys.argv[2]) as batch:
    images, text = batch["image"], batch["text"]
whole, relaxed = encoder.call(images, text)
one, _ = encoder.call(images[:1], text[:1])  # any batch size
assert (one == whole[:1]).all()
np.savez(sys.argv[3], packed=whole, relaxed=relaxed)
print(*encoder.platforms, "flax" in sys.modules, "modal_aware_jax" in sys.modules)
"""


def test_the_program_runs_in_a_process_with_jax_and_numpy_only(run, expected, tmp_path):
    _, experiment, folder = run
    positions = np.arange(7)
    (batch,) = pipeline.eval_batches(
        experiment.collection, positions, batch_size=7, image_size=32
    )
    np.savez(tmp_path / "batch.npz", image=batch["image"], text=batch["text"])
    program = folder / "encoder.stablehlo"
    arguments = [program, tmp_path / "batch.npz", tmp_path / "out.npz"]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["cpu", "cuda", "tpu", "False", "False"]
    with np.load(tmp_path / "out.npz") as out:
        assert out["packed"].dtype == np.uint32 and out["relaxed"].shape == (7, 16)
        np.testing.assert_array_equal(out["packed"], expected[1][:7])
        signs = np.where(out["relaxed"] < 0, 0, 1).astype(np.uint32)
        packed = (signs << np.arange(16, dtype=np.uint32)).sum(1)
        np.testing.assert_array_equal(out["packed"][:, 0], packed)


@pytest.mark.parametrize("name", ["", "encoder.stablehlo", "model.safetensors"])
def test_encoding_with_the_model_equals_encoding_with_the_run(
    run, expected, name, tmp_path
):
    _, experiment, folder = run
    model = modes.load_model_file(folder / name)
    assert (model.num_bits, model.image_size) == (16, 32)
    path = modes.encode_with_model(model, experiment.collection, tmp_path, batch_size=9)
    with np.load(path) as encoded:
        np.testing.assert_array_equal(encoded["ids"], expected[0])
        np.testing.assert_array_equal(encoded["codes"], expected[1])
        assert int(encoded["num_bits"]) == 16


def test_the_facts_and_weights_are_those_of_the_run(run):
    workdir, experiment, folder = run
    facts = json.loads((folder / "config.json").read_text())
    assert facts["config"]["model"]["num_bits"] == 16 and facts["step"] == 6
    assert facts["vocabulary"] == list(experiment.collection.vocabulary)
    assert facts["label_names"] == list(experiment.collection.label_names)
    assert facts["metrics"] == {"validation_map": 0.75}
    saved = load_file(folder / "model.safetensors")
    ours = flat_variables(experiment.model)
    assert saved.keys() == ours.keys() and "head.code.dense.kernel" in saved
    assert not any("steps" in name for name in saved)  # of training
    for name, value in saved.items():
        np.testing.assert_array_equal(value, ours[name])
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "encoder.stablehlo",
        "model.safetensors",
    ]


def test_search_with_the_model_finds_the_pair_itself(run, tmp_path):
    _, experiment, folder = run
    pairs = experiment.collection
    (tmp_path / "query.jpg").write_bytes(pairs.images[7])
    words = " ".join(np.array(pairs.vocabulary)[pairs.text[7] > 0])
    found = modes.search_with_model(
        modes.load_model_file(folder),
        pairs,
        tmp_path,
        batch_size=50,
        image=tmp_path / "query.jpg",
        words=words,
        k=3,
    )
    assert [row["rank"] for row in found] == [1, 2, 3] and found[0]["distance"] == 0
    assert len(list(tmp_path.glob("collection-*.index"))) == 1


def test_text_is_read_in_the_models_vocabulary(run, capsys):
    _, experiment, folder = run
    pairs, model = experiment.collection, modes.load_model_file(folder)
    order = np.roll(np.arange(pairs.num_text_features), 3)
    words = [pairs.vocabulary[i] for i in order]
    words[0] = "zebra"  # unknown to the model, instead of a word that it knows
    other = dataclasses.replace(pairs, text=pairs.text[:, order], vocabulary=words)
    ours = in_vocabulary(other, model)
    assert ours.vocabulary == pairs.vocabulary
    lost = order[0]
    kept = np.arange(pairs.num_text_features) != lost
    np.testing.assert_array_equal(ours.text[:, kept], pairs.text[:, kept])
    assert not ours.text[:, lost].any()
    assert "its other 1 are left out" in capsys.readouterr().out
    strange = dataclasses.replace(pairs, vocabulary=[f"{w}x" for w in pairs.vocabulary])
    with pytest.raises(ValueError, match="none of its .* words is among"):
        in_vocabulary(strange, model)
    narrow = dataclasses.replace(pairs, text=pairs.text[:, :5], vocabulary=())
    with pytest.raises(ValueError, match="has 5, and without the model's vocabulary"):
        in_vocabulary(narrow, model)


def test_models_that_cannot_be_read_say_why(run, tmp_path):
    folder = tmp_path / "export"
    shutil.copytree(run[2], folder)
    program, weights = folder / "encoder.stablehlo", folder / "model.safetensors"
    with pytest.raises(ValueError, match="there is no file or folder"):
        modes.load_model_file(tmp_path / "none")
    with pytest.raises(ValueError, match="has neither encoder.stablehlo nor"):
        modes.load_model_file(tmp_path)
    for damaged in (b"", b"not a program", program.read_bytes()[:500]):
        program.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be read as an exported encoder"):
            modes.load_model_file(folder)
    arrays = load_file(weights)
    arrays["head.code.dense.bias"] = np.zeros(3, np.float32)
    save_file(arrays, weights)
    message = r"head.code.dense.bias is \[3\], expected \[16\].*Keep the two files"
    with pytest.raises(ValueError, match=message):
        modes.load_model_file(weights)
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="is not a whole .safetensors file"):
        modes.load_model_file(weights)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="lacks config, image_size"):
        modes.load_model_file(weights)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="config.json cannot be read"):
        modes.load_model_file(weights)


def test_a_program_for_another_platform_is_refused(tmp_path):
    blob = export_encoder(
        lambda images, text: text, image_size=4, text_features=2, platforms=("tpu",)
    )
    (tmp_path / "tpu").write_bytes(blob)
    with pytest.raises(ValueError, match="exported for tpu, this process runs on cpu"):
        load_encoder(tmp_path / "tpu")
    exported = jax.export.export(jax.jit(lambda x: x))(np.zeros(2))
    (tmp_path / "other").write_bytes(exported.serialize())
    with pytest.raises(ValueError, match="holds another function than an encoder"):
        load_encoder(tmp_path / "other")


def test_each_platform_gets_its_own_rule():
    """The depthwise rule of CPUs is not written into the program of a TPU."""

    def relaxed(images, text):
        x = images.astype(np.float32)
        kernel = np.ones((3, 3, 1, 3), np.float32)
        y = depthwise_conv(x, kernel, (1, 1), "SAME", feature_group_count=3)
        return text + y.mean((1, 2, 3))[:, None]

    for platforms in (("cpu",), ("tpu",), ("cpu", "tpu")):
        blob = export_encoder(
            relaxed, image_size=8, text_features=2, platforms=platforms
        )
        program = jax.export.deserialize(bytearray(blob)).mlir_module()
        assert ("feature_group_count = 3" in program) == ("tpu" in platforms)
        assert ("platform_index" in program) == (len(platforms) > 1)
