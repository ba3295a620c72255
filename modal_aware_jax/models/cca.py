"""Regularised canonical correlation analysis in closed form: the linear baseline."""

from typing import NamedTuple

import numpy as np


class CanonicalCorrelation(NamedTuple):
    """Two linear maps to one space, float64.

    Attributes:
      image_mean, text_mean: [Di], [Dt], subtracted first.
      image_map, text_map: [Di, F], [Dt, F].
      correlations: [F], descending, of the training pairs (the regularised ones).
    """

    image_mean: np.ndarray
    image_map: np.ndarray
    text_mean: np.ndarray
    text_map: np.ndarray
    correlations: np.ndarray

    def embed_image(self, image, *, power: float = 0.0) -> np.ndarray:
        """Maps images [B, Di] to [B, F], every coordinate times correlation^power.

        Weights of power 4 with the cosine are the "normalised" CCA of Gong et al.
        (arXiv:1212.4522, eq. 5); power 0 is plain CCA.
        """
        rows = _project("image", image, self.image_mean, self.image_map)
        return rows * self.correlations**power

    def embed_text(self, text, *, power: float = 0.0) -> np.ndarray:
        """Maps texts [B, Dt] to [B, F], as `embed_image` maps images."""
        rows = _project("text", text, self.text_mean, self.text_map)
        return rows * self.correlations**power


def fit_cca(
    image, text, num_components: int, *, regularization: float = 0.0
) -> CanonicalCorrelation:
    """Directions of both sides whose projections correlate the most.

        maximise tr(Wᵀ C_it V)  with  Wᵀ (C_ii + r_i I) W = I = Vᵀ (C_tt + r_t I) V

    (Hotelling 1936; ridge as in Hardoon et al., Neural Computation 2004.) Solved by the
    Cholesky factors of both sides and one singular value decomposition. r is
    `regularization` times the mean variance of a side's features, so that it does not
    depend on their units. Without it, features that outnumber the pairs have no
    solution; and the more features, the more of the correlation is chance.

    Args:
        image, text: [N, Di], [N, Dt]; row i of both is a pair. An image with several
            texts is repeated.
        num_components: F, at most the smaller of Di and Dt.
        regularization: 0 or more.

    Returns:
        The maps; scaled so that the (regularised) variance of each coordinate is 1.

    Raises:
        ValueError: shapes do not fit, values are not finite, or a side's covariance is
            singular.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 3))
        >>> fit_cca(x, x[:, ::-1] * 2, 3).correlations.round(6).tolist()
        [1.0, 1.0, 1.0]
    """
    image, text = (np.asarray(x, np.float64) for x in (image, text))
    if image.ndim != 2 or text.ndim != 2 or len(image) != len(text) or len(image) < 2:
        raise ValueError(
            "fit_cca: expected image [N, Di] and text [N, Dt] of the same N >= 2, got "
            f"{image.shape} and {text.shape}."
        )
    most = min(image.shape[1], text.shape[1])
    if not 1 <= num_components <= most:
        raise ValueError(
            f"fit_cca: expected num_components from 1 to {most}, the narrower side, "
            f"got {num_components}."
        )
    if regularization < 0 or not np.isfinite(regularization):
        raise ValueError(
            f"fit_cca: expected regularization >= 0, got {regularization}."
        )
    image_mean, image_factor, image = _whitening("image", image, regularization)
    text_mean, text_factor, text = _whitening("text", text, regularization)
    across = image.T @ text / (len(image) - 1)  # [Di, Dt]
    left = np.linalg.solve(image_factor, across)
    whitened = np.linalg.solve(text_factor, left.T).T
    u, correlations, v = np.linalg.svd(whitened, full_matrices=False)
    kept = slice(num_components)
    return CanonicalCorrelation(
        image_mean,
        np.linalg.solve(image_factor.T, u[:, kept]),
        text_mean,
        np.linalg.solve(text_factor.T, v[kept].T),
        np.clip(correlations[kept], 0, 1),
    )


def _whitening(name, rows, regularization):
    """Mean, Cholesky factor of the regularised covariance, and the centred rows."""
    if not np.isfinite(rows).all():
        raise ValueError(f"fit_cca: {name} holds NaN or infinity.")
    mean = rows.mean(axis=0)
    rows = rows - mean
    covariance = rows.T @ rows / (len(rows) - 1)
    ridge = regularization * np.trace(covariance) / len(covariance)
    covariance[np.diag_indices_from(covariance)] += ridge
    spectrum = np.linalg.eigvalsh(covariance)  # ascending
    if spectrum[0] <= 1e-12 * spectrum[-1]:
        raise ValueError(
            f"fit_cca: the covariance of {name} is singular ({rows.shape[1]} features, "
            f"{len(rows)} pairs). Give regularization above 0, such as 0.1."
        )
    return mean, np.linalg.cholesky(covariance), rows


def _project(name, rows, mean, weights):
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(mean):
        raise ValueError(
            f"CanonicalCorrelation expects {name} rows [B, {len(mean)}], got "
            f"{rows.shape}."
        )
    return (rows - mean) @ weights
