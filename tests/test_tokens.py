"""Classes of tokens: planted clusters are found, what is too small is dropped and said, files are read safely."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from ebbtide.cli import main
from ebbtide.data import tokens
from ebbtide.data.download import Progress
from ebbtide.data.tokens import cluster, farthest_first, read_matrix, spherical_kmeans, wordllama_file
from ebbtide.errors import InputError
from ebbtide.sources.tokens import Tokens

DIM, SPECIALS = 16, 10


def ignore(progress: Progress) -> None:
    pass


def planted(sizes: list[int], noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Specials of a direction of their own, then tokens around orthogonal-ish directions, in a random order:
    the matrix, and of each row its cluster (-1: special)."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][: len(sizes)]
    own = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = directions[own] + noise * rng.normal(size=(len(own), DIM)) / np.sqrt(DIM)
    x *= rng.uniform(0.5, 2, (len(own), 1))
    specials = 100 + rng.normal(size=(SPECIALS, DIM))
    return np.concatenate([specials, x]).astype(np.float32), np.concatenate([np.full(SPECIALS, -1), own])


def grouped(matrix: np.ndarray, **how: Any) -> tokens.Clusters:
    return cluster(matrix, ignore, **({"classes": 8, "exemplars": 5, "skip": SPECIALS} | how))


def test_planted_clusters_are_found():
    """Every class is of one planted cluster; no cluster is two classes while there are as many as clusters."""
    matrix, own = planted([12] * 8)
    found = grouped(matrix, clusters=12)
    assert found.token.shape == found.cosine.shape == (len(found.token), 5) and found.clusters == 12
    for row in found.token:
        assert len({int(own[i]) for i in row}) == 1 and own[row[0]] >= 0
    np.testing.assert_array_equal(found.vector, matrix[found.token])
    assert (np.diff(found.cosine, axis=1) <= 0).all()  # the nearest first
    assert len(set(found.token.ravel())) == found.token.size  # no token twice


def test_equal_seeds_give_equal_classes_others_do_not():
    matrix, _ = planted([20] * 8, noise=1.5)
    same = [grouped(matrix, seed=3).token for _ in range(2)]
    np.testing.assert_array_equal(same[0], same[1])
    other = grouped(matrix, seed=4).token
    assert other.shape != same[0].shape or (other != same[0]).any()


def test_specials_would_have_been_noticed():
    matrix, own = planted([12] * 8)
    assert (own[grouped(matrix).token] >= 0).all()
    assert (own[grouped(matrix, skip=0).token] == -1).any()


def test_small_clusters_are_dropped_not_filled_up():
    """Eight directions of 9 tokens, four of 3: however they are clustered, no class has 5 of the small ones' 3."""
    matrix, own = planted([9] * 8 + [3] * 4, noise=0.02)
    found = grouped(matrix, classes=12, clusters=12, seed=1)
    assert len(found.token) < 12
    for row in found.token[(own[found.token] < 8).all(1)]:
        assert len({int(own[i]) for i in row}) == 1


def test_small_clusters_move_to_where_there_is_room(monkeypatch):
    """A crowd and strays: k-means alone leaves clusters of a few; moved into the crowd they are full. Every row is
    still of its nearest centroid."""
    rng = np.random.default_rng(0)
    crowd = np.eye(6)[:1] + 0.3 * rng.normal(size=(200, 6))
    x = np.concatenate([crowd, rng.normal(size=(40, 6))]).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)

    def full(wanted: int) -> int:
        centroids, own, _ = spherical_kmeans(x, 20, 0, ignore, least=8, wanted=wanted)
        np.testing.assert_array_equal(own, (x @ centroids.T).argmax(1))
        return int((np.bincount(own, minlength=20) >= 8).sum())

    alone, some = full(0), full(16)
    assert alone < some and some >= 14
    monkeypatch.setattr(tokens, "MOVES", 0)
    assert full(16) == alone


def test_no_more_classes_than_asked_for():
    matrix, _ = planted([12] * 8)
    found = grouped(matrix, classes=5, clusters=12)
    assert len(found.token) == 5 <= found.enough
    np.testing.assert_array_equal(found.token, grouped(matrix, classes=8, clusters=12).token[:5])


def test_distant_members_are_left_out():
    matrix, _ = planted([30] * 8, noise=1.0)
    loose, tight = grouped(matrix), grouped(matrix, closest=0.75)
    assert tight.cosine.min() >= 0.75 > loose.cosine.min()
    assert len(tight.token) <= len(loose.token)


def test_kmeans_ends_where_nothing_moves():
    """Each centroid is the direction of the sum of its rows, each row belongs to its nearest centroid."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    rounds: list[Progress] = []
    centroids, own, cosine = spherical_kmeans(x, 12, 0, rounds.append)
    assert len(rounds) - 1 < tokens.ROUNDS  # it ended before the last round: nothing moved
    np.testing.assert_array_equal(own, (x @ centroids.T).argmax(1))
    np.testing.assert_allclose(cosine, (x @ centroids.T).max(1), rtol=1e-5)
    for k in range(12):
        total = x[own == k].sum(0)
        np.testing.assert_allclose(centroids[k], total / np.linalg.norm(total), atol=1e-5)


def test_no_cluster_stays_empty_when_rows_repeat():
    """Twenty copies of one row among the starting points leave clusters empty at first: they move elsewhere."""
    rng = np.random.default_rng(1)
    x = np.concatenate([np.tile(rng.normal(size=(1, 5)), (40, 1)), rng.normal(size=(40, 5))]).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    centroids, own, _ = spherical_kmeans(x, 20, 0, ignore)
    assert np.isfinite(centroids).all() and len(np.unique(own)) >= 15


def test_farthest_first_against_the_definition():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    order = farthest_first(x)
    assert sorted(order) == list(range(40))
    for n in range(1, 39):
        rest = [i for i in range(40) if i not in order[:n]]
        closest = [(x[i] @ x[order[:n]].T).max() for i in rest]
        assert rest[int(np.argmin(closest))] == order[n]


@pytest.mark.parametrize("kind", [np.float16, np.float32, ml_dtypes.bfloat16])
def test_matrices_of_every_kind_are_read(tmp_path, kind):
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    path = tmp_path / "model.safetensors"
    save_file({"model.embed_tokens.weight": matrix.astype(kind), "lm_head.weight": matrix.astype(kind)}, path)
    name, found = read_matrix(path)
    assert name == "model.embed_tokens.weight" and found.dtype == np.float32
    np.testing.assert_array_equal(found, matrix)


M = np.ones((4, 3), np.float32)


@pytest.mark.parametrize(
    ("arrays", "array", "says"),
    [
        ({"a": M, "b": M}, None, "say which with --array NAME: model.safetensors holds a [4, 3], b [4, 3]"),
        ({"embed.a": M, "embed.b": M}, None, "say which with --array"),
        ({"norm": M[0]}, None, "holds no matrix"),
        ({"wte.weight": M}, "wte.weigth", "did you mean 'wte.weight'?"),
        ({"embed": M.astype(np.int32)}, None, "must hold floating-point numbers, has I32"),
        ({"embed": M * np.nan}, None, "12 of 12 values NaN or infinite"),
    ],
)
def test_what_cannot_be_read_gets_one_line(tmp_path, arrays, array, says):
    path = tmp_path / "model.safetensors"
    save_file(arrays, path)
    with pytest.raises(InputError) as caught:
        read_matrix(path, array)
    assert says in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_files_that_are_no_models(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"rubbish")
    with pytest.raises(InputError, match="cannot be read"):
        read_matrix(path)
    with pytest.raises(InputError, match="no such file"):
        read_matrix(tmp_path / "none.safetensors")
    path.rename(tmp_path / "model.bin")
    with pytest.raises(InputError, match=r"must be a \.safetensors file, or wordllama"):
        read_matrix(tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("how", "field"),
    [
        ({"classes": 0}, "classes"),
        ({"exemplars": 0}, "exemplars"),
        ({"skip": 200}, "skip"),
        ({"clusters": 3}, "clusters"),
        ({"clusters": 97}, "clusters"),
        ({"exemplars": 40}, "exemplars"),
    ],
)
def test_impossible_requests(how, field):
    with pytest.raises(InputError) as caught:
        grouped(planted([12] * 8)[0], **how)
    assert caught.value.field == field


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path / "data"))
    save_file({"embed": planted([12] * 8, noise=0.02)[0]}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def make(model: Path, *words: str) -> int:
    common = ["--classes", "8", "--exemplars", "5", "--skip", str(SPECIALS)]
    return main(["data", "tokens", "--from", str(model), *common, *words])


def test_by_command_and_read_by_the_source(model, tmp_path, capsys):
    assert make(model, "--clusters", "12") == 0
    out = capsys.readouterr().out
    with np.load(tmp_path / "data/tokens_8x5.npz", allow_pickle=False) as file:
        x, token = file["features"], file["token"]
        assert file["source"].item() == f"model.safetensors: embed [{96 + SPECIALS}, {DIM}]"
        assert "12 clusters, seed 0" in file["recipe"].item()
    assert "of 12 clusters have 5 tokens or more" in out and f": {len(x)} classes" in out
    assert ("fewer than the 8 asked for" in out) == (len(x) < 8)
    settings: dict[str, Any] = {"class_order_seed": None, "standardise": "none", "holdout_classes": 1}
    source = Tokens(clustering="8x5", classes=len(x) - 1, exemplars=5, **settings)
    source.check()
    assert source.sizes() == (len(x) - 1, 1, 5, 0, DIM)
    np.testing.assert_array_equal(source.build().features, x)
    assert token.min() >= SPECIALS


def test_too_few_classes_are_said_and_refused_by_the_source(model, capsys):
    """Twelve tokens around each of eight directions: no clustering has 96 / 5 = 20 classes of five."""
    assert make(model, "--classes", "20") == 0
    assert "fewer than the 20 asked for" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(InputError, match="the file has"):
        Tokens(clustering="20x5", classes=20, exemplars=5, holdout_classes=1).check()


def test_without_a_file_the_message_says_how_to_make_it(model, one_line):
    with pytest.raises(InputError) as caught:
        Tokens(clustering="3200x5").check()
    one_line(caught, "source", "tokens")
    assert "ebbtide data tokens --from wordllama --classes 3200 --exemplars 5" in str(caught.value)


def test_no_path_fits_into_the_name_of_a_clustering(model, capsys):
    assert main(["run", "transience", "--source", "tokens", "--source.clustering", "../x"]) == 2
    assert "source.clustering" in capsys.readouterr().err


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    def absent(name: str) -> Any:
        raise tokens.PackageNotFoundError(name)

    monkeypatch.setattr(tokens, "distribution", absent)
    with pytest.raises(InputError, match=r"pip install 'ebbtide\[tokens\]'"):
        wordllama_file()


def test_the_packages_matrix_is_found_without_importing_it():
    import sys

    try:
        path = wordllama_file()
    except InputError:
        pytest.skip("needs wordllama: pip install 'ebbtide[tokens]'")
    name, matrix = read_matrix(path)
    assert name == "embedding.weight" and matrix.shape == (32000, 256) and "wordllama" not in sys.modules
