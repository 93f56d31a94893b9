"""Who is answered by the dashboard: this machine, its own page, requests that read; and nothing outside of the root."""

import os
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from dashboard_tools import HERE, PORT, app_over, ask, get, simple_run
from ebbtide.cli import main
from ebbtide.dashboard import serve
from ebbtide.dashboard.places import root_at
from ebbtide.errors import InputError

TOKEN = "a-token-of-twenty-four-x"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A root with one run, and a run outside of it to which links lead."""
    folder = tmp_path_factory.mktemp("guard")
    for name in ("root/own", "outside/secret"):
        simple_run(folder / name)
    (folder / "root/link").symlink_to(folder / "outside/secret")
    (folder / "root/up").symlink_to("..")
    (folder / "root/other").symlink_to("own")
    (folder / "root/circle").symlink_to("circle")
    return folder / "root"


@pytest.fixture(scope="module")
def app(root):
    return app_over(root)


@pytest.mark.parametrize(
    "host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"[::1]:{PORT}", "localhost:9000", "LOCALHOST", "127.0.0.1"]
)
def test_a_request_that_names_this_machine_is_answered_whatever_the_port(host, app):
    """Behind `ssh -L 9000:localhost:8642` the browser's port is another one."""
    assert ask(app, "/api/runs", headers={"host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "evil.example"},
        {"host": f"evil.example:{PORT}"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost.evil.example"},
        {"host": "evil.example@127.0.0.1"},
        {"host": "127.0.0.1:8642:8642"},
        {"host": "127.0.0.1:99999"},
        {"host": "localhost evil.example"},
        {"host": ""},
        {"host": "192.168.1.7:8642"},
        [("host", "127.0.0.1"), ("host", "evil.example")],
        [("host", "evil.example"), ("host", "127.0.0.1")],
    ],
)
def test_a_request_to_another_name_is_refused(headers, app):
    """A name of an attacker that leads to this machine (DNS rebinding) stays the attacker's in this header."""
    found = ask(app, "/api/runs", headers=headers)
    assert found.status == 421 and b"own" not in found.body


@pytest.mark.parametrize(
    "other",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:8642"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:8642"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    ],
)
def test_a_request_from_another_site_is_refused(other, app):
    found = ask(app, "/api/runs", headers={**HERE, **other})
    assert found.status == 403 and b"own" not in found.body


def test_the_own_page_may_ask_and_a_link_elsewhere_may_open_it(app):
    own = {**HERE, "origin": f"http://127.0.0.1:{PORT}", "sec-fetch-site": "same-origin"}
    assert ask(app, "/api/runs", headers=own).status == 200
    opened = {**HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert ask(app, "/", headers=opened).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_requests_that_could_change_something_are_refused(method, app):
    found = ask(app, "/api/runs", method=method)
    assert found.status == 405 and found.headers["allow"] == "GET, HEAD"


def test_web_sockets_are_closed(app):
    assert ask(app, "/", kind="websocket").status == 0


@pytest.mark.parametrize("path", ["/api/runs", "/nothing", "/static/nothing.js", "/api/run"])
@pytest.mark.parametrize("headers", [HERE, {"host": "evil.example"}], ids=["answered", "refused"])
def test_every_answer_has_the_headers_of_safety(path, headers, app):
    found = ask(app, path, headers=headers).headers
    parts = [part.strip().partition(" ") for part in found["content-security-policy"].split(";")]
    policy = {name: rest for name, _, rest in parts}
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in found["content-security-policy"] and "http" not in found["content-security-policy"]
    assert found["x-content-type-options"] == "nosniff" and found["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in found and "no-cache" in found["cache-control"]


def test_a_report_runs_no_script_and_stands_in_the_own_page_only(app):
    found = get(app, "/report", name="own").headers["content-security-policy"]
    assert "script-src" not in found and "default-src 'none'" in found and "sandbox" in found
    assert "frame-ancestors 'self'" in found and "allow-scripts" not in found and "allow-same-origin" not in found
    assert "frame-ancestors 'none'" in get(app, "/report", name="..").headers["content-security-policy"]


OUT = [
    "",
    ".",
    "..",
    "../outside/secret",
    "/etc",
    "//etc",
    "own/../../outside/secret",
    "own/..",
    "own/",
    "/own",
    "own//",
    "own/./x",
    "own/runs/..",
    "own/runs/../../../outside/secret",
    "%2e%2e/outside/secret",
    "%2e%2e%2foutside%2fsecret",
    "..%2foutside",
    "%252e%252e",
    "..\\outside\\secret",
    "own\0",
    "own\n",
    "..;/outside",
    "\u2025/outside",
    "\uff0e\uff0e/outside/secret",
    "link",
    "up",
    "up/runs/x",
    "circle",
    ".hidden",
    "own/checkpoints",
    "own/run.json",
    "x" * 5000,
    "~",
    "file:///etc",
    "own/metrics/x",
]
ADDRESSES = ("/api/run", "/api/curves", "/api/sweep", "/api/probe", "/report")


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_name_leads_out_of_the_root(address, app, root):
    for name in OUT:
        found = get(app, address, name=name, probe="x")
        assert found.status in (400, 404), name
        assert set(found.json()) == {"error"} and str(root).encode() not in found.body, name
        assert found.json()["error"].isprintable()


def test_a_link_that_stays_in_the_root_is_followed(app):
    assert get(app, "/api/curves", name="other").status == 200


@pytest.mark.parametrize("name", ["..", "x/../y", "/etc/passwd", "\0", "a\nb", ".x", ""])
def test_no_name_of_a_probe_leads_out_of_its_folder(name, app):
    assert get(app, "/api/probe", name="own", probe=name).status == 400


@pytest.mark.parametrize(
    "path", ["/static/../guard.py", "/static/%2e%2e/guard.py", "/static//etc/passwd", "/static/..\\guard.py", "/../x"]
)
def test_no_address_leads_out_of_the_files_of_the_page(path, app):
    found = ask(app, path)
    assert found.status in (404, 405) and b"import" not in found.body


def test_links_in_a_sweep_that_lead_out_of_the_root_are_refused(tmp_path, root):
    simple_run(tmp_path / "outside")
    folder = tmp_path / "root/sweep"
    (folder / "runs").mkdir(parents=True)
    (folder / "sweep.json").write_text("{}")
    (folder / "runs/0123456789abcdef").symlink_to(tmp_path / "outside")
    app = app_over(tmp_path / "root")
    for address in ("/api/sweep", "/report", "/api/run"):
        assert b"leads out of the root" in get(app, address, name="sweep").body, address
    for address in ADDRESSES:
        assert get(app, address, name="sweep/runs/0123456789abcdef", probe="x").status == 400


def test_repeated_and_numerous_parameters_are_refused_in_one_line(app):
    assert "must be given once" in ask(app, "/api/run", "name=own&name=own").json()["error"]
    assert ask(app, "/api/run").status == 400
    many = "&".join(["name=own", *["curve=icl"] * 101])
    assert ask(app, "/api/curves", many).status == 400
    for text in ("-1", "1e3", "x", "9" * 30, "\u0661"):
        assert get(app, "/api/curves", name="own", **{"from": text}).status == 400


def test_with_a_token_only_who_brings_it_is_answered(root):
    app = app_over(root, token=TOKEN)
    for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": f"ebbtide-{PORT}=wrong"}, {"cookie": TOKEN}):
        found = ask(app, "/api/runs", headers={**HERE, **headers})
        assert found.status == 401 and b"own" not in found.body and TOKEN not in str(found)
    assert ask(app, "/api/runs", "token=wrong").status == 401
    for headers in ({"authorization": f"Bearer {TOKEN}"}, {"cookie": f"x=1; ebbtide-{PORT}={TOKEN}"}):
        assert ask(app, "/api/runs", headers={**HERE, **headers}).status == 200


def test_the_token_moves_from_the_address_to_a_cookie(root):
    app = app_over(root, token=TOKEN)
    found = ask(app, "/", f"token={TOKEN}&a=b%26c")
    assert found.status == 303 and found.headers["location"] == "/?a=b%26c"
    assert found.headers["set-cookie"] == f"ebbtide-{PORT}={TOKEN}; HttpOnly; SameSite=Strict; Path=/"
    cookie = found.headers["set-cookie"].partition(";")[0]
    assert ask(app, "/api/runs", headers={**HERE, "cookie": cookie}).status == 200
    assert ask(app, "//evil.example/x", f"token={TOKEN}").headers["location"] == "/"


def test_with_a_token_an_address_in_digits_may_be_used_but_no_foreign_name(root):
    app = app_over(root, token=TOKEN, names=["the-machine"])
    bearer = {"authorization": f"Bearer {TOKEN}"}
    for host in ("192.168.1.7:8642", "the-machine:8642", "[fe80::1]:8642"):
        assert ask(app, "/api/runs", headers={"host": host, **bearer}).status == 200
    assert ask(app, "/api/runs", headers={"host": "evil.example", **bearer}).status == 421


@pytest.mark.parametrize(
    ("host", "token", "words"),
    [
        ("0.0.0.0", None, "give --token too"),
        ("192.0.2.1", None, "give --token too"),
        ("::", None, "give --token too"),
        ("some-machine", None, "give --token too"),
        (None, "short", "at least 16"),
        (None, "a b c d e f g h i j k l", "at least 16"),
        (None, "\u00e9" * 30, "at least 16"),
    ],
)
def test_other_machines_are_let_in_with_a_good_token_only(host, token, words):
    with pytest.raises(InputError, match=words) as raised:
        serve.place_of(host, 0, token)
    assert "short" not in str(raised.value)


def test_a_token_is_made_and_is_a_new_one_each_time():
    one, other = (serve.place_of("0.0.0.0", 0, "") for _ in range(2))
    assert one.token and other.token and one.token != other.token and len(one.token) >= 32
    assert one.address(80).endswith(f":80/?token={one.token}") and "0.0.0.0" not in one.address(80)
    assert serve.place_of(None, 0, None).address(8642) == "http://127.0.0.1:8642/"
    assert serve.place_of("::1", 0, None).address(1) == "http://[::1]:1/"


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["dashboard", "--root", str(tmp_path), "--port", str(port)]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"ebbtide: port = {port}: cannot be used") and len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--root", "none"], "root = 'none': no such folder"),
        (["--port", "70000"], "port = 70000"),
        (["--host", "0.0.0.0"], "host = '0.0.0.0'"),
        (["--host", "no such host", "--token"], "host = 'no such host'"),
        (["--root", "runs/own"], "is itself a run or sweep"),
    ],
)
def test_bad_options_are_told_in_one_line(words, told, tmp_path, monkeypatch, capsys):
    simple_run(tmp_path / "runs/own")
    monkeypatch.chdir(tmp_path)
    assert main(["dashboard", *words]) == 2
    errors = capsys.readouterr().err
    assert told in errors and len(errors.splitlines()) == 1


def test_a_missing_package_is_told_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    assert main(["dashboard", "--root", str(tmp_path)]) == 2
    assert "pip install 'ebbtide[dashboard]'" in capsys.readouterr().err


def test_the_command_answers_on_this_machine_alone_and_ends_at_ctrl_c(root):
    """The whole road: the command in a process of its own, a real socket, a real signal."""
    words = [sys.executable, "-m", "ebbtide.cli", "dashboard", "--root", str(root), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as server:
        assert server.stdout is not None and server.stderr is not None
        try:
            address = server.stdout.readline().rpartition("http://")[2].strip()
            host, port = address.rstrip("/").split(":")
            assert host == "127.0.0.1"
            for path, status in {"/api/runs": 200, "/api/run?name=%2e%2e": 400, "/..%2f..%2fetc/passwd": 404}.items():
                link = HTTPConnection(host, int(port), timeout=60)
                link.putrequest("GET", path)
                link.endheaders()
                found = link.getresponse()
                body = found.read()
                assert found.status == status, (path, body)
                assert "server" not in found.headers
                link.close()
        finally:
            server.send_signal(2)
            told = server.stderr.read()
            assert server.wait(60) == 130
    assert "Traceback" not in told and len(told.splitlines()) == 1


def test_the_root_may_be_a_link_itself(tmp_path):
    simple_run(tmp_path / "real/own")
    (tmp_path / "link").symlink_to("real")
    assert root_at(str(tmp_path / "link")).find("own") == (tmp_path / "real/own").resolve()
