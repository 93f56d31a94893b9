"""What `ebbtide data info` tells and draws."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from drawings_tools import make_drawings
from ebbtide.cli import main
from ebbtide.data.info import contents
from ebbtide.errors import InputError
from ebbtide.report import drawings_figure
from ebbtide.sources.images import eight_transforms
from ebbtide.sources.layout import released_script_order

DRAWINGS = make_drawings(9)


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("EBBTIDE_DATA", str(folder))
    monkeypatch.chdir(tmp_path)
    (folder / "omniglot.npz").write_bytes(DRAWINGS.to_npz())
    np.savez(folder / "omniglot_hog.npz", features=np.ones((9, 20, 4), np.float16), recipe="how it was made")
    return folder


def told(capsys, *words: str) -> str:
    assert main(["data", "info", *words]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_folder(data, capsys):
    save_file({"a": np.ones((2, 3), np.float32)}, data / "model.safetensors")
    (data / "broken.npz").write_bytes(b"rubbish")
    text = told(capsys)
    assert str(data) in text
    for part in ("images_packed [9, 20, 1379]", "features [9, 20, 4]", "a [2, 3]", "cannot be read"):
        assert part in text


def test_an_empty_folder_says_how_to_begin(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path / "none"))
    assert "ebbtide data fetch omniglot" in told(capsys)


def test_omniglot_a_file_and_a_source(data, capsys):
    text = told(capsys, "omniglot")
    assert "9 characters x 20 drawers" in text and "background 5 characters of 2 alphabets, evaluation 4 of 1" in text
    text = told(capsys, "omniglot_hog.npz")  # by its name in the folder
    assert "features float16 [9, 20, 4]" in text and "recipe: how it was made" in text
    assert told(capsys, str(data / "omniglot_hog.npz")) == text
    assert "1024 classes + 128 held out" in told(capsys, "gaussian")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tokenz"], "did you mean 'tokens'?"),
        (["tokens"], "ebbtide data tokens --from wordllama"),
        (["features"], "give the file"),
        (["gaussian", "--figure", "x.png"], "draws the characters of omniglot"),
        (["--figure", "x.gif"], "must end in .png or .svg"),
        (["--figure", "none/x.png"], "does not exist"),
        (["--figure", "x.png", "--show", "drawer"], "did you mean 'drawers'?"),
    ],
)
def test_bad_words(data, capsys, words, says):
    assert main(["data", "info", *words]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1
    assert not Path("x.png").exists()


def test_a_text_that_is_long_or_pickled_is_not_shown(data):
    path = data / "x.npz"
    np.savez(path, a=np.array("y" * 5000), b=np.array("short"), c=np.ones((2, 2)))
    found = contents(path)
    assert found.values == {"b": "short"} and list(found.arrays) == ["c"]
    np.savez(path, allow_pickle=True, a=np.array({"x": 1}, dtype=object))
    with pytest.raises(InputError, match="cannot be read"):
        contents(path)


@pytest.mark.parametrize("show", drawings_figure.SHOWS)
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_figures(data, capsys, show, suffix):
    told(capsys, "--figure", f"sheet{suffix}", "--show", show)
    content = Path(f"sheet{suffix}").read_bytes()
    if suffix == ".svg":
        return None
    with Image.open(io.BytesIO(content)) as image:
        shades = np.asarray(image.convert("L"))
    assert shades.min() < 30 and shades.max() == 255  # ink and paper


def test_what_the_sheets_show():
    """Each cell is the drawing that its row and column say."""
    images = DRAWINGS.images()
    grid = drawings_figure._grid(DRAWINGS, "drawers")
    assert grid.rows[0] == "Alpha 1" and grid.rows[-1] == "Gamma 4" and grid.columns[-1] == "20"
    np.testing.assert_array_equal(grid.images, images)
    grid = drawings_figure._grid(DRAWINGS, "transforms")
    assert len(grid.rows) == 6 and grid.columns[5] == "8c + 5\nmirrored,\nturned 90°"
    np.testing.assert_array_equal(grid.images[2, 5], np.rot90(np.fliplr(images[2, 0])))
    grid = drawings_figure._grid(DRAWINGS, "released_script")
    assert grid.rows[0] == "Alpha 1   8c + 0" and grid.rows[9] == "8c + 1" and grid.rows[8].startswith("Beta 2")
    _, e, t = released_script_order(1, 20)[3, 11]
    np.testing.assert_array_equal(grid.images[8 + 3, 11], eight_transforms(images[4:5])[t, e])
