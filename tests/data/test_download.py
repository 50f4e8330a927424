"""`python -m data fetch`: published archives, made small, from files on this machine."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.__main__ import main
from data.download import fetch_data_set
from data.files import file_lock
from data.published import Download, Package
from data.registry import DATA_SETS, open_data_set
from tests.data.published_files import DOMAINS, write_cifar10, write_domainnet


def _download(path: Path, folder: str | None) -> Download:
    content = path.read_bytes()
    checksum = hashlib.sha256(content).hexdigest()
    return Download(url=path.as_uri(), num_bytes=len(content), algorithm="sha256", checksum=checksum, folder=folder)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python2_pickle: Callable[[Any], bytes]) -> Path:
    """A folder with the files of CIFAR-10 and of DomainNet, which take the place of the published ones."""
    folder = tmp_path / "published"
    folder.mkdir()
    cifar10 = write_cifar10(tmp_path / "made", python2_pickle)
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(cifar10, arcname=cifar10.name)
    domainnet = write_domainnet(tmp_path / "made", num_train=1, num_test=1)
    for domain in DOMAINS:
        with zipfile.ZipFile(folder / f"{domain}.zip", "w") as archive:
            for path in sorted((domainnet / domain).rglob("*.jpg")):
                archive.write(path, path.relative_to(domainnet))
    for path in domainnet.glob("*.txt"):
        path.rename(folder / path.name)
    cifar10_package = Package(files=(_download(folder / "cifar-10-python.tar.gz", "cifar-10-batches-py"),))
    lists = [_download(path, None) for path in sorted(folder.glob("*.txt"))]
    archives = [_download(folder / f"{domain}.zip", domain) for domain in DOMAINS]
    packages = {
        "cifar10": cifar10_package,
        "domainnet-real": Package(folder="domainnet", files=(*lists, *archives)),
    }
    for name, package in packages.items():
        monkeypatch.setitem(DATA_SETS, name, replace(DATA_SETS[name], package=package))
    return folder


def _quiet(line: str) -> None:
    """Progress that nobody reads."""


@pytest.mark.parametrize("name", ["cifar10", "domainnet-real"])
def test_missing_data_set_is_downloaded_and_unpacked(published: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    survey = fetch_data_set(name, root=root, progress=_quiet)
    data_set = open_data_set(name, root=root)
    assert (survey.num_train, survey.num_test) == (len(data_set.train), len(data_set.test))
    lines: list[str] = []
    assert fetch_data_set(name, root=root, progress=lines.append) == survey
    assert lines == [f"{name} is there already: {survey.where}"]


def test_folder_of_the_data_set_serves_as_root(published: Path, tmp_path: Path) -> None:
    fetch_data_set("cifar10", root=tmp_path / "a" / "cifar-10-batches-py", progress=_quiet)
    assert len(open_data_set("cifar10", root=tmp_path / "a").test) == 4
    fetch_data_set("domainnet-real", root=tmp_path / "b" / "domainnet", progress=_quiet)
    assert len(open_data_set("domainnet-real", root=tmp_path / "b").test) == 4


def test_archive_that_lies_there_is_used_without_a_network(published: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (published / "cifar-10-python.tar.gz").rename(root / "cifar-10-python.tar.gz")
    fetch_data_set("cifar10", root=root, progress=_quiet)
    assert len(open_data_set("cifar10", root=root).train) == 20


def test_work_that_stopped_in_the_middle_goes_on(published: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    away = (published / "quickdraw.zip").rename(tmp_path / "quickdraw.zip")
    with pytest.raises(ValueError, match=r"quickdraw\.zip elsewhere, put it into \S+root/domainnet and repeat"):
        fetch_data_set("domainnet-real", root=root, progress=_quiet)
    assert (root / "domainnet" / "painting").is_dir()
    away.rename(published / "quickdraw.zip")
    (published / "painting.zip").unlink()
    (root / "domainnet" / "painting.zip").unlink()
    fetch_data_set("domainnet-real", root=root, progress=_quiet)
    assert len(open_data_set("domainnet-real", root=root).train) == 24


@pytest.mark.parametrize("keep", [0, 100])
def test_truncated_archive_is_named(published: Path, tmp_path: Path, keep: int) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes((published / "cifar-10-python.tar.gz").read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"cifar-10-python\.tar\.gz: cut short, {keep} of [0-9,]+ bytes; remove it"):
        fetch_data_set("cifar10", root=tmp_path, progress=_quiet)


def test_wrong_archive_is_named(published: Path, tmp_path: Path) -> None:
    content = bytearray((published / "cifar-10-python.tar.gz").read_bytes())
    content[100] ^= 1
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"tar\.gz: not the published cifar-10-python\.tar\.gz \(its sha256 is not"):
        fetch_data_set("cifar10", root=tmp_path, progress=_quiet)
    assert not (tmp_path / "cifar-10-batches-py").exists()


def test_unpacked_folder_that_is_not_whole_is_left_as_it_is(published: Path, tmp_path: Path) -> None:
    fetch_data_set("cifar10", root=tmp_path, progress=_quiet)
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    message = r"test_batch: no such file; .*; the files in \S+ are incomplete: remove the unpacked folder and repeat"
    with pytest.raises(ValueError, match=message):
        fetch_data_set("cifar10", root=tmp_path, progress=_quiet)
    assert (tmp_path / "cifar-10-batches-py" / "data_batch_1").is_file()


def test_full_disk_is_told_before_anything_is_downloaded(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.download.shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match=r"root: 0 MB are needed here, but only 0 MB are free; make room, or choose"):
        fetch_data_set("cifar10", root=tmp_path / "root", progress=_quiet)
    assert not list((tmp_path / "root").glob("*.tar.gz*"))


def test_room_is_needed_for_what_is_not_there(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = published / "cifar-10-python.tar.gz"
    size = archive.stat().st_size

    def fetch_with_room_for(num_archives: float) -> None:
        usage = SimpleNamespace(free=int(num_archives * size))
        monkeypatch.setattr("data.download.shutil.disk_usage", lambda path: usage)
        fetch_data_set("cifar10", root=tmp_path, progress=_quiet)

    with pytest.raises(ValueError, match="are needed here"):
        fetch_with_room_for(2.4)
    archive.rename(tmp_path / archive.name)
    with pytest.raises(ValueError, match="are needed here"):
        fetch_with_room_for(1.4)
    fetch_with_room_for(1.6)
    assert len(open_data_set("cifar10", root=tmp_path).train) == 20


def test_what_a_killed_unpacking_left_is_removed(published: Path, tmp_path: Path) -> None:
    left = tmp_path / ".unpacking-abc" / "cifar-10-batches-py" / "test_batch"
    left.parent.mkdir(parents=True)
    left.touch()
    fetch_data_set("cifar10", root=tmp_path, progress=_quiet)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".unpacking-")]


def test_two_processes_do_not_fetch_at_once(published: Path, tmp_path: Path) -> None:
    with (
        file_lock(tmp_path / ".fetch.lock"),
        pytest.raises(ValueError, match=r"another process is fetching into \S+; wait for it"),
    ):
        fetch_data_set("cifar10", root=tmp_path, progress=_quiet)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits", "digits is bundled with scikit-learn; there is nothing to fetch"),
        ("folder:x", "folder:x is your own folder; there is nothing to fetch"),
        ("cifar", r"unknown data set 'cifar' \(did you mean 'cifar10'\?\); known: cifar10, cifar100, tiny-imagenet,"),
    ],
)
def test_names_that_cannot_be_fetched(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fetch_data_set(name, root=tmp_path, progress=_quiet)


def test_nothing_is_fetched_without_a_folder() -> None:
    with pytest.raises(ValueError, match="cifar10: the folder of the data sets is not set; give it as data root"):
        fetch_data_set("cifar10", root=None, progress=_quiet)


def test_command(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "cifar10", "--data-root", str(tmp_path / "root")]) == 0
    captured = capsys.readouterr()
    assert captured.out.split()[:9] == [
        "cifar10",
        *["20", "training", "and", "4", "test", "images:"],
        *[str(tmp_path / "root" / "cifar-10-batches-py"), "(NOT"],
    ]
    assert "downloading cifar-10-python.tar.gz" in captured.err
    assert main(["fetch"]) == 2
    assert "fetch needs a data set: name one or more of: cifar10, cifar100" in capsys.readouterr().err
    assert main(["fetch", "nothing"]) == 2
    assert "unknown data set 'nothing'" in capsys.readouterr().err


def test_reading_a_missing_data_set_downloads_nothing(published: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`python -m data fetch cifar10 --data-root"):
        open_data_set("cifar10", root=tmp_path / "root")
    assert not (tmp_path / "root").exists()
