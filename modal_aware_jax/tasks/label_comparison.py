"""How runs of matching by labels stand beside each other: precision and MAP."""

import numpy as np

from modal_aware_jax.report.label_matches import (
    WAYS,
    draw_label_matches,
    write_label_matches,
)
from modal_aware_jax.retrieval.evaluate import PARTS
from modal_aware_jax.tasks.task import Comparison, Lead, Mean

NAMES = ("", *(part.name for part in PARTS))


def read(stored: dict) -> dict:
    """A result as JSON gives it back -> as `evaluate_embedding_parts` gave it."""
    return {**stored, **{way: _read_part(stored[way]) for way in WAYS}}


def _read_part(stored):
    result = dict(stored)
    result["map"] = float(stored["map"])
    if "average_precision" in stored:
        result["average_precision"] = np.asarray(stored["average_precision"], float)
    precision = stored["precision_at"].items()
    result["precision_at"] = {int(n): float(value) for n, value in precision}
    if "by_rank" in stored:
        own = {key: np.asarray(x, float) for key, x in stored["by_rank"].items()}
        result["by_rank"] = own
    for part in (*NAMES[1:], "embeddings"):
        if part in stored:
            result[part] = _read_part(stored[part])
    return result


def mean(results: list[dict]) -> dict:
    """The mean over seeds of what tables and figures show."""
    return {way: _mean_of([result[way] for result in results]) for way in WAYS}


def _mean_of(results):
    first = dict(results[0])
    first.pop("average_precision", None)
    for key, value in results[0].items():
        every = [result.get(key) for result in results]
        if isinstance(value, dict) and all(every):
            first[key] = _mean_of(every)
        elif key in first and not isinstance(value, dict):
            first[key] = np.mean(every, axis=0)
            first[key] = type(value)(first[key]) if np.isscalar(value) else first[key]
    return first


def draw(directory, results: dict, bits: int) -> list:
    """Precision over recall by rank of both ways, the means over the seeds."""
    del bits
    return draw_label_matches(
        directory, {name: mean(some) for name, some in results.items()}
    )


def write(directory, results: dict, *, curves, title: str) -> None:
    """The page of a comparison."""
    write_label_matches(directory, results, title=title, curves=curves)


def _of(way, part, key, n=None, before=False):
    """`of(result)`: a score of a direction and part, or None."""

    def of(result):
        own = result[way].get("embeddings", {}) if before else result[way]
        own = own.get(part, {}) if part else own
        value = own.get(key)
        return value if n is None or value is None else value[n]

    return of


def _columns():
    """MAP, precision at 5 and 10 of both ways, of the whole database and of unseen."""
    for part in ("", "unseen"):
        shown = ", unseen pairs" if part else ""
        for way, title in WAYS.items():
            name = "_".join(filter(None, (way, part)))
            about = f"MAP {title}{shown}:"
            map_of = _of(way, part, "map")
            yield Mean(f"map_{name}", about[:-1], map_of, about, about[:-1])
            yield Lead(
                f"map_{name}_",
                f"{title}{shown}: ",
                _of(way, part, "average_precision"),
            )
            for n in (5, 10):
                of = _of(way, part, "precision_at", n)
                yield Mean(f"p{n}_{name}", f"P@{n} {title}{shown}", of)
    for way, title in WAYS.items():
        for n in (5, 10):
            of = _of(way, "", "precision_at", n, before=True)
            yield Mean(f"p{n}_{way}_before", f"P@{n} {title} before re-ranking", of)


COMPARISON = Comparison(
    columns=tuple(_columns()),
    items={
        "_".join(filter(None, (way, part))): tuple(
            filter(None, (way, part, "average_precision"))
        )
        for part in NAMES
        for way in WAYS
    },
    read=read,
    mean=mean,
    draw=draw,
    write=write,
)
