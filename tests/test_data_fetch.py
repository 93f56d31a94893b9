"""Omniglot by command: archives, folders, downloads that are cut, and everything that can be wrong with them.

The server is on this machine and the archives are small stand-ins (`drawn.py`)."""

import hashlib
import http.server
import io
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import drawn
from ebbtide.data import archives, download
from ebbtide.data.archives import PARTS, decode, fetch_omniglot, pack
from ebbtide.data.download import file_md5
from ebbtide.errors import InputError
from ebbtide.sources.drawings import FILE, Drawings, read_drawings

NAMES = ("images_background", "images_evaluation")


def quiet(progress) -> None:
    pass


def same(one: Drawings, other: Drawings) -> None:
    for name in Drawings._fields:
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype or name == "alphabet"
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.fixture(scope="module")
def truth() -> Drawings:
    return drawn.drawings(6)


@pytest.fixture(scope="module")
def zips(truth) -> dict[str, bytes]:
    members = {name: drawn.files(truth, evaluation=name == "images_evaluation") for name in NAMES}
    return {name: drawn.archive(name, members[name]) for name in NAMES}


@pytest.fixture(autouse=True)
def stand_in(truth, zips, monkeypatch) -> None:
    """The numbers and checksums of the small archives in place of the author's; no waiting."""
    md5 = {name: hashlib.md5(zips[name]).hexdigest() for name in NAMES}
    monkeypatch.setattr(archives, "PARTS", drawn.parts(truth, md5))
    monkeypatch.setattr(download, "PATIENCE", 5)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; what it was asked for is in `asked`, as (path, Range header)."""

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.asked = files, []
        self.ranges = True
        self.cut_after: int | None = None
        self.code = 200
        self.promised: int | None = None

    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None or self.server.code != 200:
            self.send_error(404 if content is None else self.server.code)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.server.ranges else 0  # pyright: ignore
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        length = self.server.promised or len(content) - start
        self.send_header("Content-Length", str(length))
        self.end_headers()
        rest = content[start:]
        self.wfile.write(rest if self.server.cut_after is None else rest[: self.server.cut_after])

    def log_message(self, format: str, *args) -> None:
        pass


@pytest.fixture
def server(zips, monkeypatch) -> Iterator[Server]:
    made = Server({f"{name}.zip": content for name, content in zips.items()})
    monkeypatch.setattr(archives, "URL", made.url())
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_the_checksums_and_numbers_are_those_of_the_authors_archives(monkeypatch):
    assert [(part.zip_name(), part.alphabets, part.characters) for part in PARTS] == [
        ("images_background.zip", 30, 964),
        ("images_evaluation.zip", 20, 659),
    ]
    assert [part.md5 for part in PARTS] == ["68d2efa1b9178cc56df9314c21c6e718", "6b91aef0f799c5bb55b94e3f2daec811"]


def test_download_pack_and_leave_nothing_else(tmp_path, server, truth):
    seen = []
    path, how = fetch_omniglot(tmp_path / "new", seen.append)
    assert (path.name, how) == (FILE, "downloaded")
    same(read_drawings(path), truth)
    assert [one.name for one in path.parent.iterdir()] == [FILE]
    assert [one for one, _ in server.asked] == ["/images_background.zip", "/images_evaluation.zip"]
    whats = {one.what for one in seen}
    assert whats == {"images_background.zip", "images_evaluation.zip", "images"}
    for what in whats:
        last = [one for one in seen if one.what == what][-1]
        assert last.done == last.total > 0


def test_a_file_that_is_there_is_left_alone(tmp_path, server):
    path, _ = fetch_omniglot(tmp_path, quiet)
    stamp = path.stat()
    assert fetch_omniglot(tmp_path, quiet) == (path, "was there")
    assert path.stat() == stamp and len(server.asked) == 2


@pytest.mark.parametrize("ranges", [True, False])
def test_what_has_arrived_is_not_asked_for_again(tmp_path, server, zips, truth, ranges):
    """A part of an earlier call is kept; a server that knows no ranges sends all, and nothing is doubled."""
    server.ranges = ranges
    (tmp_path / "images_background.zip.part").write_bytes(zips[NAMES[0]][:1000])
    same(read_drawings(fetch_omniglot(tmp_path, quiet)[0]), truth)
    assert server.asked[0] == ("/images_background.zip", "bytes=1000-")


def test_a_cut_connection_is_opened_again(tmp_path, server, zips, truth):
    server.cut_after = len(zips[NAMES[0]]) // 3 + 1
    same(read_drawings(fetch_omniglot(tmp_path, quiet)[0]), truth)
    starts = [int(wanted[6:-1]) if wanted else 0 for path, wanted in server.asked if path == "/images_background.zip"]
    assert starts == [0, server.cut_after, 2 * server.cut_after]


def test_what_arrived_before_an_interruption_is_kept(tmp_path, server, zips, truth, monkeypatch):
    monkeypatch.setattr(download, "BLOCK", 512)

    def interrupt(progress) -> None:
        if progress.done >= 2048:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_omniglot(tmp_path, interrupt)
    assert [one.name for one in tmp_path.iterdir()] == ["images_background.zip.part"]
    assert (tmp_path / "images_background.zip.part").read_bytes() == zips[NAMES[0]][:2048]
    server.asked.clear()
    same(read_drawings(fetch_omniglot(tmp_path, quiet)[0]), truth)
    assert server.asked[0] == ("/images_background.zip", "bytes=2048-")


def test_a_part_that_is_whole_already(tmp_path, server, zips, truth):
    (tmp_path / "images_background.zip.part").write_bytes(zips[NAMES[0]])
    same(read_drawings(fetch_omniglot(tmp_path, quiet)[0]), truth)


def refused(call: Callable[[], object], field: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.field == field
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_wrong_checksum_is_refused_and_removed(tmp_path, server):
    server.files["images_background.zip"] = server.files["images_background.zip"][:-1] + b"x"
    refused(lambda: fetch_omniglot(tmp_path, quiet), "url", "has the MD5")
    assert not list(tmp_path.iterdir())


def test_a_part_of_something_else_is_found_out(tmp_path, server, truth):
    """Its length fits, its content does not: the checksum tells; the next call begins anew."""
    (tmp_path / "images_background.zip.part").write_bytes(b"x" * 1000)
    refused(lambda: fetch_omniglot(tmp_path, quiet), "url", "run again")
    same(read_drawings(fetch_omniglot(tmp_path, quiet)[0]), truth)


@pytest.mark.parametrize(("code", "asked"), [(403, 1), (503, download.TRIES)])
def test_a_server_that_refuses(tmp_path, server, code, asked):
    """Tried again only where that may help."""
    server.code = code
    refused(lambda: fetch_omniglot(tmp_path, quiet), "url", f"the server answers {code}")
    assert len(server.asked) == asked and not (tmp_path / FILE).exists()


def test_a_server_that_always_cuts_before_the_first_byte(tmp_path, server):
    server.cut_after = 0
    refused(lambda: fetch_omniglot(tmp_path, quiet), "url", "use --from FOLDER")
    assert len(server.asked) == download.TRIES


def test_nobody_there(tmp_path, server, monkeypatch):
    closed = Server({})
    monkeypatch.setattr(archives, "URL", closed.url())
    closed.server_close()
    refused(lambda: fetch_omniglot(tmp_path, quiet), "url", "use --from FOLDER")


@pytest.mark.parametrize("promised", [10**12, None])
def test_too_much_is_not_stored(tmp_path, server, monkeypatch, promised):
    """Neither what a header promises nor what simply goes on."""
    monkeypatch.setattr(archives, "LARGEST_ARCHIVE", 1000)
    server.promised = promised
    refused(lambda: fetch_omniglot(tmp_path, quiet), "url", "more than 1,000 bytes")
    assert sum(one.stat().st_size for one in tmp_path.iterdir()) <= 1000


def test_two_downloads_at_once_are_refused(tmp_path, server):
    with download._held(tmp_path / "images_background.zip.part"):
        refused(lambda: fetch_omniglot(tmp_path, quiet), "file", "by another process")


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def test_from_the_two_archives(tmp_path, source, zips, truth):
    for name, content in zips.items():
        (source / f"{name}.zip").write_bytes(content)
    path, how = fetch_omniglot(tmp_path / "data", quiet, source=source)
    same(read_drawings(path), truth)
    assert how == f"packed from {source}" and len(list(source.iterdir())) == 2


def test_from_an_archive_and_an_unpacked_folder(tmp_path, source, zips, truth):
    (source / "images_background.zip").write_bytes(zips["images_background"])
    with zipfile.ZipFile(io.BytesIO(zips["images_evaluation"])) as archive:
        archive.extractall(source)
    (source / "images_evaluation/.DS_Store").write_bytes(b"x")
    same(read_drawings(fetch_omniglot(tmp_path / "data", quiet, source=source)[0]), truth)


def test_from_a_packed_file(tmp_path, source, truth):
    drawn.write(source)
    path, how = fetch_omniglot(tmp_path / "data", quiet, source=source)
    same(read_drawings(path), truth)
    assert how == f"copied from {source}"


def test_the_same_drawings_give_the_same_bytes(tmp_path, source, zips, truth, server):
    for name, content in zips.items():
        (source / f"{name}.zip").write_bytes(content)
    one, _ = fetch_omniglot(tmp_path / "one", quiet)
    other, _ = fetch_omniglot(tmp_path / "other", quiet, source=source)
    assert one.read_bytes() == other.read_bytes() == truth.to_npz()


def test_from_nothing_useful(tmp_path, source, zips):
    refused(lambda: fetch_omniglot(tmp_path, quiet, source=tmp_path / "nowhere"), "from", "no such folder")
    refused(lambda: fetch_omniglot(tmp_path, quiet, source=source), "from", f"must hold {FILE}")
    (source / "images_background.zip").write_bytes(zips["images_evaluation"])
    refused(lambda: fetch_omniglot(tmp_path, quiet, source=source), "from", "not the author's file")
    (source / "images_background.zip").unlink()
    (source / FILE).write_bytes(b"not one")
    refused(lambda: fetch_omniglot(tmp_path, quiet, source=source), "omniglot", "cannot be read")
    assert not (tmp_path / FILE).exists()


GOOD = "Back_(0)/character01/0001_01.png"


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        (lambda m: m.pop(GOOD), "images_background", "Back_(0), character 1: must have drawings 1 to 20"),
        (lambda m: [m.pop(k) for k in list(m) if "Back_(1)" in k], "images_background", "must have 2 alphabets, has 1"),
        (lambda m: m.update({GOOD.replace("_01.", "_21."): m[GOOD]}), "images_background", "see [21]"),
        (lambda m: m.update({GOOD.replace("0001_", "0009_"): m[GOOD]}), "image", "two files for the same drawing"),
        (lambda m: m.update({GOOD: b"not a picture"}), "image", "cannot be read"),
        (lambda m: m.update({GOOD: m[GOOD][:60]}), "image", "cannot be read"),
        (
            lambda m: m.update({GOOD: drawn.png(np.zeros((105, 104)))}),
            "image",
            "must be 105 x 105 pixels, is 104 x 105",
        ),
        (lambda m: m.update({GOOD: bytes(1 << 20)}), "image", "has more than 65,536 bytes"),
        (lambda m: m.update({GOOD.replace("character01", "character09"): m[GOOD]}), "images_background", "has 5"),
    ],
)
def test_an_archive_with_something_wrong_in_it(tmp_path, truth, zips, change, field, said):
    members = drawn.files(truth, evaluation=False)
    change(members)
    path = tmp_path / "images_background.zip"
    path.write_bytes(drawn.archive("images_background", members))
    refused(lambda: pack({archives.PARTS[0]: path}, quiet), field, said)


def test_paths_in_an_archive_are_compared_and_never_opened(tmp_path, truth):
    """Names that lead out of the folder, links and strangers are not images; nothing is unpacked."""
    members = drawn.files(truth, evaluation=False)
    evil = dict.fromkeys(["../../evil.png", "/evil.png", "a/b/../../../evil.png", "Back_(0)/character01/x.png"], b"x")
    path = tmp_path / "images_background.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | evil).items():
            archive.writestr(f"images_background/{name}", content)
        archive.writestr("/etc/evil.png", b"x")
        archive.writestr("elsewhere/" + GOOD, b"x")
    before = sorted(tmp_path.parent.rglob("*"))
    found = pack({archives.PARTS[0]: path}, quiet)
    np.testing.assert_array_equal(found.packed, truth.packed[~truth.is_evaluation])
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_too_many_entries(tmp_path, zips, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 10)
    path = tmp_path / "images_background.zip"
    path.write_bytes(zips["images_background"])
    refused(lambda: pack({archives.PARTS[0]: path}, quiet), "images_background", "at most 10")


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_a_picture_of_any_kind_becomes_the_same_bits(mode):
    image = drawn.drawings(2).images()[0, 0]
    np.testing.assert_array_equal(decode("x", drawn.png(image, mode)), np.packbits(image.ravel()))


def test_the_checksum_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_md5(tmp_path / "x") == "900150983cd24fb0d6963f7d28e17f72"


def test_the_real_file_comes_back_from_its_own_pictures(tmp_path, real_data, monkeypatch):
    """Pictures made of some real characters, packed: pixel for pixel what they were made of."""
    if not (real_data / FILE).is_file():
        pytest.skip(f"no {FILE}: run ebbtide data fetch omniglot")
    whole = read_drawings(real_data / FILE)
    first = np.concatenate([np.flatnonzero(whole.is_evaluation == flag)[:3] for flag in (False, True)])
    some = Drawings(*(value if name == "drawer" else value[first] for name, value in whole._asdict().items()))
    parts = [part._replace(alphabets=1, characters=3) for part in archives.PARTS]
    for part in parts:
        for name, content in drawn.files(some, evaluation=part.is_evaluation).items():
            path = tmp_path / part.name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    same(pack({part: tmp_path / part.name for part in parts}, quiet), some)
