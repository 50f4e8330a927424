"""Published files: downloaded, continued, checked, unpacked."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data.download import obtain, unpack
from data.published import Download, is_published, size_in_words

CONTENT = bytes(range(256)) * 20


@dataclass
class Server:
    """A web server on this machine that offers one file, and notes what it was asked for."""

    url: str = ""
    content: bytes = CONTENT
    num_sent: int | None = None
    """Break off after so many bytes."""
    knows_ranges: bool = True
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/file.bin":
                self.send_error(404)
                return
            asked = self.headers.get("Range")
            state.asked.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.knows_ranges else 0
            content = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: state.num_sent])

        def log_message(self, format: str, *args: object) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{web.server_port}/file.bin"
    yield state
    web.shutdown()
    thread.join()
    web.server_close()


def _item(server: Server, **changes: str) -> Download:
    item = Download(
        url=server.url,
        num_bytes=len(CONTENT),
        algorithm="sha256",
        checksum=hashlib.sha256(CONTENT).hexdigest(),
    )
    return replace(item, **changes)  # type: ignore[arg-type]


def _quiet(line: str) -> None:
    """Progress that nobody reads."""


def test_download_is_checked_and_put_in_place(server: Server, tmp_path: Path) -> None:
    lines: list[str] = []
    obtain(_item(server), tmp_path / "file.bin", lines.append)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]
    assert lines == [f"downloading file.bin (0 MB) from {server.url}"]
    obtain(_item(server), tmp_path / "file.bin", _quiet)
    assert server.asked == [None]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_download_that_broke_off_goes_on(server: Server, tmp_path: Path, knows_ranges: bool) -> None:
    server.num_sent, server.knows_ranges = 1000, knows_ranges
    with pytest.raises(ValueError, match=r"file\.bin: the download was cut off; repeat this command to continue it"):
        obtain(_item(server), tmp_path / "file.bin", _quiet)
    assert not (tmp_path / "file.bin").exists()
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:1000]
    server.num_sent = None
    obtain(_item(server), tmp_path / "file.bin", _quiet)
    assert server.asked == [None, "bytes=1000-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert not (tmp_path / "file.bin.part").exists()


def test_whole_download_that_was_not_put_in_place_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    obtain(_item(server), tmp_path / "file.bin", _quiet)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == []


def test_wrong_content_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[::-1]
    with pytest.raises(
        ValueError, match=r"file\.bin\.part: not the published file\.bin \(its sha256 is not [0-9a-f]{64}"
    ):
        obtain(_item(server), tmp_path / "file.bin", _quiet)
    assert not list(tmp_path.iterdir())


def test_page_in_place_of_the_file_is_refused(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>moved</html>"
    with pytest.raises(ValueError, match=r"sends 18 bytes, not the 5,120 of file\.bin"):
        obtain(_item(server), tmp_path / "file.bin", _quiet)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["/gone.bin", None])
def test_no_network_says_what_to_put_where(server: Server, tmp_path: Path, ending: str | None) -> None:
    url = server.url.replace("/file.bin", ending) if ending else "http://127.0.0.1:1/gone.bin"
    with pytest.raises(
        ValueError, match=r"cannot download \S+gone\.bin \(.*\); get gone\.bin elsewhere, put it into"
    ) as caught:
        obtain(_item(server, url=url), tmp_path / "gone.bin", _quiet)
    assert f"put it into {tmp_path} and repeat this command" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_is_there_is_checked(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=r"file\.bin: cut short, 5,119 of 5,120 bytes; remove it and repeat"):
        obtain(_item(server), path, _quiet)
    path.write_bytes(CONTENT + b"x")
    with pytest.raises(ValueError, match=r"file\.bin: not the published file\.bin"):
        obtain(_item(server), path, _quiet)
    assert path.read_bytes() == CONTENT + b"x"
    assert server.asked == []


def test_checksums(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    item = Download(url="x/a", num_bytes=3, algorithm="md5", checksum="900150983cd24fb0d6963f7d28e17f72")
    assert is_published(item, tmp_path / "a")
    assert not is_published(replace(item, algorithm="sha256"), tmp_path / "a")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert is_published(replace(item, algorithm="sha256", checksum=digest), tmp_path / "a")


def test_sizes_in_words() -> None:
    assert [size_in_words(n) for n in (170_498_071, 18_445_000_000, 999)] == ["170 MB", "18.4 GB", "0 MB"]


def _zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _tar(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)


Write = Callable[[Path, dict[str, bytes]], None]
KINDS = [pytest.param(_zip, "a.zip", id="zip"), pytest.param(_tar, "a.tar.gz", id="tar")]


@pytest.mark.parametrize(("write", "name"), KINDS)
def test_the_wanted_folder_is_unpacked(write: Write, name: str, tmp_path: Path) -> None:
    write(tmp_path / name, {"real/ant/1.jpg": b"one", "real/2.jpg": b"", "__MACOSX/real/1.jpg": b"no", "readme": b"no"})
    unpack(tmp_path / name, tmp_path / "real", _quiet)
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.jpg")}
    assert files == {"real/ant/1.jpg": b"one", "real/2.jpg": b""}
    assert {path.name for path in tmp_path.iterdir()} == {name, "real"}


@pytest.mark.parametrize(("write", "name"), KINDS)
@pytest.mark.parametrize("bad", ["../outside", "real/../../outside", "/tmp/outside", "real\\..\\outside"])
def test_entries_that_point_outside_are_refused(write: Write, name: str, bad: str, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    write(inner / name, {"real/1.jpg": b"one", bad: b"evil"})
    with pytest.raises(ValueError, match=rf"{name}: its entry '.*outside' points outside the archive's folder"):
        unpack(inner / name, inner / "real", _quiet)
    assert [path.name for path in tmp_path.rglob("*")] == ["inner", name]


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_what_is_no_file_is_refused(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("real/2.jpg")
        info.type, info.linkname = kind, "real/1.jpg"
        archive.addfile(info)
    with pytest.raises(ValueError, match=r"its entry 'real/2\.jpg' is not a plain file"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "real", _quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize(("write", "name"), KINDS)
def test_modes_follow_the_umask(write: Write, name: str, tmp_path: Path) -> None:
    write(tmp_path / name, {"real/1.jpg": b"one"})
    if write is _tar:
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            info = tarfile.TarInfo("real/1.jpg")
            info.mode = 0o4600
            archive.addfile(info)
    unpack(tmp_path / name, tmp_path / "real", _quiet)
    (tmp_path / "any").touch()
    assert (tmp_path / "real" / "1.jpg").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_links_are_refused(tmp_path: Path) -> None:
    _tar(tmp_path / "a.tar.gz", {"real/1.jpg": b"one"}, links={"real/2.jpg": "/etc/passwd"})
    with pytest.raises(ValueError, match=r"its entry 'real/2\.jpg' is not a plain file"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "real", _quiet)
    assert not (tmp_path / "real").exists()


@pytest.mark.parametrize(("write", "name"), KINDS)
def test_wrong_archive_is_named(write: Write, name: str, tmp_path: Path) -> None:
    write(tmp_path / name, {"sketch/1.jpg": b"one"})
    with pytest.raises(ValueError, match=rf"{name}: it holds no folder real, so it is not the published archive"):
        unpack(tmp_path / name, tmp_path / "real", _quiet)


@pytest.mark.parametrize(("write", "name"), KINDS)
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_truncated_archive_is_named(write: Write, name: str, keep: float, tmp_path: Path) -> None:
    write(tmp_path / name, {f"real/{n}.jpg": hashlib.sha256(bytes([n])).digest() * 50 for n in range(50)})
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(ValueError, match=rf"{name}: this archive is damaged or cut short"):
        unpack(tmp_path / name, tmp_path / "real", _quiet)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_damaged_content_is_noticed(tmp_path: Path) -> None:
    _zip(tmp_path / "a.zip", {"real/1.jpg": b"A" * 100})
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"A" * 100, b"A" * 99 + b"B"))
    with pytest.raises(ValueError, match=r"a\.zip: this archive is damaged or cut short \(Bad CRC"):
        unpack(tmp_path / "a.zip", tmp_path / "real", _quiet)
    assert not (tmp_path / "real").exists()
