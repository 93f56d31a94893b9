"""Omniglot by command: archives to one file, downloads that are cut, everything that can be wrong with either."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from drawings_tools import make_drawings, members, parts, png, write_zip
from ebbtide.cli import main
from ebbtide.data import archives, download
from ebbtide.data.archives import fetch_omniglot
from ebbtide.data.download import WorkProgress
from ebbtide.errors import InputError
from ebbtide.sources.drawings import BYTES, DRAWERS, SIDE, read_drawings

DRAWINGS = make_drawings()
NAMES = ("images_background", "images_evaluation")


def ignore(progress: WorkProgress) -> None:
    pass


@pytest.fixture
def zips(tmp_path, monkeypatch) -> Path:
    """A folder with both archives, and what they must be."""
    folder = tmp_path / "zips"
    folder.mkdir()
    for name in NAMES:
        write_zip(folder / f"{name}.zip", members(DRAWINGS, name))
    monkeypatch.setattr(archives, "PARTS", parts(folder))
    return folder


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """An empty data folder."""
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


class Site:
    """A web server for the files of a folder. `cuts` says after how many bytes each of the next answers ends."""

    def __init__(self, folder: Path):
        self.folder, self.cuts, self.asked, self.ranges = folder, [], [], True
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.answer(self)

            def log_message(self, format, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        path = self.folder / request.path.lstrip("/")
        if not path.is_file():
            return request.send_error(404)
        content = path.read_bytes()
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if start and start >= len(content):
            return request.send_error(416)
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        rest = content[start:]
        request.wfile.write(rest[: self.cuts.pop(0)] if self.cuts else rest)


@pytest.fixture
def site(zips, monkeypatch) -> Iterator[Site]:
    made = Site(zips)
    monkeypatch.setattr(archives, "URL", made.url)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_the_authors_archives_are_those_that_are_known():
    assert [(p.zip_name(), p.alphabets, p.characters) for p in archives.PARTS] == [
        ("images_background.zip", 30, 964),
        ("images_evaluation.zip", 20, 659),
    ]
    assert archives.URL.endswith("/brendenlake/omniglot/master/python")


def check(path: Path) -> None:
    """The file holds what the archives were made of, in the right order."""
    found = read_drawings(path)
    for name, array in DRAWINGS._asdict().items():
        stored = getattr(found, name)
        np.testing.assert_array_equal(stored, array)
        assert stored.dtype == array.dtype
    assert found.alphabet.tolist() == ["Alpha"] * 3 + ["Beta"] * 2 + ["Gamma"] * 2
    np.testing.assert_array_equal(found.images(), DRAWINGS.images())


@pytest.mark.parametrize("kind", ["zips", "folders", "npz", "one of each"])
def test_from_a_folder(zips, data, tmp_path, kind):
    source = zips
    if kind in ("folders", "one of each"):
        source = tmp_path / "unpacked"
        for i, part in enumerate(NAMES):
            if kind == "one of each" and i:
                (source / f"{part}.zip").write_bytes((zips / f"{part}.zip").read_bytes())
                continue
            for name, content in members(DRAWINGS, part).items():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_bytes(content)
    if kind == "npz":
        source = tmp_path / "other"
        source.mkdir()
        (source / "omniglot.npz").write_bytes(DRAWINGS.to_npz())
    assert main(["data", "fetch", "omniglot", "--from", str(source)]) == 0
    check(data / "omniglot.npz")
    assert [path.name for path in data.iterdir()] == ["omniglot.npz"]
    assert (zips / "images_background.zip").is_file()  # the user's own files stay


def test_the_same_drawings_give_the_same_bytes(zips, tmp_path):
    made = [fetch_omniglot(tmp_path / name, ignore, source=zips)[0].read_bytes() for name in "ab"]
    assert made[0] == made[1] == DRAWINGS.to_npz()


def test_download(site, data, capsys):
    assert main(["data", "fetch", "omniglot"]) == 0
    check(data / "omniglot.npz")
    assert [path.name for path in data.iterdir()] == ["omniglot.npz"]
    assert "downloaded" in capsys.readouterr().out
    assert site.asked == [None, None]
    assert main(["data", "fetch", "omniglot"]) == 0  # it is there: nothing is asked for
    assert site.asked == [None, None] and "was there" in capsys.readouterr().out


def test_a_cut_connection_is_opened_again_where_it_ended(site, data):
    site.cuts = [1000, 500]
    fetch_omniglot(data, ignore)
    check(data / "omniglot.npz")
    assert site.asked == [None, "bytes=1000-", "bytes=1500-", None]


def test_what_arrived_is_kept_for_the_next_call(site, data):
    site.cuts = [1000] + [0] * download.TRIES
    with pytest.raises(InputError, match="1,000 bytes are kept, run again to go on"):
        fetch_omniglot(data, ignore)
    assert (data / "images_background.zip.part").stat().st_size == 1000 and not (data / "omniglot.npz").exists()
    site.cuts, site.asked = [], []
    fetch_omniglot(data, ignore)
    assert site.asked == ["bytes=1000-", None]
    check(data / "omniglot.npz")


def test_an_interruption_keeps_what_arrived(site, data, capsys, monkeypatch):
    """Ctrl-C in the second archive: the first is whole, of the second there is a part."""

    class Impatient:
        def __init__(self, *_):
            pass

        def __call__(self, progress):
            if progress.what == "images_evaluation.zip" and progress.done:
                raise KeyboardInterrupt
            return ""

    monkeypatch.setattr(download, "BLOCK", 1000)
    monkeypatch.setattr("ebbtide.cli.data._Words", Impatient)
    monkeypatch.setattr("ebbtide.report.progress.EVERY", -1.0)
    assert main(["data", "fetch", "omniglot"]) == 130
    assert "kept" in capsys.readouterr().out
    assert sorted(path.name for path in data.iterdir()) == ["images_background.zip", "images_evaluation.zip.part"]
    monkeypatch.undo()
    monkeypatch.setattr(archives, "URL", site.url)
    monkeypatch.setattr(archives, "PARTS", parts(site.folder))
    fetch_omniglot(data, ignore)
    assert site.asked == [None, None, "bytes=1000-"]
    check(data / "omniglot.npz")


def test_a_server_without_ranges_starts_over(site, data):
    site.cuts, site.ranges = [1000], False
    fetch_omniglot(data, ignore)
    check(data / "omniglot.npz")


@pytest.mark.parametrize("longer", [False, True])
def test_a_part_of_another_file_is_found_out_and_dropped(site, data, longer):
    data.mkdir()
    size = (site.folder / "images_background.zip").stat().st_size
    part = data / "images_background.zip.part"
    part.write_bytes(b"x" * (size + 5 if longer else 100))
    with pytest.raises(InputError, match="it was removed: run again"):
        fetch_omniglot(data, ignore)
    assert not part.exists() and not (data / "omniglot.npz").exists()
    fetch_omniglot(data, ignore)
    check(data / "omniglot.npz")


def test_a_wrong_checksum_is_refused(site, data, capsys):
    write_zip(site.folder / "images_evaluation.zip", {"images_evaluation/other.txt": b"another file"})
    assert main(["data", "fetch", "omniglot"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "MD5" in error
    assert [path.name for path in data.iterdir()] == ["images_background.zip"]


def test_one_line_when_nothing_can_be_reached(data, zips, capsys, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    port = server.server_address[1]
    server.server_close()  # nobody listens there now
    monkeypatch.setattr(archives, "URL", f"http://127.0.0.1:{port}")
    assert main(["data", "fetch", "omniglot"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "--from FOLDER" in error


def test_a_file_that_is_not_there_is_asked_for_once(site, data):
    (site.folder / "images_background.zip").unlink()
    with pytest.raises(InputError, match="404"):
        fetch_omniglot(data, ignore)
    assert site.asked == [None]


def test_a_file_far_too_large_is_not_downloaded(site, data, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_ARCHIVE", 2000)
    with pytest.raises(InputError, match="more than 2,000 bytes"):
        fetch_omniglot(data, ignore)


def test_two_downloads_of_one_file_do_not_mix(tmp_path):
    target = tmp_path / "a.zip"
    with (
        download._locked_part(tmp_path / "a.zip.part"),
        pytest.raises(InputError, match="by another process"),
    ):
        download.download("http://127.0.0.1:9/a.zip", target, md5="", most=10, report=ignore)


def test_progress_is_reported(site, data):
    seen: list[WorkProgress] = []
    fetch_omniglot(data, seen.append)
    size = (site.folder / "images_background.zip").stat().st_size
    assert WorkProgress("images_background.zip", size, size, "bytes") in seen
    assert seen[-1] == WorkProgress("images", 7 * DRAWERS, 7 * DRAWERS, "images")


def spoiled(zips: Path, monkeypatch, change) -> Path:
    """The background archive with its files changed by `change`, and a checksum that says it is right."""
    files = members(DRAWINGS, "images_background")
    change(files)
    write_zip(zips / "images_background.zip", files)
    known = archives.PARTS
    md5 = archives.file_md5(zips / "images_background.zip")
    monkeypatch.setattr(archives, "PARTS", (known[0]._replace(md5=md5), known[1]))
    return zips


FIRST = "images_background/Alpha/character01/0101_01.png"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: [f.pop(n) for n in list(f) if "/Beta/" in n], "must have 2 alphabets, has 1"),
        (lambda f: [f.pop(n) for n in list(f) if "/Beta/character02" in n], "must have 5 characters, has 4"),
        (lambda f: f.pop(FIRST), "Alpha, character 1: must have drawings 1 to 20 and no other; see [1]"),
        (lambda f: f.update({FIRST: png(np.ones((28, 28)))}), "must be 105 x 105 pixels, is 28 x 28"),
        (lambda f: f.update({FIRST: b"no picture"}), "cannot be read"),
        (lambda f: f.update({FIRST: f[FIRST][:60]}), "cannot be read"),
        (lambda f: f.update({FIRST: b"x" * 70_000}), "more than 65,536 bytes"),
        (lambda f: f.update({FIRST.replace("0101_01", "0999_01"): f[FIRST]}), "two files for the same drawing"),
        (lambda f: f.update({FIRST.replace("_01.", "_21."): f[FIRST]}), "see [21]"),
    ],
)
def test_a_bad_archive_gets_one_line(zips, tmp_path, monkeypatch, change, says):
    spoiled(zips, monkeypatch, change)
    with pytest.raises(InputError) as caught:
        fetch_omniglot(tmp_path / "data", ignore, source=zips)
    assert says in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "data/omniglot.npz").exists()


def test_names_in_an_archive_lead_nowhere(zips, tmp_path, monkeypatch):
    """Names that would leave the folder are not characters; nothing is ever unpacked to the disk."""
    image = png(np.ones((SIDE, SIDE)))
    names = ("../../evil.png", "/evil.png", "images_background/../../evil.png", "__MACOSX/images_background/a.png")
    spoiled(zips, monkeypatch, lambda files: files.update(dict.fromkeys(names, image)))
    before = sorted(tmp_path.rglob("*"))
    path, _ = fetch_omniglot(tmp_path / "data", ignore, source=zips)
    check(path)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path.parent, path])


def test_an_archive_with_too_many_entries_is_refused(zips, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 50)
    with pytest.raises(InputError, match="100 entries, at most 50"):
        fetch_omniglot(tmp_path / "data", ignore, source=zips)


def test_a_cut_off_archive_gets_one_line(zips, tmp_path, monkeypatch):
    path = zips / "images_background.zip"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match="not the author's file"):
        fetch_omniglot(tmp_path / "data", ignore, source=zips)
    monkeypatch.setattr(archives, "PARTS", parts(zips))
    with pytest.raises(InputError, match="cannot be read"):
        fetch_omniglot(tmp_path / "data", ignore, source=zips)


@pytest.mark.parametrize(("words", "says"), [(["omniglott"], "did you mean 'omniglot'?"), (["omniglot"], "must hold")])
def test_bad_words(data, tmp_path, capsys, words, says):
    (tmp_path / "empty").mkdir()
    assert main(["data", "fetch", *words, "--from", str(tmp_path / "empty")]) == 2
    assert says in capsys.readouterr().err
    assert not list(data.glob("*"))


def test_a_damaged_file_that_is_there_is_named_not_replaced(data, zips):
    data.mkdir()
    (data / "omniglot.npz").write_bytes(DRAWINGS.to_npz()[:-2000])
    with pytest.raises(InputError, match="remove it and run"):
        fetch_omniglot(data, ignore, source=zips)


def test_the_real_file_is_what_these_functions_write(real_data, tmp_path):
    """Real images as PNG files come back bit for bit; the real file has the order of `pack`."""
    path = real_data / "omniglot.npz"
    if not path.is_file():
        pytest.skip("no omniglot.npz beside the features (get it with: ebbtide data fetch omniglot)")
    real = read_drawings(path)
    assert real.packed.shape == (1623, DRAWERS, BYTES) and int(real.is_evaluation.sum()) == 659
    order = sorted(
        range(1623), key=lambda c: (bool(real.is_evaluation[c]), str(real.alphabet[c]), int(real.character[c]))
    )
    assert order == list(range(1623))
    some = real._replace(**{name: getattr(real, name)[::400] for name in real._fields if name != "drawer"})
    for c, images in enumerate(some.images()):
        packed = [archives.decode("image", png(image)) for image in images]
        np.testing.assert_array_equal(packed, some.packed[c])
