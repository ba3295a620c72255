"""The fused vectors of the test posts of finished cells, drawn by class."""

import numpy as np

from modal_aware_jax import build
from modal_aware_jax.report import code_space


def draw_vectors(settings, workdir, directory, cells, *, points) -> None:
    """vectors_pca.png and vectors_tsne.png, method beside method.

    Args:
      settings: the comparison's config.
      workdir: of the comparison.
      directory: where the pictures go.
      cells: finished ones, one of each method.
      points: so many posts at most.
    """
    task, found = build.task_of(settings), {}
    for cell in cells:
        with np.load(workdir / cell.folder / task.arrays_file) as kept:
            found[task.methods[cell.method].title] = kept["vectors"]
            labels, names = kept["labels"], kept["class_names"].tolist()
    if labels.ndim == 1:
        rows, label = np.arange(len(labels)), labels
    else:
        rows, label, _ = code_space.one_label_each(labels)
    chosen = np.linspace(0, len(rows) - 1, min(points, len(rows))).astype(int)
    rows, label = rows[chosen], label[chosen]
    for name, project in code_space.PROJECTIONS.items():
        spaces = {method: project(vectors[rows]) for method, vectors in found.items()}
        what = {"pca": "two principal components", "tsne": "t-SNE"}[name]
        code_space.draw_code_space(
            spaces,
            label,
            names,
            directory / f"vectors_{name}.png",
            title=f"Fused vectors of {len(rows)} test posts, {what}",
        )
