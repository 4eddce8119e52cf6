"""``zsad-bench data download`` against a server on this machine that behaves badly in the ways servers do."""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from zsad_bench.cli.data import download as downloading
from zsad_bench.cli.data.download import download
from zsad_bench.cli.main import main
from zsad_bench.core.errors import UserError
from zsad_bench.engine.dataset_card import Card, card

pytest.importorskip("pooch", reason="pip install zsad-bench[download]")


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


FILES = {"set/a.txt": b"one", "set/b.bin": bytes(range(256)) * 3000}


class Server(ThreadingHTTPServer):
    """Serves one archive, or the first ``cut`` bytes of it, and counts how often it was asked."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.asked = content, 0
        self.cut: int | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if not self.path.endswith(("archive.tar", "archive.zip")):
            self.send_error(404)
            return
        self.server.asked += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content[: self.server.cut])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(tar_of(FILES))
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def entry(server: Server, name: str = "archive.tar", sha256: str | None = None) -> Card:
    digest = sha256 or hashlib.sha256(server.content).hexdigest()
    about = replace(card("visa").about, download={"url": f"{server.address}/{name}", "sha256": digest})
    return replace(card("visa"), about=about)


def assert_complete(folder: Path) -> None:
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == FILES


def assert_one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_archives_are_fetched_unpacked_and_removed(server: Server, tmp_path: Path) -> None:
    assert download(entry(server), tmp_path / "new" / "visa") == tmp_path / "new" / "visa"
    assert_complete(tmp_path / "new" / "visa")
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "visa"]
    server.content = zip_of(FILES)
    download(entry(server, "archive.zip"), tmp_path / "zipped", keep_archive=True)
    assert_complete(tmp_path / "zipped")
    assert (tmp_path / "archive.zip").read_bytes() == server.content


def test_a_wrong_checksum_unpacks_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not the published one.*--mirror") as error:
        download(entry(server, sha256="0" * 64), tmp_path / "visa")
    assert f"{server.address}/archive.tar" in assert_one_line(error)
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_is_cut_leaves_nothing_and_says_how_to_resume(server: Server, tmp_path: Path) -> None:
    """The line works as it stands: what another tool puts there is checked and used, without asking the server."""
    server.cut = 200_000
    with pytest.raises(UserError, match="the connection was cut") as error:
        download(entry(server), tmp_path / "my data" / "visa")
    place = tmp_path / "my data" / "archive.tar"
    line = shlex.split(re.search(r"the file: (curl .*)$", assert_one_line(error))[1])
    assert line == ["curl", "-L", "-C", "-", "-o", str(place), f"{server.address}/archive.tar"]
    assert list(place.parent.iterdir()) == []
    place.write_bytes(server.content)
    asked = server.asked
    download(entry(server), tmp_path / "my data" / "visa")
    assert server.asked == asked
    assert_complete(tmp_path / "my data" / "visa")


def test_a_file_of_the_archives_name_that_is_not_it_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "archive.tar").write_bytes(server.content[:1000])
    download(entry(server), tmp_path / "visa")
    assert_complete(tmp_path / "visa")


def test_a_disk_that_refuses(server: Server, tmp_path: Path) -> None:
    """The system's own limit on the size of a file stands for a full disk: both refuse a write."""
    resource = pytest.importorskip("resource", reason="this system cannot limit the size of files")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written \(File too large\).*--to") as error:
            download(entry(server), tmp_path / "visa")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert_one_line(error)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_larger_than_the_disk_is_not_begun(server: Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match=r"0\.0 GB are free"):
        download(entry(server), tmp_path / "visa")
    assert list(tmp_path.iterdir()) == []


def test_unreachable_servers_and_missing_files(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="404") as error:
        download(entry(server, "gone.tar"), tmp_path / "visa")
    assert_one_line(error)
    with pytest.raises(UserError, match="cannot be reached"):
        download(entry(server), tmp_path / "visa", mirror="http://127.0.0.1:9")


def test_a_mirror_has_the_archive_under_its_usual_name(server: Server, tmp_path: Path, monkeypatch, capsys) -> None:
    with pytest.raises(UserError, match=f"{server.address}/mirror/VisA_20220922.tar"):
        download(card("visa"), tmp_path / "visa", mirror=f"{server.address}/mirror/")
    monkeypatch.setenv("ZSAD_MIRROR", server.address)
    assert main(["data", "download", "btad", "--to", str(tmp_path / "btad")]) == 2
    assert f"{server.address}/btad.zip" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"no archive", tar_of(FILES)[:700], tar_of({"../evil": b"x"})])
def test_damaged_and_hostile_archives(server: Server, tmp_path: Path, content: bytes) -> None:
    server.content = content
    with pytest.raises(UserError, match="cannot be unpacked") as error:
        download(entry(server), tmp_path / "in" / "visa")
    assert_one_line(error)
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "in" / "visa").exists()


def test_a_folder_with_files_is_not_touched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(UserError, match="not empty"):
        download(entry(server), tmp_path)
    assert server.asked == 0


@pytest.mark.parametrize("key", ["mvtec", "real_iad", "elpv", "mtoc"])
def test_datasets_that_need_registration_say_where(key: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be downloaded directly") as error:
        download(card(key), tmp_path / key)
    message = assert_one_line(error)
    assert (card(key).page or "its publisher") in message
    assert card(key).licence in message
