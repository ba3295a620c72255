"""From finished cells to a table's rows: means over seeds, leads, published MAP."""

import statistics

import numpy as np

from modal_aware_jax.build import METHODS
from modal_aware_jax.compare.cells import PART_NAMES, Cell, Finished
from modal_aware_jax.compare.published import published
from modal_aware_jax.report.paired_bootstrap import paired_bootstrap

ABLATION = ("modal_aware", "no_kernel", "no_attention", "concat")


def in_order(cells, first=()) -> list[str]:
    """The methods of cells: those of `first` in its order, then as in `METHODS`.

    >>> in_order([Cell("image", 8, 0), Cell("gmu", 8, 0)], ["image"])
    ['image', 'gmu']
    """
    there = {cell.method for cell in cells}
    return [m for m in dict.fromkeys((*first, *METHODS)) if m in there]


def summarise(
    finished: dict[Cell, Finished], methods, *, source: str = "", text: str = "bag"
) -> list[dict]:
    """One row a code length and method: MAP over seeds, and the first method's lead.

    The lead is the mean difference of average precision over the queries, each first
    averaged over the seeds that both methods have; its interval covers the choice of
    queries, not of seeds.

    Args:
      finished: what is there; methods need not have the same lengths and seeds.
      methods: the rows of each length, the first the one to compare the others with.
      source: the data source, for published numbers.
      text: the text representation, for published numbers.

    Returns:
      dicts of method, title, bits, seeds (their number), map, map_sd, map_index, lead,
      lead_low, lead_high, lead_seeds, published, seconds (median of a cell); of the
      parts of the database map_seen, map_unseen, map_unseen_sd and the lead on unseen
      pairs, unseen_lead and so on, None where no cell was scored so.
    """
    rows = []
    for bits in sorted({cell.bits for cell in finished}):
        ours = of_method(finished, methods[0], bits)
        for method in methods:
            cells = of_method(finished, method, bits)
            if not cells:
                continue
            scores = [one.result["map_expected"] for one in cells.values()]
            index = [one.result["map_index"] for one in cells.values()]
            base = {} if method == methods[0] else ours
            unseen = lead(of_part(base, "unseen"), of_part(cells, "unseen"))
            seconds = [one.seconds for one in cells.values() if one.seconds]
            rows.append(
                {
                    "method": method,
                    "title": METHODS[method].title if method in METHODS else method,
                    "bits": bits,
                    "seeds": len(cells),
                    "map": float(np.mean(scores)),
                    "map_sd": float(np.std(scores, ddof=1)) if len(cells) > 1 else None,
                    "map_index": float(np.mean(index)),
                    **lead(base, cells),
                    "map_seen": map_of_part(cells, "seen")[0],
                    **dict(
                        zip(
                            ("map_unseen", "map_unseen_sd"),
                            map_of_part(cells, "unseen"),
                            strict=True,
                        )
                    ),
                    **{f"unseen_{key}": value for key, value in unseen.items()},
                    "published": published(source, method, bits, text),
                    "seconds": statistics.median(seconds) if seconds else None,
                }
            )
    return rows


def of_method(finished, method: str, bits: int) -> dict[int, Finished]:
    """{seed: finished} of one method and code length."""
    return {
        cell.seed: one
        for cell, one in sorted(finished.items())
        if (cell.method, cell.bits) == (method, bits)
    }


def of_part(cells: dict[int, Finished], part: str) -> dict[int, Finished]:
    """The cells that were scored on a part of the database, with that part's result."""
    return {
        seed: one._replace(result=one.result[part])
        for seed, one in cells.items()
        if part in one.result
    }


def map_of_part(cells, part: str) -> tuple[float | None, float | None]:
    """Mean and standard deviation over the seeds of a part's MAP; None where none."""
    own = of_part(cells, part).values()
    scores = [one.result["map_expected"] for one in own]
    if not scores:
        return None, None
    deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    return float(np.mean(scores)), deviation


def lead(ours: dict[int, Finished], theirs: dict[int, Finished]) -> dict:
    """By how much ours is ahead, over the seeds of both; None where there are none."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return dict.fromkeys(("lead", "lead_low", "lead_high"), None) | {
            "lead_seeds": 0
        }

    def per_query(cells):
        scores = [cells[seed].result["average_precision"] for seed in seeds]
        return np.mean(scores, axis=0)

    found = paired_bootstrap(per_query(ours), per_query(theirs))
    return {
        "lead": found.mean,
        "lead_low": found.low,
        "lead_high": found.high,
        "lead_seeds": len(seeds),
    }


def mean_result(cells: dict[int, Finished]) -> dict:
    """The mean over seeds of what tables and curves show of a result.

    At radii where one seed finds nothing relevant the precision is no mean of the same
    thing; recall is set to 0 there, which draws no point.
    """
    results = [one.result for one in cells.values()]
    recall = np.array([result["radius_recall"] for result in results])
    precision = np.mean([result["radius_precision"] for result in results], axis=0)
    found = (recall > 0).all(axis=0)
    ns = results[0]["precision_at"]
    parts = {
        part: mean_result(of_part(cells, part))
        for part in PART_NAMES
        if all(part in result for result in results)
    }
    first = {key: value for key, value in results[0].items() if key not in PART_NAMES}
    if all("map_unbinarised" in result for result in results):
        scores = [result["map_unbinarised"] for result in results]
        first["map_unbinarised"] = float(np.mean(scores))
    if all("health" in result for result in results):
        first["health"] = {
            key: type(value)(np.mean([r["health"][key] for r in results]))
            for key, value in first["health"].items()
        }
    return (
        first
        | parts
        | {
            "map_expected": float(np.mean([r["map_expected"] for r in results])),
            "map_index": float(np.mean([r["map_index"] for r in results])),
            "precision_at": {
                n: float(np.mean([r["precision_at"][n] for r in results])) for n in ns
            },
            "radius_precision": precision,
            "radius_recall": np.where(found, recall.mean(axis=0), 0.0),
        }
    )
