"""Downloads from a server on this machine: whole ones are kept, all others leave no trace."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from optlab.data.download import cache, fetch

BODY = bytes(range(256)) * 1000
HASH = hashlib.sha256(BODY).hexdigest()
ADVICE = "or read it out"


class Handler(BaseHTTPRequestHandler):
    """``/whole``, ``/cut`` (before the length announced), ``/short`` and ``/altered``."""

    def do_GET(self):
        body = {
            "/whole": BODY,
            "/cut": BODY[:-1000],
            "/short": BODY[:-1],
            "/altered": b"\1" + BODY[1:],
        }.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY if self.path == "/cut" else body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.address = [], f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_whole_download_is_kept_and_not_asked_for_again(server, tmp_path):
    path = tmp_path / "deep" / "file"
    for _ in range(2):
        assert fetch(f"{server.address}/whole", HASH, path, ADVICE) == path
        assert path.read_bytes() == BODY
    assert server.asked == ["/whole"]
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("page", ["cut", "short", "altered", "missing"])
@pytest.mark.parametrize("before", [None, b"of an older version"])
def test_what_is_cut_or_altered_is_refused(server, tmp_path, page, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(RuntimeError, match=r"Try again, or read it out") as raised:
        fetch(f"{server.address}/{page}", HASH, path, ADVICE)
    assert f"{server.address}/{page}" in str(raised.value)
    if page in ("short", "altered"):
        assert "cut or altered, and was not kept" in str(raised.value)
    if page == "missing":
        assert "404" in str(raised.value)
    assert [*tmp_path.iterdir()] == ([] if before is None else [path])
    assert before is None or path.read_bytes() == before


def test_a_damaged_file_in_the_cache_is_fetched_anew(tmp_path):
    source, path = tmp_path / "source", tmp_path / "cache" / "file"
    source.write_bytes(BODY)
    fetch(source.as_uri(), HASH, path, ADVICE)
    path.write_bytes(BODY[:-1])
    with path.open("rb") as reader:
        fetch(source.as_uri(), HASH, path, ADVICE)
        # Who reads the old file meanwhile sees no mixture: another has come in its place.
        assert reader.read() == BODY[:-1]
    assert path.read_bytes() == BODY


def test_no_answer_and_no_folder(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(RuntimeError, match="could not be downloaded to"):
        fetch(f"{server.address}/whole", HASH, tmp_path / "file", ADVICE)
    (tmp_path / "taken").write_text("a file where the folder would be")
    with pytest.raises(RuntimeError, match="could not be downloaded to"):
        fetch((tmp_path / "taken").as_uri(), HASH, tmp_path / "taken" / "file", ADVICE)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_the_cache_is_where_the_system_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache() == tmp_path / "optlab"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache() == tmp_path / "home" / ".cache" / "optlab"
