"""Sentences of a picture of two groups of shapes, all true, each telling all of it.

Each names both groups with their number, size, colour, pattern and kind, and how they
lie. They differ in their words and in which group comes first, so that neither a word
nor its place alone tells which picture is meant.
"""

# Words for one and the same, of which a sentence takes any.
COUNTS = {1: ("a", "one"), 2: ("two", "a pair of"), 3: ("three",)}
SIZES = {"small": ("small", "little"), "large": ("large", "big")}
ADJECTIVES = {
    "plain": ("", "plain"),
    "striped": ("striped",),
    "dotted": ("dotted", "spotted"),
}
ENDINGS = {"striped": "with stripes", "dotted": "with dots"}
PLURALS = {"fish": "fish"}  # all others take an s
# How the first group lies to the second; the second to the first; where each lies.
RELATIONS = {
    "above": (
        ("above", "over"),
        ("below", "under"),
        ("at the top", "at the bottom"),
    ),
    "left of": (
        ("left of", "to the left of"),
        ("right of", "to the right of"),
        ("on the left", "on the right"),
    ),
}


def phrase(group, rng) -> str:
    """A group in words, such as "two small red houses with stripes".

    Args:
        group: a `captioned_shapes.Group`.
        rng: a `random.Random`, for what can be said in several ways.
    """
    noun = group.kind
    if group.count > 1:
        noun = PLURALS.get(noun, f"{noun}s")
    words = [rng.choice(COUNTS[group.count]), rng.choice(SIZES[group.size])]
    form = rng.choice(("before", "after", "ending"))
    if form == "ending" and group.pattern in ENDINGS:
        words += [group.colour, noun, ENDINGS[group.pattern]]
    else:
        adjectives = [rng.choice(ADJECTIVES[group.pattern]), group.colour]
        words += [*(adjectives if form == "before" else adjectives[::-1]), noun]
    return " ".join(word for word in words if word)


def _one_after_the_other(scene, rng, first, second):
    near, _, _ = RELATIONS[scene.relation]
    return f"{first} {rng.choice(near)} {second}"


def _the_other_way_round(scene, rng, first, second):
    _, far, _ = RELATIONS[scene.relation]
    return f"{second} {rng.choice(far)} {first}"


def _place_first(scene, rng, first, second):
    near, _, _ = RELATIONS[scene.relation]
    verb = "is" if scene.first.count == 1 else "are"
    return f"{rng.choice(near)} {second} there {verb} {first}"


def _then(scene, rng, first, second):
    _, far, _ = RELATIONS[scene.relation]
    pronoun = "it" if scene.first.count == 1 else "them"
    return f"{first}, and {rng.choice(far)} {pronoun} {second}"


def _sides(scene, rng, first, second):
    one, other = RELATIONS[scene.relation][2]
    return f"{first} {one} and {second} {other}"


def _sides_the_other_way_round(scene, rng, first, second):
    one, other = RELATIONS[scene.relation][2]
    return f"{second} {other} and {first} {one}"


FORMS = (
    _one_after_the_other,
    _the_other_way_round,
    _place_first,
    _then,
    _sides,
    _sides_the_other_way_round,
)


def sentences(scene, rng, count: int = 5) -> list[str]:
    """Sentences of a scene, each of a form of its own, so no two are alike.

    >>> import random
    >>> from modal_aware_jax.data.captioned_shapes import Group, Scene
    >>> kite = Group(1, "large", "red", "striped", "kite")
    >>> houses = Group(2, "small", "white", "plain", "house")
    >>> sentences(Scene(kite, "above", houses), random.Random(0), 1)
    ['One large red striped kite, and below it a pair of little white plain houses.']

    Args:
        scene: a `captioned_shapes.Scene`.
        rng: a `random.Random`.
        count: 6 at most.
    """
    told = []
    for form in rng.sample(FORMS, count):
        first, second = phrase(scene.first, rng), phrase(scene.second, rng)
        text = form(scene, rng, first, second)
        told.append(f"{text[0].upper()}{text[1:]}.")
    return told
