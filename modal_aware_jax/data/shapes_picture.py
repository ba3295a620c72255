"""Draws one scene of the embedded `shapes` collection as a small photograph.

Everything is integer arithmetic and 8-bit Pillow operations, so that the pixels do
not depend on a platform's floating point. Lengths are in units of image_size / 64,
drawn at twice the size and averaged down.
"""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw

NOISE = 10  # sensor noise, uniform in -NOISE..NOISE of 255
CLUTTER = (5, 14)  # unlabelled scraps behind and around the things
VIVID_RATE = 0.3  # of the scraps have a colour that things have
GROUND = (138, 134, 128)
RADII = ((18, 25), (14, 18), (12, 15))  # of one, two, three things, in 1/64 of the side
APART_PERCENT = 72  # squared distance of two things, of their summed radii squared
PERIODS = (11, 13)  # of stripes, checks and dots, in 1/64 of the side
BRIGHTNESS = {"day": (76, 104), "night": (40, 58)}  # percent
TINT = {"day": (102, 100, 96), "night": (82, 92, 118)}  # percent of R, G, B

COLOURS = {
    "red": (205, 45, 45),
    "orange": (235, 135, 40),
    "yellow": (235, 210, 60),
    "green": (60, 155, 70),
    "blue": (50, 95, 200),
    "purple": (130, 65, 165),
    "pink": (235, 125, 170),
    "white": (228, 228, 224),
}

# round(1024 cos), round(1024 sin) of 48 directions.
DIRECTIONS = tuple(
    (round(1024 * math.cos(math.pi * i / 24)), round(1024 * math.sin(math.pi * i / 24)))
    for i in range(48)
)


def ellipse(x, y, rx, ry):
    return [(x + c * rx // 1024, y + s * ry // 1024) for c, s in DIRECTIONS[::2]]


def star():
    radii = [100 if i % 2 == 0 else 42 for i in range(10)]
    angles = [math.pi * (i / 5 - 0.5) for i in range(10)]
    return [
        (round(r * math.cos(a)), round(r * math.sin(a)))
        for r, a in zip(radii, angles, strict=True)
    ]


# Outlines in -100..100, y downwards: kind -> (body polygons, accent polygons).
OUTLINES = {
    "balloon": (
        [ellipse(0, -25, 68, 75), [(-14, 60), (14, 60), (0, 44)]],
        [[(-4, 60), (4, 60), (10, 80), (2, 100), (-6, 100), (2, 80)]],
    ),
    "boat": (
        [
            [(-98, 30), (98, 30), (58, 85), (-58, 85)],
            [(8, -95), (8, 15), (82, 15)],
            [(-8, -70), (-8, 15), (-60, 15)],
        ],
        [[(-5, -98), (5, -98), (5, 30), (-5, 30)]],
    ),
    "fish": (
        [ellipse(-18, 0, 80, 50), [(40, 0), (100, -55), (84, 0), (100, 55)]],
        [ellipse(-62, -12, 11, 11), [(-12, 14), (20, 6), (8, 30)]],
    ),
    "flower": (
        [
            ellipse(*(d * 58 // 1024 for d in DIRECTIONS[i]), 38, 38)
            for i in (2, 10, 19, 29, 38)
        ],
        [ellipse(0, 0, 30, 30)],
    ),
    "house": (
        [[(-72, -8), (72, -8), (72, 92), (-72, 92)]],
        [
            [(-98, -8), (98, -8), (0, -96)],
            [(-18, 92), (-18, 40), (18, 40), (18, 92)],
        ],
    ),
    "kite": (
        [[(0, -100), (66, -28), (0, 58), (-66, -28)]],
        [[(-3, 56), (3, 56), (16, 74), (-4, 86), (8, 100), (-2, 100), (-16, 84)]],
    ),
    "star": ([star()], []),
    "tree": (
        [
            [(0, -100), (-58, -18), (58, -18)],
            [(0, -62), (-84, 58), (84, 58)],
        ],
        [[(-15, 58), (15, 58), (15, 100), (-15, 100)]],
    ),
}


def smooth(mask):
    """Averages a 0/1 array of twice the size down to an 8-bit mask."""
    return Image.fromarray(mask.astype(np.uint8) * 255).reduce(2)


@functools.lru_cache(maxsize=8)
def patterns(size, periods=PERIODS):
    """Masks of every pattern in several directions and periods, {name: [mask]}."""
    y, x = np.mgrid[: 2 * size, : 2 * size]
    masks = {"striped": [], "checked": [], "dotted": [], "brick": []}
    for period in periods:
        p = 1024 * period * size // 64
        for cos, sin in DIRECTIONS[:24:3]:
            u, v = (x * cos + y * sin) % p, (y * cos - x * sin) % p
            masks["striped"].append(smooth(u < p // 2))
            masks["checked"].append(smooth((u < p // 2) == (v < p // 2)))
            radius = (u - p // 2) ** 2 + (v - p // 2) ** 2
            masks["dotted"].append(smooth(radius < (p * 32 // 100) ** 2))
    for period in (16, 20, 24):
        height = period * size // 64
        row = y // height
        joint = (y % height < height // 6 + 1) | (
            (x + row % 2 * height) % (2 * height) < height // 6 + 1
        )
        masks["brick"].append(smooth(joint))
    return masks


@functools.lru_cache(maxsize=8)
def noise(size):
    """A fixed field of sensor noise [2 size, 2 size, 3], to cut pieces from."""
    rng = np.random.default_rng(0)
    return rng.integers(-NOISE, NOISE + 1, (2 * size, 2 * size, 3), dtype=np.int16)


def vary(rng, colour, amount):
    return tuple(min(max(c + rng.randint(-amount, amount), 0), 255) for c in colour)


def scale_colour(colour, percent):
    return tuple(min(c * percent // 100, 255) for c in colour)


def background(rng, size, brick):
    """Two soft colours in patches, behind mortar lines where there is a brick wall."""
    first, second = (vary(rng, GROUND, 60) for _ in range(2))
    patches = Image.frombytes("L", (4, 4), rng.randbytes(16))
    patches = patches.resize((size, size), Image.Resampling.BICUBIC)
    picture = Image.new("RGB", (size, size), first)
    picture.paste(second, mask=patches)
    if brick:
        mortar = scale_colour(first, rng.choice((45, 160)))
        picture.paste(mortar, mask=rng.choice(patterns(size)["brick"]))
    return picture


def scatter(rng, picture, count):
    """Adds small translucent scraps that belong to no label."""
    size = picture.width
    pen = ImageDraw.Draw(picture, "RGBA")
    for _ in range(count):
        vivid = rng.random() < VIVID_RATE
        colour = rng.choice(tuple(COLOURS.values())) if vivid else GROUND
        colour = (*vary(rng, colour, 45), 150)
        x, y = rng.randrange(size), rng.randrange(size)
        w, h = rng.randint(2, 8) * size // 64, rng.randint(2, 8) * size // 64
        form = rng.choice(("ellipse", "polygon", "line"))
        if form == "ellipse":
            pen.ellipse((x - w, y - h, x + w, y + h), fill=colour)
        elif form == "polygon":
            corners = [(x - w, y), (x, y - h), (x + w, y + h // 2), (x, y + h)]
            pen.polygon(corners[: rng.randint(3, 4)], fill=colour)
        else:
            pen.line((x, y, x + 2 * w, y + h * rng.choice((-2, 2))), fill=colour)


def place(rng, count):
    """Centres and radii (x, y, r) of the things, the largest first, in a square of 64.

    Things keep apart where twelve tries find room, and may leave the picture a little.
    """
    low, high = RADII[count - 1]
    radii = sorted((rng.randint(low, high) for _ in range(count)), reverse=True)
    spots = []
    for radius in radii:
        for _ in range(12):
            x, y = (
                rng.randint(radius - 4, 68 - radius),
                rng.randint(radius - 4, 68 - radius),
            )
            if all(
                100 * ((x - a) ** 2 + (y - b) ** 2) > APART_PERCENT * (radius + r) ** 2
                for a, b, r in spots
            ):
                break
        spots.append((x, y, radius))
    return spots


def mask_of(polygons, size, x, y, radius, direction, mirror):
    """Anti-aliased mask of outlines moved to (x, y), turned and mirrored."""
    cos, sin = direction
    mask = Image.new("L", (2 * size, 2 * size))
    pen = ImageDraw.Draw(mask)
    one = 100 * 1024  # an outline's unit times a direction's
    for polygon in polygons:
        points = []
        for a, b in polygon:
            u = x * one + radius * (mirror * a * cos - b * sin)
            v = y * one + radius * (mirror * a * sin + b * cos)
            points.append((u * size // (32 * one), v * size // (32 * one)))
        pen.polygon(points, fill=255)
    return mask.reduce(2)


def draw_thing(rng, picture, thing, x, y, radius, *, periods=PERIODS):
    size = picture.width
    body, accents = OUTLINES[thing.kind]
    direction = DIRECTIONS[rng.randint(-3, 3)]
    mirror = rng.choice((-1, 1))
    colour = vary(rng, COLOURS[thing.colour], 22)
    light = sum(colour) > 380
    fill = Image.new("RGB", picture.size, colour)
    if thing.pattern != "plain":
        second = scale_colour(colour, 40) if light else vary(rng, (235, 230, 215), 15)
        fill.paste(second, mask=rng.choice(patterns(size, periods)[thing.pattern]))
    where = size, x, y, radius, direction, mirror
    picture.paste(fill, mask=mask_of(body, *where))
    if accents:
        picture.paste(scale_colour(colour, 55), mask=mask_of(accents, *where))


def draw(scene, image_size, rng):
    """Paints a scene: wall, clutter, things, light, sensor noise.

    Args:
        scene: a `shapes.Scene`; only `things`, `wall` and `light` are looked at.
        image_size: side of the picture in pixels.
        rng: a `random.Random`, for everything the scene leaves open.

    Returns:
        An RGB picture, image_size × image_size.
    """
    picture = background(rng, image_size, scene.wall == "brick")
    scatter(rng, picture, rng.randint(*CLUTTER))
    spots = place(rng, len(scene.things))
    for thing, (x, y, radius) in zip(scene.things, spots, strict=True):
        draw_thing(rng, picture, thing, x, y, radius)
    scatter(rng, picture, 2)
    percent = rng.randint(*BRIGHTNESS[scene.light])
    row, column = rng.randrange(image_size), rng.randrange(image_size)
    grain = noise(image_size)[row : row + image_size, column : column + image_size]
    pixels = np.asarray(picture).astype(np.int32)
    pixels = pixels * (percent * np.array(TINT[scene.light], np.int32)) // 10000
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
