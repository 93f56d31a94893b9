"""Features of characters: what the encoders see, pieces that an interruption keeps, order, provenance."""

import contextlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drawings_tools import make_drawings
from ebbtide.cli import main
from ebbtide.data import encoders, make_features
from ebbtide.data.download import WorkProgress
from ebbtide.data.encoders import Encoder, find_encoder
from ebbtide.data.make_features import normalised_components, reduce_features
from ebbtide.errors import InputError
from ebbtide.sources.drawings import DRAWERS, SIDE, read_drawings
from ebbtide.sources.omniglot import Omniglot

DRAWINGS = make_drawings(7)
make = make_features.make_features


def ignore(progress: WorkProgress) -> None:
    pass


def bands(images: np.ndarray) -> np.ndarray:
    """Ink in five bands from the top, and in five from the left: it tells transforms apart."""
    x = images.reshape(-1, 5, 21, SIDE).astype(np.float32)
    y = images.reshape(-1, SIDE, 5, 21).astype(np.float32)
    return np.concatenate([x.sum((2, 3)), y.sum((1, 3))], axis=1)


class Counting:
    """`bands`, which counts the images it has seen and is interrupted at some call."""

    def __init__(self, stop: int = -1):
        self.seen, self.calls, self.stop = 0, 0, stop

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        self.seen += len(images)
        return bands(images)


def fake(encode: Any = bands, recipe: str = "bands", name: str = "hog") -> Encoder:
    return Encoder(name, SIDE, recipe, encode)


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A data folder with a small omniglot.npz; pieces of two characters."""
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    monkeypatch.setattr(make_features, "PIECE", 2)
    (tmp_path / "omniglot.npz").write_bytes(DRAWINGS.to_npz())
    return tmp_path


def test_file_and_provenance(data):
    path, how = make(data, fake(), ignore)
    assert (path.name, how) == ("omniglot_hog.npz", "made")
    with np.load(path, allow_pickle=False) as file:
        x = file["features"]
        assert x.dtype == np.float16 and x.shape == (7, DRAWERS, 10)
        expected = bands(DRAWINGS.images().reshape(-1, SIDE, SIDE)).reshape(7, DRAWERS, 10)
        np.testing.assert_array_equal(x, expected.astype(np.float16))
        texts = {name: file[name].item() for name in file.files if name != "features"}
    assert texts.pop("omniglot") and texts == {"encoder": "hog", "recipe": "bands", "side": SIDE, "transforms": False}
    assert sorted(p.name for p in data.iterdir()) == ["omniglot.npz", "omniglot_hog.npz"]


def test_each_transform_is_a_class_in_the_right_place(data):
    """Row 8 c + 4 f + k: mirrored if f, then k quarter turns; the transforms made anew here."""
    path, _ = make(data, fake(), ignore, augment=True)
    assert path.name == "omniglot_hog_x8.npz"
    with np.load(path, allow_pickle=False) as file:
        x = file["features"].astype(np.float32)
    assert x.shape == (56, DRAWERS, 10)
    for c, e, f, k in [(0, 0, 0, 0), (3, 5, 0, 1), (6, 19, 1, 0), (2, 7, 1, 3), (5, 1, 0, 2)]:
        image = DRAWINGS.images([c])[0, e]
        image = np.rot90(np.fliplr(image) if f else image, k)
        np.testing.assert_array_equal(x[8 * c + 4 * f + k, e], bands(image[None])[0])


def test_the_source_reads_it(data):
    make(data, fake(), ignore)
    plain: dict[str, Any] = {"features": "hog", "standardise": "none", "class_order_seed": None}
    source = Omniglot(classes=5, holdout_classes=2, **plain)
    source.check_data()
    assert source.sizes() == (5, 2, 15, 5, 10)
    expected = bands(DRAWINGS.images().reshape(-1, SIDE, SIDE)).reshape(7, DRAWERS, 10)
    np.testing.assert_array_equal(source.build().features, expected)


@pytest.mark.parametrize("augment", [False, True])
def test_an_interruption_keeps_the_pieces_that_were_done(data, tmp_path, augment):
    first = Counting(stop=3)
    with pytest.raises(KeyboardInterrupt):
        make(data, fake(first), ignore, augment=augment)
    second = Counting()
    path, _ = make(data, fake(second), ignore, augment=augment)
    each = DRAWERS * (8 if augment else 1)
    assert first.seen == 4 * each and second.seen == 3 * each
    again = path.read_bytes()
    path.unlink()
    assert make(data, fake(), ignore, augment=augment)[0].read_bytes() == again


def test_an_interrupted_command_says_so(data, monkeypatch, capsys):
    monkeypatch.setattr(encoders, "ENCODERS", {"hog": (lambda n, s, w: fake(Counting(stop=2)), 105, 35, 105)})
    assert main(["data", "features", "--encoder", "hog"]) == 130
    assert "the characters that were encoded are kept" in capsys.readouterr().out
    assert (data / "omniglot_hog.npz.part").is_dir() and not (data / "omniglot_hog.npz").exists()
    assert main(["data", "features", "--encoder", "hog", "--pca", "3"]) == 130  # a new Counting; one piece further
    monkeypatch.setattr(encoders, "ENCODERS", {"hog": (lambda n, s, w: fake(), 105, 35, 105)})
    assert main(["data", "features", "--encoder", "hog", "--pca", "3"]) == 0
    assert sorted(p.name for p in data.glob("*hog*")) == ["omniglot_hog.npz", "omniglot_hog_pca3.npz"]


def test_pieces_of_another_recipe_are_not_used(data):
    with pytest.raises(KeyboardInterrupt):
        make(data, fake(Counting(stop=3), recipe="other"), ignore)
    second = Counting()
    make(data, fake(second), ignore)
    assert second.seen == 7 * DRAWERS


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_damaged_piece_is_made_anew(data, damage):
    with pytest.raises(KeyboardInterrupt):
        make(data, fake(Counting(stop=3)), ignore)
    piece = data / "omniglot_hog.npz.part/00000.npy"
    piece.write_bytes(piece.read_bytes()[:-100] if damage is None else damage)
    second = Counting()
    path, _ = make(data, fake(second), ignore)
    assert second.seen == 5 * DRAWERS
    path_bytes = path.read_bytes()
    path.unlink()
    assert make(data, fake(), ignore)[0].read_bytes() == path_bytes


def test_a_file_made_otherwise_is_left_alone(data):
    path, _ = make(data, fake(), ignore)
    before = path.read_bytes()
    assert make(data, fake(Counting(stop=1)), ignore) == (path, "was there")
    with pytest.raises(InputError, match="was made with recipe = bands, not other; move it away"):
        make(data, fake(recipe="other"), ignore)
    (data / "omniglot.npz").write_bytes(make_drawings(7, seed=1).to_npz())
    with pytest.raises(InputError, match="was made with omniglot = "):
        make(data, fake(), ignore)
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_what_float16_cannot_hold_is_refused(data, value):
    with pytest.raises(InputError, match="gives NaN, infinity or more than 65,504"), np.errstate(over="ignore"):
        make(data, fake(lambda images: np.full((len(images), 3), value)), ignore)
    assert not (data / "omniglot_hog.npz").exists()


def test_without_omniglot_the_message_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match="ebbtide data fetch omniglot"):
        make(tmp_path, fake(), ignore)


def test_principal_components():
    """Uncorrelated, by falling variance, and all of them keep every distance of the standardised rows."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 3).astype(np.float32)
    z = normalised_components(x, 6)
    covariance = z.T @ z / len(z)
    variances = np.diag(covariance)
    np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-5)
    assert (np.diff(variances) <= 1e-6).all()
    y = (x - x.mean(0)) / (x.std(0) + 1e-3)
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    np.testing.assert_allclose(z[:50] @ z[:50].T, (y - y.mean(0))[:50] @ (y - y.mean(0))[:50].T, atol=1e-4)
    np.testing.assert_allclose(normalised_components(x, 2), z[:, :2], atol=1e-5)


def test_reduced_features_are_named_and_read(data):
    make(data, fake(name="efficientnet-lite0"), ignore)
    path, _ = reduce_features(data, "efficientnet-lite0", 4)
    assert path.name == "omniglot_efficientnet-lite0_pca4.npz"
    with np.load(path, allow_pickle=False) as file:
        assert file["features"].shape == (7, DRAWERS, 4) and file["pca"] == 4 and file["recipe"].item() == "bands"
    with pytest.raises(InputError, match="from 1 to 9"):
        reduce_features(data, "efficientnet-lite0", 64)
    path.rename(data / "omniglot_efficientnet-lite0_pca64.npz")  # a name the source looks for
    assert Omniglot(features="pca64", classes=5, holdout_classes=2).shape() == (7, DRAWERS, 4)
    assert Omniglot(features="full", classes=5, holdout_classes=2).shape() == (7, DRAWERS, 10)


@pytest.mark.parametrize(
    ("how", "field", "says"),
    [
        ({"name": "hogg"}, "encoder", "did you mean 'hog'?"),
        ({"name": "hog", "side": 20}, "side", "from 35 to 105"),
        ({"name": "resnet18", "side": 5000}, "side", "from 32 to 1024"),
        ({"name": "hog", "weights": Path("x")}, "weights", "hog has no weights"),
        ({"name": "resnet18", "weights": Path("none.pth")}, "weights", "no such file"),
    ],
)
def test_bad_choices(how, field, says):
    with pytest.raises(InputError) as caught:
        find_encoder(**how)
    assert caught.value.field == field and says in str(caught.value)


@pytest.mark.parametrize(("name", "extra"), [("hog", "features"), ("efficientnet-lite0", "encoders")])
def test_a_missing_package_is_one_line(monkeypatch, name, extra):
    def absent(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(encoders, "import_module", absent)
    with pytest.raises(InputError) as caught:
        find_encoder(name)
    assert f"pip install 'ebbtide[{extra}]'" in str(caught.value) and len(str(caught.value).splitlines()) == 1


class FakeTensor(SimpleNamespace):
    """As much of a tensor as passes between us and a network."""

    def to(self, device):
        return self

    def float(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.array


class FakeModel:
    """Gives back the mean of each colour of what it sees; remembers how it was loaded."""

    fc: Any = None

    def __init__(self):
        self.shown: list[np.ndarray] = []
        self.state: Any = None

    def eval(self):
        return self

    def to(self, device):
        return self

    def load_state_dict(self, state):
        self.state = state

    def __call__(self, x):
        self.shown.append(x.array)
        return FakeTensor(array=x.array.mean((2, 3)))


@pytest.fixture
def fake_torch(monkeypatch):
    """A torch and a torchvision that record what is asked of them."""
    model, asked = FakeModel(), []

    def fetch(url, **how):
        asked.append((url, how))
        return "state"

    def load(path, **how):
        asked.append((path, how))
        return "state"

    torch = SimpleNamespace(
        __version__="0",
        device=str,
        cuda=SimpleNamespace(is_available=lambda: False),
        from_numpy=lambda array: FakeTensor(array=array),
        inference_mode=contextlib.nullcontext,
        hub=SimpleNamespace(load_state_dict_from_url=fetch),
        load=load,
        nn=SimpleNamespace(Identity=lambda: "identity"),
    )
    weights = SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(url="the url"))
    vision = SimpleNamespace(resnet18=lambda weights: model, ResNet18_Weights=weights)
    modules = {"torch": torch, "torchvision.models": vision}
    monkeypatch.setattr(encoders, "import_module", modules.__getitem__)
    return SimpleNamespace(model=model, asked=asked, torch=torch)


def test_what_a_network_is_shown(fake_torch):
    """White paper with black strokes at 224 x 224, three colours, in ImageNet's units; the last layer is taken off;
    the weights are loaded in the mode in which nothing executes."""
    encoder = find_encoder("resnet18")
    assert fake_torch.asked == [("the url", {"progress": False, "check_hash": True, "weights_only": True})]
    assert fake_torch.model.state == "state" and fake_torch.model.fc == "identity"
    images = np.zeros((300, SIDE, SIDE), np.uint8)
    images[1] = 1
    images[2, :, :52] = 1
    x = encoder.encode(images)
    assert [one.shape for one in fake_torch.model.shown] == [(256, 3, 224, 224), (44, 3, 224, 224)]
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(x[0], (1 - mean) / deviation, rtol=1e-5)
    np.testing.assert_allclose(x[1], -mean / deviation, rtol=1e-5)
    shown = fake_torch.model.shown[0][2]
    assert shown[:, :, :100].max() < shown[:, :, 124:].min()  # ink on the left, and dark
    assert len(x) == 300 and shown.dtype == np.float32


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_weights_of_ones_own_are_loaded_without_executing_them(fake_torch, tmp_path, suffix):
    path = tmp_path / f"own{suffix}"
    path.write_bytes(b"x")
    find_encoder("resnet18", weights=path)
    assert fake_torch.asked == [(path, {"map_location": "cpu", "weights_only": True})]


def test_weights_that_cannot_be_used_or_fetched(fake_torch, tmp_path):
    path = tmp_path / "own.safetensors"
    path.write_bytes(b"rubbish")
    with pytest.raises(InputError, match="cannot be used"):
        find_encoder("resnet18", weights=path)

    def offline(url, **how):
        raise OSError("no network")

    fake_torch.torch.hub.load_state_dict_from_url = offline
    with pytest.raises(InputError, match="get the url elsewhere and use --weights FILE"):
        find_encoder("resnet18")


def test_histograms_of_gradients():
    pytest.importorskip("skimage", reason="needs scikit-image: pip install 'ebbtide[features]'")
    encoder = find_encoder("hog")
    images = DRAWINGS.images().reshape(-1, SIDE, SIDE)
    x = encoder.encode(images)
    assert x.shape == (7 * DRAWERS, 512) and (x >= 0).all() and "scikit-image" in encoder.recipe
    np.testing.assert_allclose(encoder.encode(images[5:6]), x[5:6], rtol=1e-5, atol=1e-6)  # each image by itself
    assert (encoder.encode(np.zeros((1, SIDE, SIDE), np.uint8)) == 0).all()
    horizontal, vertical = np.zeros((2, SIDE, SIDE), np.uint8)
    horizontal[50:53], vertical[:, 50:53] = 1, 1
    a, b = encoder.encode(np.stack([horizontal, vertical])).reshape(2, -1, 8).sum(1)
    assert a.argmax() != b.argmax()
    half = find_encoder("hog", side=52).encode(images)
    assert half.shape == x.shape


def nearest_mean(x: np.ndarray, train: int = 15) -> float:
    """Accuracy of the nearest class mean on the drawings that are not in the means."""
    x = x.astype(np.float32)
    x = (x - x[:, :train].mean((0, 1))) / (x[:, :train].std((0, 1)) + 1e-3)
    x /= np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
    means = x[:, :train].mean(1)
    scores = x[:, train:] @ means.T - 0.5 * (means**2).sum(-1)
    return float((scores.argmax(-1) == np.arange(len(x))[:, None]).mean())


@pytest.fixture
def real_drawings(real_data):
    path = real_data / "omniglot.npz"
    if not path.is_file():
        pytest.skip("no omniglot.npz beside the features (get it with: ebbtide data fetch omniglot)")
    return read_drawings(path)


def test_histograms_tell_real_characters_apart(real_drawings):
    """40 characters, chance 2.5 %."""
    pytest.importorskip("skimage", reason="needs scikit-image: pip install 'ebbtide[features]'")
    images = real_drawings.images(slice(0, 1600, 40))
    x = find_encoder("hog").encode(images.reshape(-1, SIDE, SIDE)).reshape(40, DRAWERS, -1)
    assert nearest_mean(x) > 0.6


def test_the_network_gives_the_shared_features(real_drawings, real_data):
    """The 448-d file that was made elsewhere, up to float16."""
    pytest.importorskip("torch", reason="needs torch: pip install 'ebbtide[encoders]'")
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs it: pip install 'ebbtide[encoders]'")
    with np.load(real_data / "omniglot_features.npz", allow_pickle=False) as file:
        known = file["features"][:2].astype(np.float32)
    x = find_encoder("efficientnet-lite0").encode(real_drawings.images(slice(0, 2)).reshape(-1, SIDE, SIDE))
    np.testing.assert_allclose(x.reshape(known.shape), known, atol=0.02)


class Evil:
    """Unpickling this would leave a mark."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_real_torch_refuses_a_pickle_that_executes(tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'ebbtide[encoders]'")
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs it: pip install 'ebbtide[encoders]'")
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    torch.save({"a": Evil(mark)}, path)
    with pytest.raises(InputError, match="cannot be used"):
        find_encoder("efficientnet-lite0", weights=path)
    assert not mark.exists()
