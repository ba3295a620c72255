"""Similarity distillation: by loops, and a tiny CLIP as the teacher of a batch."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from PIL import Image
from test_from_pretrained import write_folder

from modal_aware_jax.backbones import from_pretrained
from modal_aware_jax.backbones.clip_teacher import DEVIATION, MEAN, ClipTeacher
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.experiment.matchers import LOSSES, MATCHERS
from modal_aware_jax.losses.info_nce import info_nce
from modal_aware_jax.losses.similarity_distillation import similarity_distillation
from modal_aware_jax.models.two_tower import TwoTower
from modal_aware_jax.tasks import matching
from modal_aware_jax.tasks.pair_training import draw_sentence, drawn_number
from modal_aware_jax.training import teacher as teaching

LINES = ["a\nb c", "c a b", "b\na a\nc"]


def divergence(p, q):
    p, q = (np.exp(x) / np.exp(x).sum() for x in (p, q))
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))


def by_loops(image, text, teacher, scale):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text)]
    logits = scale * unit[0] @ unit[1].T
    rows = [divergence(teacher[i], logits[i]) for i in range(len(image))]
    columns = [divergence(teacher[:, j], logits[:, j]) for j in range(len(image))]
    return (np.mean(rows) + np.mean(columns)) / 2


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    return *random.normal(size=(2, 4, 3)), 3 * random.normal(size=(4, 4))


def test_the_loss_by_loops_its_zero_and_its_mask(batch):
    image, text, teacher = batch
    value = similarity_distillation(*map(jnp.asarray, batch), scale=2.0)
    assert value == pytest.approx(by_loops(*batch, 2.0), rel=1e-5)
    # Two alike against one that is sure: log 2 less its entropy, both ways.
    sure, even = jnp.array([[9.0, -9.0], [-9.0, 9.0]]), jnp.ones((2, 2))
    value = similarity_distillation(even, even, sure, scale=1.0)
    assert value == pytest.approx(np.log(2), abs=1e-4)
    same = similarity_distillation(even, even, 0 * even, scale=5.0)
    assert same == pytest.approx(0, abs=1e-6)
    mask = jnp.array([1, 1, 0, 1])
    kept = np.flatnonzero(mask)
    spoilt = np.array(teacher)
    spoilt[2], spoilt[:, 2] = np.inf, np.nan
    value = similarity_distillation(
        *map(jnp.asarray, (image, text, spoilt)), scale=2.0, mask=mask
    )
    expected = by_loops(image[kept], text[kept], teacher[np.ix_(kept, kept)], 2.0)
    assert value == pytest.approx(expected, rel=1e-5)
    none = similarity_distillation(
        *map(jnp.asarray, batch), scale=2.0, mask=jnp.zeros(4)
    )
    assert none == 0
    with pytest.raises(ValueError, match=r"teacher's logits \[4, 4\], .*\(3, 4\)"):
        similarity_distillation(image, text, teacher[:3], scale=1.0)


def test_its_gradient_is_the_students_alone(batch):
    def loss(image, text, teacher):
        return similarity_distillation(image, text, teacher, scale=2.0)

    both = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*map(jnp.asarray, batch))
    step = 1e-3
    for side in (0, 1):
        moved = [np.array(x) for x in batch]
        moved[side][1, 2] += step
        slope = (by_loops(*moved, 2.0) - by_loops(*batch, 2.0)) / step
        assert both[side][1, 2] == pytest.approx(slope, rel=2e-2)
    assert not np.asarray(both[2]).any()


def collection():
    random = np.random.default_rng(1)
    images = []
    for _ in LINES:
        file = io.BytesIO()
        pixels = random.integers(0, 255, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        images.append(file.getvalue())
    nothing, names = np.zeros((3, 0)), ["x", "y", "z"]
    return Collection("three", names, images, nothing, LINES, nothing, (), ())


def write_teacher(folder, name):
    """A tiny CLIP with a tokenizer of four words -> its last number, its image size."""
    tokenizers = pytest.importorskip("tokenizers")
    write_folder(folder, name)
    facts = json.loads((folder / "config.json").read_text())
    last = facts["text_config"]["vocab_size"] - 1
    words = {"[UNK]": 0, "a": 4, "b": 2, "c": 3, "<end>": last}
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(words, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", last)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return last, facts["vision_config"]["image_size"]


def test_a_teacher_is_asked_within_a_step_and_once(tmp_path, monkeypatch):
    pairs, folder = collection(), tmp_path / "clip"
    last, size = write_teacher(folder, "clip")
    logits = teaching.TeacherLogits(folder, pairs, tmp_path)
    which = jnp.array([2, 0]), jnp.array([1, 0])  # sentences "a a" and "a"

    @jax.jit
    def loss(scale):
        teacher = logits(*which)
        return scale * teacher.sum(), teacher

    (_, found), slope = jax.value_and_grad(loss, has_aux=True)(1.0)
    clip = from_pretrained(folder)
    pixels = [
        np.asarray(Image.open(io.BytesIO(pairs.images[i])).resize((size, size), 2))
        for i in (2, 0)
    ]
    images = (np.float32(pixels) / 255 - np.float32(MEAN)) / np.float32(DEVIATION)
    ids = np.array([[4, 4, last], [4, last, 0]], np.int32)
    expected = jax.jit(lambda *x: clip(*x))(images, ids, ids > 0)
    tolerance = 2e-3 * float(clip.scale)  # vectors are kept in half precision
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert slope == pytest.approx(float(found.sum()), rel=1e-4)
    (kept,) = tmp_path.glob("teacher-three-*.npz")
    monkeypatch.setattr(teaching, "_compute", None)  # cannot be called again
    again = teaching.TeacherLogits(folder, pairs, tmp_path)(*which)
    np.testing.assert_allclose(again, found, rtol=1e-5)
    with np.load(kept) as arrays:
        assert arrays["images"].shape[0] == 3 and arrays["texts"].shape[0] == 6


def test_a_batch_is_taught_with_the_sentences_that_were_drawn(monkeypatch, tmp_path):
    assert MATCHERS["distilled"].loss == "similarity_distillation"
    options = {"similarity_distillation": {"teacher": "some", "weight": 2.0}}
    config = ConfigDict(
        {
            "loss": {"name": "similarity_distillation", "options": options},
            "training": {"cache_dir": str(tmp_path)},
        }
    )
    asked = []

    class Teacher:
        def __init__(self, folder, pairs, cache):
            assert (folder, cache) == ("some", str(tmp_path))

        def __call__(self, images, sentences):
            asked.append((images.tolist(), sentences.tolist()))
            return jnp.eye(4) * 3

    monkeypatch.setattr(matching, "TeacherLogits", Teacher)
    random = np.random.default_rng(0)
    image = jnp.asarray(random.normal(size=(4, 3)).astype(np.float32))
    text = jnp.asarray(random.normal(size=(4, 6)).astype(np.float32))
    seen = []

    def joint(model, batch, text, **_):
        seen.append(text)
        return image, text[:, None]

    model = type("Model", (), {})()
    model.towers = TwoTower(3, 3, 3, hidden_features=2, rngs=nnx.Rngs(0))
    loss = matching.training_loss(MATCHERS, LOSSES, config, None, None, model, joint)
    value = loss(model, {"text": text, "index": jnp.arange(4)}, jax.random.key(0))
    (drawn,), scale = seen, model.towers.temperature.scale()
    expected = info_nce(image, drawn, scale=scale) + 2 * similarity_distillation(
        image, drawn, jnp.eye(4) * 3, scale=scale
    )
    assert value == pytest.approx(float(expected), rel=1e-5)
    ((index, sentences),) = asked
    assert index == [0, 1, 2, 3]
    rows = text.reshape(4, 2, 3)[np.arange(4), np.array(sentences)]
    np.testing.assert_array_equal(drawn, rows)
    key = jax.random.key(5)
    numbers = drawn_number(key, text, 3)
    rows = text.reshape(4, 2, 3)[np.arange(4), np.array(numbers)]
    np.testing.assert_array_equal(draw_sentence(key, text, 2), rows)
    options["similarity_distillation"]["teacher"] = ""
    config.loss.options = options
    told = "folder of a CLIP with --config.loss.options.similarity_distillation.teacher"
    with pytest.raises(ValueError, match=told):
        matching.training_loss(MATCHERS, LOSSES, config, None, None, model, joint)


def test_siglip_reads_its_padding(tmp_path):
    last, _ = write_teacher(tmp_path, "siglip")
    teacher, clip = ClipTeacher(tmp_path), from_pretrained(tmp_path)
    ids = np.full((1, clip.text.max_length), 1, np.int32)
    ids[0, :2] = 2, last
    expected = jax.jit(lambda ids: clip.encode_text(ids))(ids)
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(teacher.texts(["b"]), expected, atol=1e-5)


def test_folders_that_hold_no_teacher(tmp_path):
    with pytest.raises(ValueError, match="lacks config.json and tokenizer.json"):
        ClipTeacher(tmp_path / "nowhere")
    folder = write_folder(tmp_path / "vit", "vit")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a ViT, which has no space for"):
        ClipTeacher(folder)
