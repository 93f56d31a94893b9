"""Classes of tokens: clusters of a language model's embedding matrix (Singh et al. 2023, arXiv 2311.08360, section
4.3)."""

import io
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ebbtide.data.download import Report, WorkProgress
from ebbtide.errors import InputError, nearest, require
from ebbtide.runs.atomic import write_file
from ebbtide.sources.tokens import tokens_file

SPECIAL = 259
"""LLaMA's first token ids, which are no words: three special tokens and 256 single bytes."""
ROUNDS = 30
"""Largest number of rounds of k-means from the random start."""
MOVES, SETTLE = 24, 3
"""Number of times that too small clusters are moved, and of rounds of k-means after each."""
SPARE = 1.25
"""Clusters per requested class."""
WORDLLAMA = "wordllama"
LARGEST = 16 * 2**30
"""Largest number of bytes of a matrix as float32."""
ROWS = 4096
"""Tokens compared with all centroids at a time."""


class KMeansState(NamedTuple):
    """Centroids of norm 1, each row's nearest centroid, and its cosine similarity to it."""

    centroids: Float[np.ndarray, "k dim"]
    own: Int[np.ndarray, " row"]
    cosine: Float[np.ndarray, " row"]

    def counts(self) -> Int[np.ndarray, " k"]:
        """The number of rows in each cluster."""
        return np.bincount(self.own, minlength=len(self.centroids))

    def enough(self, least: int) -> int:
        """The number of clusters with at least `least` rows."""
        return int((self.counts() >= least).sum())


class Clusters(NamedTuple):
    """Classes of tokens: `token[c, e]` is the token's id, `vector[c, e]` its embedding, `cosine[c, e]` its similarity
    to the centroid, falling with e. `enough` of `clusters` clusters had as many members as requested."""

    token: Int[np.ndarray, "class exemplar"]
    vector: Float[np.ndarray, "class exemplar dim"]
    cosine: Float[np.ndarray, "class exemplar"]
    enough: int
    clusters: int


def make_tokens(
    folder: Path,
    source: str,
    report: Report,
    *,
    classes: int,
    exemplars: int,
    array: str | None = None,
    clusters: int | None = None,
    skip: int = SPECIAL,
    closest: float = -1.0,
    seed: int = 0,
) -> tuple[Path, Clusters]:
    """Clusters the matrix in `source` (a `.safetensors` file, or "wordllama": the matrix in that installed package)
    into `tokens_CxE.npz`: `features` [class, exemplar, dim] float32, and their origin. If fewer than `classes` clusters
    have `exemplars` members, the file has that many classes."""
    path = wordllama_file() if source == WORDLLAMA else Path(source)
    name, matrix = read_matrix(path, array)
    found = cluster(
        matrix,
        report,
        classes=classes,
        exemplars=exemplars,
        clusters=clusters,
        skip=skip,
        closest=closest,
        seed=seed,
    )
    file = io.BytesIO()
    np.savez(
        file,
        allow_pickle=False,
        features=found.vector,
        token=found.token,
        cosine=found.cosine,
        source=f"{path.name}: {name} {list(matrix.shape)}",
        recipe=f"ids from {skip}, centred, norm 1; spherical k-means, {found.clusters} clusters, seed {seed}; "
        f"members of cosine at least {closest:g}, the {exemplars} nearest; classes farthest first",
        enough=np.int64(found.enough),
    )
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / tokens_file(classes, exemplars)
    write_file(target, file.getvalue())
    return target, found


def cluster(
    matrix: Float[np.ndarray, "token dim"],
    report: Report,
    *,
    classes: int,
    exemplars: int,
    clusters: int | None = None,
    skip: int = SPECIAL,
    closest: float = -1.0,
    seed: int = 0,
) -> Clusters:
    """Classes of tokens by `spherical_kmeans` with `clusters` clusters (None: 1.25 * `classes`), of the matrix centred
    and scaled to norm 1. Clusters with fewer than `exemplars` members of cosine at least `closest` are dropped, the
    nearest members kept, and `classes` of the clusters taken, each the farthest from those before it. The rule by which
    the paper's own files were made is not published."""
    require(classes >= 1, "classes", classes, "must be at least 1")
    require(exemplars >= 1, "exemplars", exemplars, "must be at least 1")
    require(
        0 <= skip < len(matrix), "skip", skip, f"must be from 0 to {len(matrix) - 1}: the matrix has that many rows"
    )
    ids = np.arange(skip, len(matrix))
    x = matrix[skip:] - matrix[skip:].mean(0)
    norm = np.linalg.norm(x, axis=1)
    ids, x = ids[norm > 0], x[norm > 0] / norm[norm > 0, None]
    count = min(int(SPARE * classes), len(x)) if clusters is None else clusters
    allowed = f"must be from classes = {classes} to the number of tokens, {len(x)}"
    require(classes <= count <= len(x), "clusters", count, allowed)
    centroids, own, cosine = spherical_kmeans(x, count, seed, report, least=exemplars, wanted=classes)
    rank = np.lexsort((-cosine, own))  # by cluster, the nearest first
    members = [one[cosine[one] >= closest] for one in np.split(rank, np.searchsorted(own[rank], np.arange(1, count)))]
    good = np.array([i for i, one in enumerate(members) if len(one) >= exemplars], int)
    most = max(len(one) for one in members)
    allowed = f"no cluster has that many members: the largest of {count} has {most}"
    require(len(good) > 0, "exemplars", exemplars, allowed)
    chosen = good[farthest_first(centroids[good], min(classes, len(good)))]
    rows = np.stack([members[i][:exemplars] for i in chosen])
    return Clusters(ids[rows], matrix[ids[rows]], cosine[rows], len(good), count)


def spherical_kmeans(
    x: Float[np.ndarray, "row dim"], k: int, seed: int, report: Report, *, least: int = 1, wanted: int = 0
) -> KMeansState:
    """k centroids by cosine similarity (Dhillon & Modha 2001), from k rows drawn without replacement.

    While fewer than `wanted` clusters have `least` members, each smaller one is moved into one of the largest (to its
    member of median cosine) and k-means continues; the best state of `MOVES` such rounds is returned. Every row belongs
    to its nearest centroid. The same call gives the same clusters.
    """
    centroids = x[np.random.default_rng(seed).choice(len(x), k, replace=False)]
    best = state = _rounds(x, KMeansState(centroids, *_assign(x, centroids)), ROUNDS)
    for move in range(MOVES):
        report(WorkProgress(f"k-means, {best.enough(least):,} clusters of {least} tokens", move, MOVES, "rounds"))
        if best.enough(least) >= wanted:
            break
        centroids = _divide(x, state, least)
        state = _rounds(x, KMeansState(centroids, *_assign(x, centroids)), SETTLE)
        best = max(best, state, key=lambda one: one.enough(least))
    report(WorkProgress(f"k-means, {best.enough(least):,} clusters of {least} tokens", MOVES, MOVES, "rounds"))
    return best


def _rounds(x: np.ndarray, state: KMeansState, most: int) -> KMeansState:
    """The state after rounds of k-means until nothing changes; an empty cluster moves to the row farthest from its
    centroid."""
    for _ in range(most):
        counts, order = state.counts(), np.argsort(state.own, kind="stable")
        filled, empty = np.flatnonzero(counts), np.flatnonzero(counts == 0)
        sums = np.zeros_like(state.centroids)
        sums[filled] = np.add.reduceat(x[order], (np.cumsum(counts) - counts)[filled], axis=0)
        sums[empty] = x[np.argsort(state.cosine, kind="stable")[: len(empty)]]
        centroids = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        before, state = state, KMeansState(centroids, *_assign(x, centroids))
        if (state.own == before.own).all():
            break
    return state


def _divide(x: np.ndarray, state: KMeansState, least: int) -> np.ndarray:
    """Centroids, with those of clusters with fewer than `least` members moved into the largest that have room for
    two."""
    counts, centroids = state.counts(), state.centroids.copy()
    small = np.flatnonzero(counts < least)
    large = np.argsort(-counts, kind="stable")
    for to, at in zip(small, large[counts[large] >= 2 * least], strict=False):
        members = np.flatnonzero(state.own == at)
        centroids[to] = x[members[np.argsort(-state.cosine[members], kind="stable")[len(members) // 2]]]
    return centroids


def _assign(x: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    own, cosine = np.empty(len(x), int), np.empty(len(x), np.float32)
    for start in range(0, len(x), ROWS):
        scores = x[start : start + ROWS] @ centroids.T
        own[start : start + ROWS] = scores.argmax(1)
        cosine[start : start + ROWS] = scores.max(1)
    return own, cosine


def farthest_first(points: Float[np.ndarray, "point dim"], count: int) -> Int[np.ndarray, " count"]:
    """Indices of `count` points: first the one farthest from the mean direction, then always the one whose nearest
    chosen point is farthest (by cosine)."""
    chosen = [int((points @ points.mean(0)).argmin())]
    nearest_one = points @ points[chosen[0]]
    while len(chosen) < count:
        nearest_one[chosen[-1]] = np.inf
        chosen.append(int(nearest_one.argmin()))
        nearest_one = np.maximum(nearest_one, points @ points[chosen[-1]])
    return np.array(chosen)


def read_matrix(path: Path, array: str | None = None) -> tuple[str, Float[np.ndarray, "token dim"]]:
    """A matrix of a `.safetensors` file, as float32, with its name: `array`, or the array whose name contains "embed"
    (or the only one).

    Only that array is read. Raises `InputError` in one line.
    """
    from safetensors import safe_open

    require(path.is_file(), "from", str(path), "no such file")
    require(path.suffix == ".safetensors", "from", str(path), f"must be a .safetensors file, or {WORDLLAMA}")
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            name = _choose(shapes, array, path)
            size = 4 * shapes[name][0] * shapes[name][1]
            require(size <= LARGEST, "array", name, f"has {size:,} bytes as float32, at most {LARGEST:,}")
            matrix = _numbers(file, path, name)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise InputError("from", str(path), f"cannot be read: {error}") from error
    bad = int(matrix.size - np.isfinite(matrix).sum())
    require(bad == 0, "array", name, f"has {bad} of {matrix.size} values NaN or infinite")
    return name, matrix


def _choose(shapes: dict[str, tuple[int, ...]], array: str | None, path: Path) -> str:
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    shown = ", ".join(f"{name} {list(shape)}" for name, shape in list(matrices.items())[:8]) or "no matrix"
    if array is not None:
        require(array in matrices, "array", array, f"{path.name} holds {shown}{nearest(array, matrices)}")
        return array
    likely = [name for name in matrices if "embed" in name.lower() or "wte" in name.lower()]
    found = likely if len(likely) == 1 else list(matrices)
    require(len(found) == 1, "array", None, f"say which with --array NAME: {path.name} holds {shown}")
    return found[0]


def _numbers(file, path: Path, name: str) -> Float[np.ndarray, "token dim"]:
    """An array as float32; bfloat16, which NumPy does not have, by its bits: the upper half of a float32."""
    kind = file.get_slice(name).get_dtype()
    if kind == "BF16":
        import ml_dtypes  # noqa: F401 - gives NumPy the type (JAX needs it too)
    require(kind in ("F16", "F32", "F64", "BF16"), "array", name, f"must hold floating-point numbers, has {kind}")
    return np.asarray(file.get_tensor(name)).astype(np.float32)


def wordllama_file() -> Path:
    """The embedding matrix inside the installed package wordllama, which is not imported."""
    try:
        files = distribution(WORDLLAMA).files or []
    except PackageNotFoundError as error:
        allowed = "needs the package wordllama: pip install 'ebbtide[tokens]'"
        raise InputError("from", WORDLLAMA, allowed) from error
    found = [Path(str(one.locate())) for one in files if one.suffix == ".safetensors"]
    require(len(found) == 1, "from", WORDLLAMA, f"the installed package holds {len(found)} .safetensors files, not one")
    return found[0]
