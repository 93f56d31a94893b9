"""Token classes: the clustering, the matrices that are read, the file and its source."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import save_file as save_jax
from safetensors.numpy import save_file

from ebbtide.cli import main
from ebbtide.data import tokens
from ebbtide.data.tokens import cluster, farthest_first, make_tokens, read_matrix, spherical_kmeans
from ebbtide.errors import InputError
from ebbtide.sources.tokens import Tokens, tokens_file

WORDS, EACH, DIM = 12, 9, 16


def quiet(progress) -> None:
    pass


def blobs(spread: float = 0.02, seed: int = 0) -> np.ndarray:
    """12 directions, 9 tokens about each, in mixed order: token i is of word i % 12; the first 5 rows are specials."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(WORDS, DIM))
    rows = np.tile(centres, (EACH, 1)) + spread * rng.normal(size=(WORDS * EACH, DIM))
    return np.concatenate([rng.normal(size=(5, DIM)), rows]).astype(np.float32)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_words_that_lie_together_become_classes():
    matrix = blobs()
    found = cluster(matrix, quiet, classes=WORDS, exemplars=EACH, clusters=WORDS, skip=5)
    assert found.token.shape == (WORDS, EACH) and found.enough == WORDS
    word = (found.token - 5) % WORDS
    assert (word == word[:, :1]).all() and set(word[:, 0]) == set(range(WORDS))
    np.testing.assert_array_equal(found.vector, matrix[found.token])


def test_specials_are_left_out_and_no_token_is_in_two_classes():
    found = cluster(blobs(spread=0.5), quiet, classes=8, exemplars=4, clusters=10, skip=5)
    ids = found.token.ravel()
    assert ids.min() >= 5 and len(set(ids)) == len(ids)


def test_members_are_the_nearest_of_their_cluster_and_near_enough():
    matrix = blobs(spread=0.6)
    free = cluster(matrix, quiet, classes=6, exemplars=3, clusters=8, skip=5)
    assert (np.diff(free.cosine, axis=1) <= 0).all()
    at = float(np.median(free.cosine[:, -1]))
    near = cluster(matrix, quiet, classes=6, exemplars=3, clusters=8, skip=5, closest=at)
    assert near.cosine.min() >= at > free.cosine.min()
    assert near.enough < free.enough


def test_fewer_classes_when_the_vocabulary_does_not_fill_them():
    found = cluster(blobs(), quiet, classes=WORDS, exemplars=EACH + 1, clusters=WORDS, skip=5, seed=1)
    assert len(found.token) == found.enough < WORDS
    with pytest.raises(InputError, match="largest of 12") as caught:
        cluster(blobs(), quiet, classes=WORDS, exemplars=109, clusters=WORDS, skip=5)
    assert caught.value.field == "exemplars"


def test_kmeans_ends_where_every_row_is_at_its_nearest_centroid():
    x = unit(blobs(spread=0.7)[5:])
    state = spherical_kmeans(x, 9, 3, quiet)
    scores = x @ state.centroids.T
    np.testing.assert_array_equal(state.own, scores.argmax(1))
    np.testing.assert_allclose(state.cosine, scores.max(1), rtol=1e-6)
    means = np.stack([unit(x[state.own == i].sum(0)) for i in range(9)])
    np.testing.assert_allclose(state.centroids, means, atol=1e-5)
    start = x[np.random.default_rng(3).choice(len(x), 9, replace=False)]
    assert state.cosine.mean() > (x @ start.T).max(1).mean()


def test_no_cluster_stays_empty_where_rows_differ():
    x = unit(np.random.default_rng(0).normal(size=(40, 3)))
    assert (spherical_kmeans(x, 40, 0, quiet).counts() > 0).sum() >= 35


def test_small_clusters_move_to_where_there_is_room(monkeypatch):
    """One crowd and many strays: without moves most clusters hold a stray each."""
    rng = np.random.default_rng(0)
    crowd = np.tile([1.0, 0, 0, 0, 0, 0], (200, 1)) + 0.3 * rng.normal(size=(200, 6))
    x = unit(np.concatenate([crowd, rng.normal(size=(40, 6))])).astype(np.float32)
    moved = spherical_kmeans(x, 20, 0, quiet, least=8, wanted=18)
    monkeypatch.setattr(tokens, "MOVES", 0)
    kept = spherical_kmeans(x, 20, 0, quiet, least=8, wanted=18)
    assert moved.enough(8) > kept.enough(8)
    np.testing.assert_array_equal(moved.own, (x @ moved.centroids.T).argmax(1))


def test_farthest_first_by_hand():
    """Angles 0, 10, 90, 180: the mean points to about 65; 180 is farthest, then 0, then 90."""
    angle = np.deg2rad([0.0, 10.0, 90.0, 180.0])
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    np.testing.assert_array_equal(farthest_first(points, 4), [3, 0, 2, 1])


def test_the_same_call_gives_the_same_file(tmp_path):
    save_file({"embed": blobs(spread=0.5)}, tmp_path / "model.safetensors")
    files = []
    for name in ("a", "b", "c"):
        seed = 1 if name == "c" else 0
        source = str(tmp_path / "model.safetensors")
        path, _ = make_tokens(tmp_path / name, source, quiet, classes=6, exemplars=4, skip=5, seed=seed)
        files.append(path.read_bytes())
    assert files[0] == files[1] != files[2]


@pytest.fixture
def made(tmp_path, monkeypatch) -> Path:
    """A file of 10 classes of 4 in the data folder."""
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    save_file({"model.embed_tokens.weight": blobs(), "lm_head": blobs(seed=9)}, tmp_path / "model.safetensors")
    source = str(tmp_path / "model.safetensors")
    path, _ = make_tokens(tmp_path, source, quiet, classes=10, exemplars=4, clusters=WORDS, skip=5)
    return path


def test_the_source_reads_the_file(made):
    assert made.name == tokens_file(10, 4)
    source = Tokens(file_classes=10, file_exemplars=4, classes=7, exemplars=3, holdout_classes=3, holdout_exemplars=1)
    source.check_data()
    assert source.sizes() == (7, 3, 3, 1, DIM)
    bank = source.build()
    x = np.asarray(bank.features)
    assert x.shape == (10, 4, DIM)
    means = x[:, :3].mean(1)
    np.testing.assert_array_equal((unit(x[:, 3]) @ unit(means).T).argmax(1), np.arange(10))
    got = source.look_up(bank, jnp.asarray([9]), jnp.asarray([2], jnp.uint32))
    np.testing.assert_array_equal(got[0], x[9, 2])


def test_the_file_says_where_it_is_from(made):
    with np.load(made, allow_pickle=False) as file:
        assert file["features"].dtype == np.float32 and file["token"].shape == (10, 4)
        assert file["source"].item() == f"model.safetensors: model.embed_tokens.weight [{5 + WORDS * EACH}, {DIM}]"
        assert "12 clusters, seed 0" in file["recipe"].item()
        np.testing.assert_array_equal(file["features"], blobs()[file["token"]])


def test_too_many_classes_and_a_missing_file_are_one_line(made, one_line):
    with pytest.raises(InputError, match="the file has 10 classes"):
        Tokens(file_classes=10, file_exemplars=4, classes=8, exemplars=3, holdout_classes=3).check_data()
    with pytest.raises(InputError) as caught:
        Tokens(file_classes=3200, file_exemplars=5).check_data()
    one_line(caught, "source", "tokens")
    assert "ebbtide data tokens --from wordllama --classes 3200 --exemplars 5" in str(caught.value)


@pytest.mark.parametrize(("exemplars", "enough"), [(4, True), (EACH + 1, False)])
def test_by_command(tmp_path, monkeypatch, capsys, exemplars, enough):
    """The command says how many classes there are, and when they are fewer than those asked for."""
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path / "data"))
    save_file({"embed": blobs()}, tmp_path / "model.safetensors")
    words = ["--from", str(tmp_path / "model.safetensors"), "--classes", "12", "--exemplars", str(exemplars)]
    assert main(["data", "tokens", *words, "--clusters", "12", "--skip", "5", "--seed", "1"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    with np.load(tmp_path / f"data/tokens_12x{exemplars}.npz", allow_pickle=False) as file:
        classes, each, _ = file["features"].shape
    assert f"the file holds {classes} classes" in told and each == exemplars
    assert ("fewer than the 12 asked for" in told) == (classes < 12) == (not enough)


def test_a_command_without_the_matrix_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path / "data"))
    assert main(["data", "tokens", "--from", str(tmp_path / "none.safetensors")]) == 2
    error = capsys.readouterr().err
    assert "no such file" in error and len(error.splitlines()) == 1 and not (tmp_path / "data").exists()


def test_half_precision_and_bfloat16_are_read(tmp_path):
    matrix = blobs()
    for name, dtype, tolerance in (("half", jnp.float16, 1e-3), ("brain", jnp.bfloat16, 1e-2)):
        save_jax({"wte": jnp.asarray(matrix, dtype)}, str(tmp_path / f"{name}.safetensors"))
        found, read = read_matrix(tmp_path / f"{name}.safetensors")
        assert found == "wte" and read.dtype == np.float32
        np.testing.assert_allclose(read, matrix, rtol=tolerance, atol=1e-4)


def nan() -> np.ndarray:
    matrix = blobs()
    matrix[7, 3] = np.nan
    return matrix


@pytest.mark.parametrize(
    ("arrays", "array", "field", "said"),
    [
        ({"a": blobs(), "b": blobs()}, None, "array", "--array NAME: bad.safetensors holds a [113, 16], b [113, 16]"),
        ({"embedding": blobs()}, "embeding", "array", "did you mean 'embedding'"),
        ({"bias": blobs()[0]}, None, "array", "no matrix"),
        ({"embed": blobs().astype(np.int32)}, None, "array", "floating-point"),
        ({"embed": nan()}, None, "array", "1 of 1808 values NaN or infinite"),
    ],
)
def test_bad_matrices_are_refused(tmp_path, arrays, array, field, said):
    path = tmp_path / "bad.safetensors"
    save_file(arrays, path)
    with pytest.raises(InputError) as caught:
        read_matrix(path, array)
    assert caught.value.field == field and said in str(caught.value) and "\n" not in str(caught.value)


def test_bad_files_are_refused(tmp_path):
    (tmp_path / "text.safetensors").write_text("not one")
    (tmp_path / "model.bin").write_bytes(b"\x80\x04.")
    save_file({"embed": blobs()}, tmp_path / "cut.safetensors")
    whole = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-50])
    for name, said in (("text.safetensors", "cannot be read"), ("model.bin", "must be a .safetensors file")):
        with pytest.raises(InputError, match=said):
            read_matrix(tmp_path / name)
    for name, said in (("cut.safetensors", "cannot be read"), ("absent.safetensors", "no such file")):
        with pytest.raises(InputError, match=said):
            read_matrix(tmp_path / name)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"classes": 0}, "classes"),
        ({"exemplars": 0}, "exemplars"),
        ({"skip": 113}, "skip"),
        ({"skip": -1}, "skip"),
        ({"clusters": 5}, "clusters"),
        ({"clusters": 109}, "clusters"),
    ],
)
def test_wrong_numbers_are_refused(given, field):
    with pytest.raises(InputError) as caught:
        cluster(blobs(), quiet, **({"classes": 6, "exemplars": 3, "skip": 5} | given))
    assert caught.value.field == field


def test_wordllama_is_found_without_importing_it_or_missed_in_one_line(tmp_path, one_line):
    try:
        distribution("wordllama")
    except PackageNotFoundError:
        with pytest.raises(InputError) as caught:
            make_tokens(tmp_path, "wordllama", quiet, classes=2, exemplars=2)
        one_line(caught, "from", "wordllama")
        assert "pip install 'ebbtide[tokens]'" in str(caught.value)
    else:
        name, matrix = read_matrix(tokens.wordllama_file())
        assert name == "embedding.weight" and matrix.shape == (32_000, 256)
