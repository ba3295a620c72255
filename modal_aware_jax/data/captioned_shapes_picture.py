"""Draws two groups of shapes, each in its half of the picture.

Integer arithmetic and 8-bit Pillow operations, as in `shapes_picture.py`, whose shapes,
walls and noise these are. Lengths are in 1/64 of the side.
"""

import numpy as np
from PIL import Image

from modal_aware_jax.data.shapes_picture import (
    BRIGHTNESS,
    background,
    draw_thing,
    noise,
)

RADIUS = {"large": 10, "small": 6}
BRICK_RATE = 0.2  # of the walls; no sentence tells of it
PERIODS = (5, 6)  # of stripes and dots: fine enough for small things


def places(rng, scene):
    """Centres (x, y) of the things of both groups, each a list."""
    found = []
    for start, group in ((0, scene.first), (32, scene.second)):
        radius, slot = RADIUS[group.size], 64 // group.count
        spots = []
        for number in range(group.count):
            low, high = slot * number + radius, slot * (number + 1) - radius
            along = rng.randint(low, max(low, high))
            across = rng.randint(start + radius, start + 32 - radius)
            is_row = scene.relation == "above"
            spots.append((along, across) if is_row else (across, along))
        found.append(spots)
    return found


def draw(scene, image_size, rng):
    """Paints a scene: a wall, both groups, light, sensor noise.

    Args:
        scene: a `captioned_shapes.Scene`.
        image_size: side of the picture in pixels.
        rng: a `random.Random`, for everything the scene leaves open.

    Returns:
        An RGB picture, image_size × image_size.
    """
    picture = background(rng, image_size, rng.random() < BRICK_RATE)
    groups = (scene.first, scene.second)
    for group, spots in zip(groups, places(rng, scene), strict=True):
        for x, y in spots:
            draw_thing(rng, picture, group, x, y, RADIUS[group.size], periods=PERIODS)
    percent = rng.randint(*BRIGHTNESS["day"])
    row, column = rng.randrange(image_size), rng.randrange(image_size)
    grain = noise(image_size)[row : row + image_size, column : column + image_size]
    pixels = np.asarray(picture).astype(np.int32) * percent // 100
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
