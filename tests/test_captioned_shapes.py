"""Captioned shapes: sentences are parsed back, and pictures looked at again."""

import hashlib
import io
import itertools
import random
import re

import numpy as np
import pytest
from PIL import Image

from modal_aware_jax.data import captioned_shapes, captioned_shapes_picture
from modal_aware_jax.data.captioned_shapes import Group, Scene, exchanged, family
from modal_aware_jax.data.captioned_shapes_picture import draw, places
from modal_aware_jax.data.captioned_shapes_sentences import sentences

N = 256
NUMBERS = {"a": 1, "one": 1, "two": 2, "a pair of": 2, "three": 3}
SIZES = {"small": "small", "little": "small", "large": "large", "big": "large"}
PATTERN = {"striped": "striped", "stripes": "striped", "spotted": "dotted"}
PATTERN |= {"dotted": "dotted", "dots": "dotted", "plain": "plain"}
GROUP = r"((?:a pair of|a|one|two|three) (?:small|little|large|big) [a-z ]+?)"
# How a sentence lies: the group that is named first is on this side.
LIES = [
    (rf"{GROUP} (?:above|over) {GROUP}", "above", False),
    (rf"{GROUP} (?:below|under) {GROUP}", "above", True),
    (rf"{GROUP} (?:to the )?left of {GROUP}", "left of", False),
    (rf"{GROUP} (?:to the )?right of {GROUP}", "left of", True),
    (rf"(?:above|over) {GROUP} there (is|are) {GROUP}", "above", True),
    (rf"(?:to the )?left of {GROUP} there (is|are) {GROUP}", "left of", True),
    (rf"{GROUP}, and (?:below|under) (it|them) {GROUP}", "above", False),
    (rf"{GROUP}, and (?:to the )?right of (it|them) {GROUP}", "left of", False),
    (rf"{GROUP} at the top and {GROUP} at the bottom", "above", False),
    (rf"{GROUP} at the bottom and {GROUP} at the top", "above", True),
    (rf"{GROUP} on the left and {GROUP} on the right", "left of", False),
    (rf"{GROUP} on the right and {GROUP} on the left", "left of", True),
]


def parse_group(text):
    count = re.match("a pair of|a|one|two|three", text)[0]
    size, *words = text[len(count) + 1 :].split()
    said = [PATTERN[word] for word in words if word in PATTERN]
    colour = [word for word in words if word in captioned_shapes.COLOURS]
    rest = set(words) - PATTERN.keys() - {"with", *colour}
    assert len(said) <= 1 and len(colour) == 1 and len(rest) == 1, text
    kind, many = rest.pop(), NUMBERS[count] > 1
    if kind != "fish":
        assert kind.endswith("s") == many, text
        kind = kind.removesuffix("s")
    return Group(NUMBERS[count], SIZES[size], colour[0], *(said or ["plain"]), kind)


def parse(sentence):
    """The scene that a sentence tells; AssertionError where it is no sentence."""
    assert sentence[0].isupper() and sentence.endswith(".")
    text = sentence[0].lower() + sentence[1:-1]
    found = [
        (match.groups(), relation, turned)
        for pattern, relation, turned in LIES
        if (match := re.fullmatch(pattern, text))
    ]
    assert len(found) == 1, sentence
    parts, relation, turned = found[0]
    number = [part for part in parts if part in ("is", "are", "it", "them")]
    groups = [parse_group(part) for part in parts if part not in number]
    first, second = groups[::-1] if turned else groups
    if number:
        assert (number[0] in ("is", "it")) == (first.count == 1), sentence
    return Scene(first, relation, second)


@pytest.fixture(scope="module")
def pairs():
    return captioned_shapes.load(num_images=N, image_size=32, seed=3)


@pytest.fixture(scope="module")
def scenes():
    return captioned_shapes.describe(N, seed=3)


def lines(pairs):
    return [caption.split("\n") for caption in pairs.captions]


def test_every_sentence_tells_its_picture_and_no_other(pairs, scenes):
    number = {scene: i for i, scene in enumerate(scenes)}
    assert len(number) == N
    for i, told in enumerate(lines(pairs)):
        assert len(told) == len(set(told)) == 5
        assert {number[parse(sentence)] for sentence in told} == {i}


def test_every_way_to_say_it_is_true():
    rng = random.Random(0)
    heard = set()
    for _ in range(150):
        scene = captioned_shapes.imagine(rng)
        told = sentences(scene, rng, 6)
        assert len(set(told)) == 6 and {parse(text) for text in told} == {scene}
        heard.update(" ".join(told).lower().replace(".", "").replace(",", "").split())
    assert {"pair", "spotted", "dots", "stripes", "under", "over", "them"} <= heard


def test_a_family_has_the_same_things_bound_otherwise():
    kite = Group(1, "large", "red", "striped", "kite")
    house = Group(2, "small", "blue", "plain", "house")
    first, colours, patterns, turned = family(Scene(kite, "above", house))
    assert colours.first == Group(1, "large", "blue", "striped", "kite")
    assert patterns.second == Group(2, "small", "blue", "striped", "house")
    assert turned == Scene(house, "above", kite)
    assert exchanged(first, *("colour",) * 2) == colours
    assert exchanged(first, "count", "size", "colour", "pattern", "kind") == turned


def test_a_family_has_the_same_words(scenes):
    """Said in the same way, their sentences differ in the order of the words alone."""

    def words(scene, form):
        one, other = (
            f"{g.count} {g.size} {g.colour} {g.pattern} {g.kind}".split()
            for g in (scene.first, scene.second)
        )
        return sorted([*one, *other, scene.relation])

    for start in range(0, N, captioned_shapes.FAMILY):
        some = scenes[start : start + captioned_shapes.FAMILY]
        assert len(set(some)) == 4
        assert len({tuple(words(scene, 0)) for scene in some}) == 1
        assert all(s.first.kind != s.second.kind for s in some)


def test_families_stay_in_one_part(pairs):
    by_family = pairs.parts.reshape(-1, captioned_shapes.FAMILY)
    assert (by_family == by_family[:, :1]).all()
    counts = {part: int((pairs.parts == part).sum()) for part in set(pairs.parts)}
    assert counts == {"train": 208, "query": 32, "validation": 16}


def test_equal_seeds_give_equal_bytes_and_others_do_not(pairs):
    load = captioned_shapes.load
    a, b = (load(num_images=64, image_size=32, seed=seed) for seed in (3, 4))
    assert list(a.images) == list(pairs.images[:64])  # whatever the number of images
    assert list(a.captions) == list(pairs.captions[:64])
    assert list(b.images) != list(a.images) and list(b.captions) != list(a.captions)


def test_stored_digests():
    """Recorded once: another platform must make the same sentences and pixels."""
    scenes = captioned_shapes.describe(16)
    told = "\n".join(
        text for i, s in enumerate(scenes) for text in sentences(s, random.Random(i))
    )
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "3dbc82484b0a4b58"
    seen = b"".join(
        draw(s, 64, random.Random(i)).tobytes() for i, s in enumerate(scenes)
    )
    assert hashlib.sha256(seen).hexdigest()[:16] == "cab128053c068f8d"


def test_things_lie_in_their_half_and_apart():
    rng = random.Random(1)
    for _ in range(200):
        scene = captioned_shapes.imagine(rng)
        for half, (group, spots) in enumerate(
            zip((scene.first, scene.second), places(rng, scene), strict=True)
        ):
            assert len(spots) == group.count
            radius = {"large": 10, "small": 6}[group.size]
            across = [y if scene.relation == "above" else x for x, y in spots]
            assert all(
                32 * half + radius <= a <= 32 * half + 32 - radius for a in across
            )
            for one, other in itertools.combinations(spots, 2):
                assert np.hypot(*np.subtract(one, other)) >= 2 * radius - 2


@pytest.mark.parametrize("relation", captioned_shapes.RELATIONS)
def test_a_group_is_seen_on_its_side_in_its_colour(relation, monkeypatch):
    """Red things before white ones, on a grey wall: where red is, and how much."""
    monkeypatch.setattr(captioned_shapes_picture, "background", grey_wall)
    kinds = ("balloon", "house")
    for large, count in itertools.product((True, False), (1, 3)):
        size = "large" if large else "small"
        red, white = (
            Group(count, size, colour, "plain", kind)
            for colour, kind in zip(("red", "white"), kinds, strict=True)
        )
        picture = np.asarray(draw(Scene(red, relation, white), 64, random.Random(5)))
        r, g, _ = np.moveaxis(picture.astype(int), -1, 0)
        is_red = r > 2 * g
        second = is_red[32:] if relation == "above" else is_red[:, 32:]
        area = is_red.sum() / (count * {"large": 100, "small": 36}[size])
        assert second.sum() < 0.02 * is_red.sum() and 1.2 < area < 2.2


def grey_wall(rng, size, brick):
    return Image.new("RGB", (size, size), (130, 130, 130))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": 60}, "a multiple of 4, and 64 at least, but it is 60"),
        ({"num_images": 66}, "a multiple of 4, and 64 at least, but it is 66"),
        ({"image_size": 16}, "image_size must be at least 32 .* but it is 16"),
        ({"seed": -1}, "seed must be 0 or a positive integer, but it is -1"),
    ],
)
def test_what_cannot_be_made_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        captioned_shapes.load(**options)


def test_pictures_are_pictures(pairs):
    for image in pairs.images[:8]:
        assert Image.open(io.BytesIO(image)).size == (32, 32)
