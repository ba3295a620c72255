"""Batches: pure in the seed, resumable, complete, padded, and from cached maps."""

import dataclasses
import io
import time

import numpy as np
import pytest
from PIL import Image

from modal_aware_jax.data import pipeline
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.stored_image import grey_image

N, T, L = 23, 7, 3


def collection(num_pairs=N, encode=True):
    """Pictures whose left half is grey level i and whose right half is 255 - i."""
    images = []
    for i in range(num_pairs):
        pixels = np.full((16, 24, 3), i % 128, np.uint8)
        pixels[:, 12:] = 255 - i % 128
        buffer = io.BytesIO()
        if encode:
            Image.fromarray(pixels).save(buffer, "PNG")
        images.append(buffer.getvalue())
    random = np.random.default_rng(0)
    return Collection(
        "stripes",
        [f"p{i}" for i in range(num_pairs)],
        images,
        random.integers(0, 2, (num_pairs, T)),
        [""] * num_pairs,
        random.integers(0, 2, (num_pairs, L)),
        tuple("abcdefg"),
        tuple("xyz"),
    )


def cached(num_pairs=N, shape=(2, 3, 4)):
    """Maps that tell their pair and side: value = pair + side / 2."""
    pair = np.arange(num_pairs)[:, None, None, None, None]
    side = np.arange(2)[None, :, None, None, None] / 2
    return np.broadcast_to(pair + side, (num_pairs, 2, *shape)).astype(np.float16)


def take(dataset, number):
    iterator = iter(dataset)
    return [next(iterator) for _ in range(number)]


def assert_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def train(pairs, indices, seed=0, **options):
    options = {"batch_size": 4, "image_size": 8, "threads": 2, **options}
    return pipeline.train_batches(pairs, indices, seed=seed, **options)


def cached_train(pairs, indices, seed=0):
    maps = cached(len(pairs))
    return pipeline.cached_train_batches(maps, pairs, indices, batch_size=4, seed=seed)


BOTH = pytest.mark.parametrize("make", [train, cached_train])


def test_a_batch_has_the_agreed_arrays_and_the_pairs_own_columns():
    pairs = collection()
    batch = take(train(pairs, np.arange(N)), 1)[0]
    shapes = {name: (array.shape, str(array.dtype)) for name, array in batch.items()}
    assert shapes == {
        "image": ((4, 8, 8, 3), "uint8"),
        "text": ((4, T), "float32"),
        "labels": ((4, L), "uint8"),
        "index": ((4,), "int32"),
    }
    columns = (batch[name] for name in ("image", "text", "labels", "index"))
    for image, words, labels, i in zip(*columns, strict=True):
        np.testing.assert_array_equal(words, pairs.text[i])
        np.testing.assert_array_equal(labels, pairs.labels[i])
        assert i <= image.min() and image.max() <= 255 - i


@BOTH
def test_each_epoch_has_each_pair_once_but_the_remainder_in_a_new_order(make):
    indices = np.arange(1, 20)  # 19 pairs: 4 batches of 4, and 3 left over
    batches = take(make(collection(), indices), 12)
    epochs = [
        np.concatenate([batch["index"] for batch in batches[i : i + 4]])
        for i in (0, 4, 8)
    ]
    for order in epochs:
        assert len(set(order.tolist())) == 16 and set(order.tolist()) <= set(indices)
    assert epochs[0].tolist() != epochs[1].tolist() != epochs[2].tolist()
    left_over = [frozenset(indices) - set(order.tolist()) for order in epochs]
    assert len(set(left_over)) > 1


@BOTH
def test_the_same_seed_gives_the_same_batches_and_another_does_not(make):
    pairs, indices = collection(), np.arange(N)
    first = take(make(pairs, indices, seed=1), 7)
    assert_equal(first, take(make(pairs, indices, seed=1), 7))
    other = take(make(pairs, indices, seed=2), 7)
    assert any(
        (a["index"] != b["index"]).any() for a, b in zip(first, other, strict=True)
    )


@BOTH
def test_a_restored_iterator_goes_on_bit_for_bit_in_the_middle_of_an_epoch(make):
    pairs, indices = collection(), np.arange(N)
    iterator = iter(make(pairs, indices))
    for _ in range(7):  # an epoch has 5 batches
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(9)]
    fresh = iter(make(pairs, indices))
    fresh.set_state(state)
    assert_equal([next(fresh) for _ in range(9)], expected)
    iterator.set_state(state)  # and the same iterator, turned back
    assert_equal([next(iterator) for _ in range(9)], expected)


def test_augmentation_differs_between_epochs_and_flips_half():
    pairs = collection()
    batches = take(train(pairs, np.arange(20), crop_scale=(1.0, 1.0)), 5 * 15)
    images = np.concatenate([batch["image"] for batch in batches])
    index = np.concatenate([batch["index"] for batch in batches])
    mirrored = images[:, 4, 0, 0] > images[:, 4, -1, 0]
    of_one = mirrored[index == 3]
    assert 0 < of_one.mean() < 1  # not the same in every epoch
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(mirrored))


def test_without_crop_and_flip_a_training_image_is_the_whole_image():
    pairs = collection()
    options = dict(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False)
    batch = take(train(pairs, np.arange(N), **options), 1)[0]
    for image, i in zip(batch["image"], batch["index"], strict=True):
        whole = Image.open(io.BytesIO(pairs.images[i]))
        np.testing.assert_array_equal(image, pipeline.resize(whole, 8))


def test_a_random_box_has_the_area_asked_for_and_lies_inside():
    rng = np.random.default_rng(0)
    boxes = np.array(
        [
            pipeline.random_box(40, 30, rng, (0.2, 0.5), (3 / 4, 4 / 3))
            for _ in range(400)
        ]
    )
    left, upper, right, lower = boxes.T
    assert (0 <= left).all() and (right <= 40).all()
    assert (0 <= upper).all() and (lower <= 30).all()
    area = (right - left) * (lower - upper) / (40 * 30)
    assert 0.2 <= area.min() < 0.22 and 0.48 < area.max() <= 0.5 + 1e-9
    ratio = (right - left) / (lower - upper) / (40 / 30)
    assert 0.75 - 1e-9 <= ratio.min() < 0.78 and 1.3 < ratio.max() <= 4 / 3 + 1e-9


@pytest.mark.parametrize("source", ["images", "maps"])
def test_evaluation_keeps_the_order_and_pads_and_masks_the_last_batch(source):
    pairs, indices = collection(), np.array([5, 3, 3, 22, 0])
    if source == "images":
        dataset = pipeline.eval_batches(pairs, indices, batch_size=3, image_size=8)
    else:
        maps = cached()
        dataset = pipeline.cached_eval_batches(maps, pairs, indices, batch_size=3)
    batches = list(dataset)
    assert [batch["index"].tolist() for batch in batches] == [[5, 3, 3], [22, 0, -1]]
    assert [batch["mask"].tolist() for batch in batches] == [
        [True] * 3,
        [True, True, False],
    ]
    for batch in batches:
        assert batch["text"].shape == (3, T) and batch["labels"].dtype == np.uint8
        for name in ("image", "text", "labels"):
            assert not batch[name][~batch["mask"]].any()
        for row, i in enumerate(batch["index"][batch["mask"]]):
            np.testing.assert_array_equal(batch["text"][row], pairs.text[i])
            corner = batch["image"][row, 0, 0, 0]
            assert corner == i


def test_a_share_of_the_crops_is_degraded():
    """Crops of one grey: only noise, a third of what degrades, changes these."""
    pairs = dataclasses.replace(collection(), images=[grey_image()] * N)

    def changed(share, number=30):
        dataset = pipeline.train_batches(
            pairs, np.arange(20), batch_size=20, image_size=8, seed=0, degraded=share
        )
        images = np.concatenate([batch["image"] for batch in take(dataset, number)])
        return (images != images[:, :1, :1]).any(axis=(1, 2, 3)).mean()

    assert changed(0.0, number=3) == 0
    assert 0.25 < changed(1.0) < 0.42
    assert 0.06 < changed(0.3) < 0.15


def test_evaluation_of_nothing_is_no_batch():
    pairs = collection()
    assert not list(pipeline.eval_batches(pairs, [], batch_size=3, image_size=8))


def test_cached_maps_are_plain_or_flipped_at_random_and_keep_their_type():
    maps = cached()
    dataset = pipeline.cached_train_batches(
        maps, collection(), np.arange(20), batch_size=10, seed=0
    )
    batches = take(dataset, 60)
    side = []
    for batch in batches:
        assert batch["image"].shape == (10, 2, 3, 4)
        assert batch["image"].dtype == np.float16
        value = batch["image"][:, 0, 0, 0]
        np.testing.assert_array_equal(np.floor(value), batch["index"])
        side.append(value - np.floor(value) > 0)
    side = np.concatenate(side)
    assert abs(side.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(side))
    plain = pipeline.cached_train_batches(
        maps, collection(), np.arange(20), batch_size=10, seed=0, flip=False
    )
    for batch, other in zip(take(plain, 4), batches, strict=False):
        np.testing.assert_array_equal(batch["index"], other["index"])
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["index"])


def test_a_share_of_the_rows_reads_the_maps_of_degraded_pictures():
    """Rows of degraded maps follow the indices; nothing else of a batch changes."""
    maps, indices = cached(), np.arange(19, -1, -2)
    degraded = maps[indices] + 100  # of position i: i + 100, flipped a little more

    def batches(number=60, **options):
        dataset = pipeline.cached_train_batches(
            maps, collection(), indices, batch_size=10, seed=0, **options
        )
        return take(dataset, number)

    plain, some = batches(), batches(degraded=(degraded, 0.3))
    read = []
    for before, after in zip(plain, some, strict=True):
        np.testing.assert_array_equal(before["index"], after["index"])
        difference = (after["image"] - before["image"]).reshape(10, -1)
        read.append(difference[:, 0] > 50)
        expected = np.where(read[-1], 100, 0)[:, None]
        np.testing.assert_allclose(difference, expected + 0 * difference, atol=0.1)
    share = np.concatenate(read).mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 600)
    for batch in batches(number=6, degraded=(degraded, 1.0)):
        assert (batch["image"] > 50).all()


def test_processes_read_the_same_degraded_rows_as_one():
    maps, indices = cached(), np.arange(20)

    def first(share):
        dataset = pipeline.cached_train_batches(
            maps,
            collection(),
            indices,
            batch_size=10,
            seed=0,
            degraded=(maps + 100, 0.5),
            share=share,
        )
        return take(dataset, 1)[0]["image"]

    parts = [first((0, 2)), first((1, 2))]
    np.testing.assert_array_equal(np.concatenate(parts), first((0, 1)))


def test_cached_maps_may_lie_in_a_file_and_are_read_fast(tmp_path):
    pairs, maps = collection(400, encode=False), cached(400, (12, 12, 96))
    np.save(tmp_path / "maps.npy", maps)
    mapped = np.load(tmp_path / "maps.npy", mmap_mode="r")
    dataset = pipeline.cached_train_batches(
        mapped, pairs, np.arange(400), batch_size=100, seed=0
    )
    iterator = iter(dataset)
    batch = next(iterator)
    np.testing.assert_array_equal(np.floor(batch["image"][:, 0, 0, 0]), batch["index"])
    start = time.process_time()
    for _ in range(20):
        next(iterator)
    # Some 12,000 pairs a second on one core; a loop over pairs is far below.
    assert 2000 / (time.process_time() - start) > 1000


def test_mistakes_are_named():
    pairs, maps = collection(), cached()
    with pytest.raises(ValueError, match=r"train_batches: batch_size .*\(3\), got 4"):
        train(pairs, np.arange(3))
    with pytest.raises(ValueError, match="eval_batches: batch_size must be positive"):
        pipeline.eval_batches(pairs, [0], batch_size=0, image_size=8)
    with pytest.raises(ValueError, match=r"maps must have shape \[23, 2, h, w, C\]"):
        pipeline.cached_eval_batches(maps[:, 0], pairs, [0], batch_size=1)
    with pytest.raises(ValueError, match=r"indices must be positions .* from 0 to 23"):
        train(pairs, np.arange(24))


@pytest.mark.slow
def test_worker_processes_give_the_same_batches():
    pairs, indices = collection(), np.arange(N)
    expected = take(train(pairs, indices), 12)
    dataset = train(pairs, indices, workers=2)
    iterator = iter(dataset)
    batches = [next(iterator) for _ in range(7)]
    state = iterator.get_state()
    batches += [next(iterator) for _ in range(5)]
    assert_equal(batches, expected)
    resumed = iter(dataset)
    resumed.set_state(state)
    assert_equal([next(resumed) for _ in range(5)], expected[7:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ["a", "a"]}, r"ids must be unique.*\(a\)"),
        ({"labels": np.full((2, 1), 2)}, "labels must be 0 or 1"),
        ({"text": np.zeros((3, 1))}, "one entry a pair"),
        ({"text": np.zeros(2)}, "table of two axes"),
        ({"vocabulary": ("a", "b")}, "text has 1 columns, but vocabulary has 2"),
    ],
)
def test_a_collection_checks_that_its_columns_fit_together(change, message):
    columns = dict(
        name="two",
        ids=["a", "b"],
        images=[b"", b""],
        text=np.zeros((2, 1)),
        captions=["", ""],
        labels=np.zeros((2, 1)),
        vocabulary=("a",),
        label_names=("x",),
    )
    assert len(Collection(**columns)) == 2
    with pytest.raises(ValueError, match=message):
        Collection(**{**columns, **change})


def share_of(make, count, number):
    """Rows of a process, over three epochs and a part: 23 pairs give 5 batches of 4."""
    return take(make(share=(number, count)), 17)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_shares_of_several_processes_are_the_rows_of_one(workers):
    pairs = collection()

    def make(**options):
        return train(pairs, np.arange(N), workers=workers, **options)

    whole = share_of(make, 1, 0)
    shares = [share_of(make, 2, number) for number in range(2)]
    joined = [
        {name: np.concatenate([a[name], b[name]]) for name in a}
        for a, b in zip(*shares, strict=True)
    ]
    assert shares[0][0]["image"].shape == (2, 8, 8, 3)
    assert_equal(joined, whole)


def test_shares_of_cached_maps_and_of_evaluation_are_rows_too():
    pairs, maps = collection(), cached()
    makers = [
        lambda **k: pipeline.cached_train_batches(
            maps, pairs, np.arange(N), batch_size=4, seed=3, **k
        ),
        lambda **k: pipeline.cached_eval_batches(
            maps, pairs, np.arange(N), batch_size=4, **k
        ),
        lambda **k: pipeline.eval_batches(
            pairs, np.arange(N), batch_size=4, image_size=8, threads=1, **k
        ),
    ]
    for make in makers:
        whole = take(make(), 6)
        for number in range(4):
            part = take(make(share=(number, 4)), 6)
            rows = slice(number, number + 1)
            assert_equal(part, [{k: v[rows] for k, v in b.items()} for b in whole])


def test_a_share_goes_on_where_it_was():
    make = train(collection(), np.arange(N), share=(1, 2))
    iterator = iter(make)
    next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(6)]
    iterator.set_state(state)
    assert_equal([next(iterator) for _ in range(6)], expected)


@pytest.mark.parametrize("share", [(0, 3), (2, 2), (-1, 2)])
def test_shares_that_do_not_divide_a_batch_are_refused(share):
    with pytest.raises(ValueError, match="a batch of 4 cannot be read in equal parts"):
        train(collection(), np.arange(N), share=share)
