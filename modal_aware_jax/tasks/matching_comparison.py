"""How runs of matching stand beside each other: recalls, their sum, who leads."""

import numpy as np

from modal_aware_jax.report.matches import draw_matches, write_matches
from modal_aware_jax.retrieval.evaluate_matching import DIRECTIONS, KS
from modal_aware_jax.tasks.task import Comparison, Lead, Mean


def read(stored: dict) -> dict:
    """A result as JSON gives it back -> as `evaluate_matching` gave it."""
    result = dict(stored)
    for name in DIRECTIONS:
        arrays = {
            key: np.asarray(stored[name][key], float) for key in ("recall", "cmc")
        }
        result[name] = {**stored[name], **arrays}
    if "by_rank" in stored:  # results of before it was kept lack it
        result["by_rank"] = {
            name: {key: np.asarray(stored["by_rank"][name][key], float) for key in some}
            for name, some in stored["by_rank"].items()
        }
    result["rsum"] = float(result["rsum"])
    result["of_image"] = np.asarray(result["of_image"], float)
    if "embeddings" in result:
        own = dict(stored["embeddings"])
        if "of_image" in own:  # a table's cells carry it apart
            own["of_image"] = np.asarray(own["of_image"], float)
        result["embeddings"] = own
    return result


def mean(results: list[dict]) -> dict:
    """The mean over seeds of what tables and figures show."""
    first = dict(results[0])
    for key in ("rsum_low", "rsum_high", "of_image"):
        first.pop(key, None)
    first["rsum"] = float(np.mean([result["rsum"] for result in results]))
    if "embeddings" in first:
        own = np.mean([result["embeddings"]["rsum"] for result in results])
        first["embeddings"] = {"rsum": float(own)}
    for name in DIRECTIONS:
        first[name] = _mean_of([result[name] for result in results])
    if all("by_rank" in result for result in results):
        first["by_rank"] = {
            name: _mean_of([result["by_rank"][name] for result in results])
            for name in DIRECTIONS
        }
    else:
        first.pop("by_rank", None)
    return first


def _mean_of(results: list[dict]) -> dict:
    """The means of numbers and arrays under the same names."""
    return {key: np.mean([r[key] for r in results], axis=0) for key in results[0]}


def draw(directory, results: dict, bits: int) -> list:
    """Cumulative match of the means over the seeds."""
    del bits
    return draw_matches(directory, {name: mean(some) for name, some in results.items()})


def write(directory, results: dict, *, curves, title: str) -> None:
    """The page of a comparison."""
    write_matches(directory, results, title=title, curves=curves)


def _recalls():
    """Columns of R@1, 5 and 10 of both directions, in percent."""
    for name, short, arrow in zip(
        DIRECTIONS, ("i2t", "t2i"), ("i→t", "t→i"), strict=True
    ):
        for place, k in enumerate(KS):
            yield Mean(
                f"r{k}_{short}",
                f"R@{k} {arrow}",
                lambda result, name=name, place=place: float(
                    100 * result[name]["recall"][place]
                ),
            )


COMPARISON = Comparison(
    columns=(
        Mean(
            "rsum",
            "rsum",
            lambda result: result["rsum"],
            "Sum of R@1, R@5 and R@10 both ways on the test images, in percent:",
            "rsum",
        ),
        Lead("", "", lambda result: result["of_image"]),
        *_recalls(),
        Mean(
            "embeddings_rsum",
            "rsum before re-ranking",
            lambda result: result.get("embeddings", {}).get("rsum"),
        ),
        Lead(
            "embeddings_",
            "",
            lambda result: result.get("embeddings", result)["of_image"],
        ),
    ),
    items={
        "of_image": ("of_image",),
        "embeddings_of_image": ("embeddings", "of_image"),
    },
    read=read,
    mean=mean,
    draw=draw,
    write=write,
)
