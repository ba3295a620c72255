"""An embedded collection of pictures with sentences: no download, made in seconds.

A picture shows two groups of shapes, such as a red striped kite above two small houses.
Five sentences tell it, each all of it in other words (`captioned_shapes_sentences.py`),
so a sentence is true of one picture of the collection and of no other.

Pictures come in families of four that differ in what belongs to what alone: the first
as drawn by lot, one with the colours of its groups exchanged, one with their patterns
exchanged, one with their places exchanged. The sentences of a family have the same
words, so who reads them as a bag of words finds the family and not the picture: of one
sentence, its picture first among the four in a quarter of the cases.

Families stay together: of each sixteen, two are to test with and one to validate with.
"""

import dataclasses
import random

import numpy as np

from modal_aware_jax.data.captioned_shapes_picture import draw
from modal_aware_jax.data.captioned_shapes_sentences import sentences
from modal_aware_jax.data.captions.collection import caption_of
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.shapes import KINDS, encode_jpeg, generator

SIZES = ("small", "large")
COLOURS = ("red", "yellow", "green", "blue", "purple", "white")
PATTERNS = ("plain", "striped", "dotted")
RELATIONS = ("above", "left of")
FAMILY = 4  # pictures of the same words
PARTS = {0: "query", 8: "query", 4: "validation"}  # by a family's number modulo 16


@dataclasses.dataclass(frozen=True)
class Group:
    """One to three things alike."""

    count: int
    size: str
    colour: str
    pattern: str
    kind: str


@dataclasses.dataclass(frozen=True)
class Scene:
    """Two groups of different kinds: the first is above, or left of, the second."""

    first: Group
    relation: str
    second: Group


def imagine(rng: random.Random) -> Scene:
    """Draws a scene whose groups differ in kind, colour and pattern."""
    drawn = (rng.sample(some, 2) for some in (COLOURS, PATTERNS, KINDS))
    first, second = (
        Group(rng.randint(1, 3), rng.choice(SIZES), *told)
        for told in zip(*drawn, strict=True)
    )
    return Scene(first, rng.choice(RELATIONS), second)


def exchanged(scene: Scene, *names: str) -> Scene:
    """The scene with some of what its groups have exchanged between them.

    Args:
        names: fields of `Group`.
    """
    one, other = (
        {name: getattr(group, name) for name in names}
        for group in (scene.first, scene.second)
    )
    first = dataclasses.replace(scene.first, **other)
    return Scene(first, scene.relation, dataclasses.replace(scene.second, **one))


def family(scene: Scene) -> tuple[Scene, Scene, Scene, Scene]:
    """The scene, and those of the same words: other colours, patterns and places."""
    turned = Scene(scene.second, scene.relation, scene.first)
    return (scene, exchanged(scene, "colour"), exchanged(scene, "pattern"), turned)


def describe(num_images: int, *, seed: int = 0) -> list[Scene]:
    """The scenes of `load(num_images=num_images, seed=seed)`, all different.

    >>> describe(4)[3].first == describe(4)[0].second
    True
    """
    rng = generator(seed, "captioned", "scenes")
    scenes: dict[Scene, None] = {}  # in order
    while len(scenes) < num_images:
        some = family(imagine(rng))
        if not scenes.keys() & set(some):
            scenes.update(dict.fromkeys(some))
    return list(scenes)[:num_images]


def load(*, num_images: int = 4000, image_size: int = 80, seed: int = 0) -> Collection:
    """Makes the collection; equal arguments give equal bytes.

    Args:
        num_images: N, a multiple of 4, 64 at least: fewer have no parts.
        image_size: side of the JPEG pictures, 32 at least.
        seed: a non-negative integer.

    Returns:
        A `Collection` of N pictures with five sentences each, one a line of the
        caption, and parts; it has no words and no labels.

    >>> load(num_images=64).captions[0].split("\\n")[0]
    'Three big striped green stars right of three large blue plain fish.'
    """
    if num_images < 16 * FAMILY or num_images % FAMILY:
        raise ValueError(
            f"captioned_shapes.load: num_images must be a multiple of {FAMILY}, and "
            f"{16 * FAMILY} at least, but it is {num_images}."
        )
    if image_size < 32:
        raise ValueError(
            "captioned_shapes.load: image_size must be at least 32 (patterns would "
            f"vanish below), but it is {image_size}."
        )
    if seed < 0:
        raise ValueError(
            "captioned_shapes.load: seed must be 0 or a positive integer, but it is "
            f"{seed}."
        )
    images, captions = [], []
    for i, scene in enumerate(describe(num_images, seed=seed)):
        told = sentences(scene, generator(seed, i, "sentences"))
        captions.append(caption_of(told))
        images.append(encode_jpeg(draw(scene, image_size, generator(seed, i, "seen"))))
    nothing = np.zeros((num_images, 0))
    return Collection(
        name="captioned_shapes",
        ids=np.array([f"{i:06d}" for i in range(num_images)]),
        images=images,
        text=nothing,
        captions=captions,
        labels=nothing,
        vocabulary=(),
        label_names=(),
        parts=[PARTS.get(i // FAMILY % 16, "train") for i in range(num_images)],
    )
