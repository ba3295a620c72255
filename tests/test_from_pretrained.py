"""Pretrained encoders against the transformers library and timm; bad folders."""

import functools
import json
import pathlib
import sys
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seeded_weights
from flax import nnx
from safetensors.numpy import save_file

from modal_aware_jax.backbones import BERT, CLIP, ViT, from_pretrained

INDEX = "model.safetensors.index.json"
CLIPS = ("clip", "openclip", "chinese_clip", "siglip")


# Half the time to compile; the sums are the same.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def stored():
    path = pathlib.Path(__file__).with_name("transformers.npz")
    with np.load(path) as arrays:
        return dict(arrays)


def part(name, which):
    return stored()[f"{name}/{which}"]


def write_folder(folder, name):
    """The folder of a stored case, in the library's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = json.loads(str(part(name, "shapes")))
    state = seeded_weights.transformer(shapes)
    (folder / "config.json").write_text(str(part(name, "config.json")))
    if f"{name}/{INDEX}" not in stored():
        save_file(state, folder / "model.safetensors")
        return folder
    index = str(part(name, INDEX))
    (folder / INDEX).write_text(index)
    places = json.loads(index)["weight_map"]
    for shard in set(places.values()):
        here = {key: state[key] for key, place in places.items() if place == shard}
        save_file(here, folder / shard)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The model of a case, read once."""

    @functools.cache
    def read(name):
        return from_pretrained(write_folder(tmp_path_factory.mktemp("m") / name, name))

    return read


def images(size):
    return seeded_weights.images(2, *map(int, size.split("x")))


def outputs(name, which):
    """Stored outputs of a case that begin so, by image size."""
    start = f"{name}/{which}/"
    return {
        k.removeprefix(start): v for k, v in stored().items() if k.startswith(start)
    }


@pytest.mark.parametrize("name", ["vit", "vit_wide", "timm"])
def test_a_vit_of_any_image_size(model, name):
    vit = model(name)
    assert isinstance(vit, ViT)
    sizes = outputs(name, "tokens")
    assert len(sizes) == {"vit": 3}.get(name, 1)
    for size, expected in sizes.items():
        tokens = jit(vit.__call__)(images(size))
        np.testing.assert_allclose(tokens, expected, atol=2e-5, err_msg=size)


@pytest.mark.parametrize("name", ["bert", "bert_head"])
def test_a_bert_with_padding(model, name):
    bert = model(name)
    assert isinstance(bert, BERT)
    ids, mask = part(name, "ids"), part(name, "mask")
    tokens = jit(bert.__call__)(ids, mask)
    np.testing.assert_allclose(tokens, part(name, "tokens"), atol=2e-5)


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip(model, name):
    clip = model(name)
    assert isinstance(clip, CLIP)
    ids, mask = part(name, "ids"), part(name, "mask")

    @jit
    def compute(small, other, ids, mask):
        outputs = {
            "tokens/12x12": clip.image_tokens(small),
            "image/12x12": clip.encode_image(small),
            "text_tokens": clip.text_tokens(ids, mask),
            "text": clip.encode_text(ids, mask),
        }
        if name == "openclip":
            return outputs | {"image/16x9": clip.encode_image(other)}
        if name == "siglip":
            outputs["text_unmasked"] = clip.encode_text(ids)
        return outputs | {"logits": clip(small, ids, mask)}

    computed = compute(images("12x12"), images("16x9"), ids, mask)
    for which, value in computed.items():
        np.testing.assert_allclose(
            value, part(name, which), atol=5e-5, rtol=1e-5, err_msg=which
        )
    assert not np.allclose(part(name, "text")[0], part(name, "text")[1], atol=0.1)


def test_scale_and_bias_are_those_of_the_logits(model):
    for name in CLIPS:
        clip = model(name)
        shapes = json.loads(str(part(name, "shapes")))
        weights = seeded_weights.transformer(shapes)
        np.testing.assert_allclose(
            clip.scale, np.exp(weights["logit_scale"]).item(), rtol=1e-6
        )
        bias = weights["logit_bias"].item() if name == "siglip" else 0.0
        np.testing.assert_allclose(clip.bias, bias, rtol=1e-6)
        assert name == "siglip" or "logit_bias" not in weights


def test_every_variable_has_a_value_and_is_float32(model):
    for name in ("vit", "bert", *CLIPS):
        for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(model(name)))):
            assert isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32


def test_bfloat16_is_near_and_leaves_the_weights_as_they_are(tmp_path):
    clip = from_pretrained(write_folder(tmp_path, "clip"), dtype=jnp.bfloat16)
    text = jit(clip.encode_text)(part("clip", "ids"), part("clip", "mask"))
    assert text.dtype == jnp.bfloat16
    assert clip.text.projection.kernel.dtype == jnp.float32
    expected = part("clip", "text")
    assert np.abs(text.astype(np.float32) - expected).max() < 0.05 * expected.std()


def test_hub_names_are_downloaded(tmp_path, monkeypatch):
    folder, asked = write_folder(tmp_path, "bert"), []

    def snapshot_download(repository, *, revision, allow_patterns):
        asked.append((repository, revision, allow_patterns))
        return str(folder)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert isinstance(from_pretrained("hf-hub:owner/name"), BERT)
    from_pretrained("hf-hub:owner/name@abc")
    assert [call[:2] for call in asked] == [("owner/name", None), ("owner/name", "abc")]
    assert asked[0][2] == ["config.json", INDEX, "model*.safetensors"]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="modal-aware-jax.hub"):
        from_pretrained("hf-hub:owner/name")


def no_config(folder):
    (folder / "config.json").unlink()


def broken_config(folder):
    (folder / "config.json").write_text('{"model_type": "clip", ')


def changed(**facts):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | facts))

    return change


def no_shard(folder):
    min(folder.glob("*.safetensors")).unlink()


def no_weights(folder):
    for path in (*folder.glob("*.safetensors"), folder / INDEX):
        path.unlink()


def truncated(folder):
    path = min(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-500])


def empty_index(folder):
    (folder / INDEX).write_text("{}")


def one_shard_only(folder):
    path = min(folder.glob("*.safetensors"))
    path.rename(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_config, "has no config.json. Give a folder as .*save_pretrained"),
        (broken_config, "config.json is not a JSON object .*Download it again"),
        (changed(model_type="t5"), "config.json: model_type 't5' is not one of vit, b"),
        (changed(text_config={"hidden_act": "swish"}), "hidden_act 'swish' is not one"),
        (
            changed(projection_dim=11),
            "2 arrays.*: .11, 16. expected.*same place and",
        ),
        (
            no_shard,
            r"lacks model-00001-of-\d+.safetensors, of the \d+ files that model",
        ),
        (no_weights, "has neither model.safetensors nor .*index.json. Save the model"),
        (truncated, r"00001-of.*\([\d,]+ bytes\) is not a whole .*Download it again"),
        (empty_index, "index.json has no weight_map. Download it again"),
        (
            one_shard_only,
            "is not the clip of its config.json: .* missing key",
        ),
    ],
)
def test_bad_folders_are_refused_with_their_cure(tmp_path, spoil, message):
    folder = write_folder(tmp_path, "clip")
    spoil(folder)
    with pytest.raises(ValueError, match=f"(?s)^from_pretrained: .*{message}") as error:
        from_pretrained(folder)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "facts", "message"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, "relative_key positions"),
        ("bert", {"is_decoder": True}, "absolute positions and decodes: only encoders"),
        ("siglip", {"vision_config": {"vision_use_head": False}}, "no pooling head"),
        ("timm", {"architecture": "vit_odd_patch4"}, "'vit_odd_patch4' is not a ViT"),
    ],
)
def test_models_that_compute_otherwise_are_refused(tmp_path, name, facts, message):
    folder = write_folder(tmp_path, name)
    changed(**facts)(folder)
    with pytest.raises(ValueError, match=message):
        from_pretrained(folder)


def test_missing_and_unexpected_keys_are_all_listed(tmp_path):
    folder = write_folder(tmp_path, "vit")
    shapes = json.loads(str(part("vit", "shapes")))
    state = seeded_weights.transformer(shapes)
    del state["layernorm.bias"], state["encoder.layer.1.output.dense.weight"]
    state["encoder.layer.2.output.dense.bias"] = np.zeros(16, np.float32)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError) as error:
        from_pretrained(folder)
    message = str(error.value)
    missing = "['encoder.layer.1.output.dense.weight', 'layernorm.bias']"
    assert f"2 missing keys {missing}" in message
    assert "1 unexpected keys ['encoder.layer.2.output.dense.bias']" in message


def test_old_names_half_precision_and_the_number_of_heads(tmp_path, model):
    """The oldest BERTs call scale and shift gamma and beta; some weights are halves."""
    shapes = json.loads(str(part("bert", "shapes")))
    state = {
        key.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): v
        for key, v in seeded_weights.transformer(shapes).items()
    }
    state |= {"embeddings.position_ids": np.arange(9)[None]}
    folder = write_folder(tmp_path, "bert")
    save_file(
        {k: v.astype(jnp.bfloat16) if v.ndim == 2 else v for k, v in state.items()},
        folder / "model.safetensors",
    )
    old, new = from_pretrained(folder), model("bert")
    leaves = zip(*(jax.tree.leaves(nnx.state(m)) for m in (old, new)), strict=True)
    for a, b in leaves:
        chex.assert_trees_all_close(a, b, atol=0.02)
    facts = {"model_args": {"num_heads": 3}, "architecture": "vit_odd"}
    folder = write_folder(tmp_path / "timm", "timm")
    changed(**facts)(folder)
    assert from_pretrained(folder).blocks[0].attention.num_heads == 3
