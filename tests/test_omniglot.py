"""Omniglot features: the real file where there is one, a good message where there is none."""

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.sources.omniglot import Omniglot


@pytest.mark.parametrize("features", ["pca64", "full"])
def test_without_data_the_message_says_how_to_get_it(tmp_path, monkeypatch, features, one_line):
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    with pytest.raises(InputError) as caught:
        Omniglot(features=features).check()
    one_line(caught, "source", "omniglot")
    assert "EBBTIDE_DATA" in str(caught.value) and str(tmp_path) in str(caught.value)


def test_without_the_variable_the_cache_folder_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("EBBTIDE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=str(tmp_path / "ebbtide")):
        Omniglot().sizes()


def test_the_file_is_split_as_asked(real_data, monkeypatch):
    monkeypatch.setenv("EBBTIDE_DATA", str(real_data))
    source = Omniglot()
    source.check()
    assert source.sizes() == (1500, 100, 15, 5, 64)
    x = np.asarray(source.build().features)
    assert x.shape == (1600, 20, 64)
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 8.0, rtol=1e-5)
    with pytest.raises(InputError, match="at most 1523"):
        Omniglot(classes=1524).check()


def test_characters_can_be_told_apart_on_held_out_drawings(real_data, monkeypatch):
    """Nearest class mean, 15 drawings for the means, 5 held out; trained and held-out classes. Chance is
    0.07 % and 1 %; a wrong layout of the file (drawings and classes mixed) would be at chance."""
    monkeypatch.setenv("EBBTIDE_DATA", str(real_data))
    x = np.asarray(Omniglot().build().features)
    for part, least in ((x[:1500], 0.5), (x[1500:], 0.8)):
        means, queries = part[:, :15].mean(1), part[:, 15:]
        scores = queries @ means.T - 0.5 * (means**2).sum(-1)
        accuracy = (scores.argmax(-1) == np.arange(len(part))[:, None]).mean()
        assert accuracy > least
