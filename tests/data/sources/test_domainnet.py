"""DomainNet from small files in the published layout."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.decoding import decode_square
from data.imageset import DataSet, PathImages
from data.registry import open_data_set, split_protocol_of
from data.sources.domainnet import survey_domainnet
from data.sources.domainnet_lists import DOMAINS, PACKAGE
from data.splits.draw import SplitSettings, count_data_split, draw_data_split
from tests.data.published_files import CLASSES, write_domainnet


def _silent(line: str) -> None:
    raise AssertionError(f"nothing to tell, but got: {line}")


def _open(source: Path, domain: str = "real") -> DataSet:
    return open_data_set(f"domainnet-{domain}", root=source, progress=_silent)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """4 classes, in each of six domains 3 training and 2 test images of each."""
    return write_domainnet(tmp_path / "root")


def _listed(source: Path, name: str) -> list[tuple[str, int]]:
    rows = [line.split(" ") for line in (source / f"{name}.txt").read_text().splitlines()]
    return [(path, int(label)) for path, label in rows]


def test_images_of_the_domain_have_their_class_and_all_others_one_label_more(source: Path) -> None:
    data_set = _open(source)
    assert data_set.name == "domainnet-real"
    assert data_set.class_names == CLASSES
    assert (data_set.split_protocol, data_set.domain, data_set.image_size) == ("domain", "real", 224)
    expected = [
        label if domain == "real" else 4 for domain in DOMAINS for _, label in _listed(source, f"{domain}_train")
    ]
    assert data_set.train.labels.tolist() == expected
    assert data_set.test.labels.tolist() == [label for _, label in _listed(source, "real_test")]
    assert data_set.train.class_sizes(4).tolist() == [3] * 4
    assert data_set.mean == (0.485, 0.456, 0.406)
    assert data_set.std == (0.229, 0.224, 0.225)
    assert data_set.pretrain is None


def test_images_are_decoded_on_demand(source: Path, cache: Path) -> None:
    data_set = _open(source)
    images = data_set.train.images
    assert isinstance(images, PathImages)
    names = [name for domain in DOMAINS for name, _ in _listed(source, f"{domain}_train")]
    loaded = images.load(np.array([50, 7]))
    assert loaded.shape == (2, 224, 224, 3)
    assert np.array_equal(loaded, decode_square([source / names[50], source / names[7]], 224))
    test = data_set.test.images.load(np.array([3]))
    assert np.array_equal(test, decode_square([source / _listed(source, "real_test")[3][0]], 224))
    assert not list(cache.rglob("*.npy"))


def test_all_domains_share_their_training_images(source: Path) -> None:
    data_sets = [_open(source, domain) for domain in DOMAINS]
    assert len({data_set.train.images.fingerprint for data_set in data_sets}) == 1
    assert len({data_set.test.images.fingerprint for data_set in data_sets}) == 6
    assert len({data_set.fingerprint for data_set in data_sets}) == 6


def test_lists_may_lie_in_txt_and_the_place_does_not_matter(source: Path, tmp_path: Path) -> None:
    fingerprint = _open(source).fingerprint
    moved = tmp_path / "elsewhere" / "domainnet"
    shutil.copytree(source, moved)
    (moved / "txt").mkdir()
    for path in moved.glob("*.txt"):
        path.rename(moved / "txt" / path.name)
    assert _open(moved.parent).fingerprint == fingerprint


def test_fingerprint_is_of_names_lengths_and_labels(source: Path) -> None:
    fingerprints = {_open(source).fingerprint}
    path = source / _listed(source, "sketch_train")[0][0]
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path.parent, ns=(1, 1))  # as unpacking again would
    fingerprints.add(_open(source).fingerprint)
    lines = (source / "real_train.txt").read_text().splitlines()
    (source / "real_train.txt").write_text("\n".join(reversed(lines)))
    fingerprints.add(_open(source).fingerprint)
    assert len(fingerprints) == 3


def test_files_are_looked_at_once_until_a_folder_changes(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = _open(source).fingerprint
    with monkeypatch.context() as patched:
        patched.setattr("data.sources.domainnet.list_images", None)
        assert _open(source).fingerprint == fingerprint
    gone = source / _listed(source, "quickdraw_train")[0][0]
    gone.unlink()
    with pytest.raises(ValueError, match=re.escape(f"{gone}: no such file, but quickdraw_train.txt names it")):
        _open(source)


def test_class_that_a_domain_lacks(source: Path) -> None:
    """As published, painting has no training image of t-shirt."""
    path = source / "painting_train.txt"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "t-shirt" not in line))
    data_set = _open(source, "painting")
    assert data_set.class_names == CLASSES
    assert data_set.train.class_sizes(4).tolist() == [3, 3, 0, 3]
    for seed in range(3):
        split = draw_data_split(
            data_set, SplitSettings(mismatch_ratio=0.5, ood_ratio=0.5, budget=9, num_id_classes=3, seed=seed)
        )
        assert sorted(split.id_classes.tolist()) == [0, 1, 3]


def test_split_of_a_domain(source: Path) -> None:
    data_set = _open(source)
    arguments = {"mismatch_ratio": 0.5, "ood_ratio": 0.5, "budget": 9, "seed": 1, "num_id_classes": 2}
    split = draw_data_split(data_set, SplitSettings(**arguments))  # type: ignore[arg-type]
    relabelled = split.relabel(data_set.train.labels)
    is_real = data_set.train.labels < 4
    assert len(split.initial_id_idx) == 2
    assert sorted(relabelled[split.initial_id_idx].tolist()) == [0, 1]
    assert np.all(is_real[relabelled < 2])
    assert (relabelled == 2).sum() == 72 - 6
    counts = count_data_split(data_set, SplitSettings(**arguments))  # type: ignore[arg-type]
    assert (counts.initial_id, counts.initial_ood, counts.unlabelled_id, counts.unlabelled_ood) == (2, 0, 4, 66)


def test_survey_counts_the_lists(source: Path) -> None:
    survey = survey_domainnet("real", source.parent)
    assert (survey.where, survey.num_train, survey.num_test) == (str(source), 72, 8)
    assert survey.note.startswith("NOT the published lists: clipart_train, infograph_train,")


def test_names_tell_the_protocol() -> None:
    assert [split_protocol_of(f"domainnet-{domain}") for domain in DOMAINS] == ["domain"] * 6
    assert [split_protocol_of(name) for name in ("digits", "cifar10", "folder:domainnet-real")] == ["ratios"] * 3


def test_package_is_whole() -> None:
    assert {item.folder for item in PACKAGE.files} == {None, *DOMAINS}
    assert {item.name for item in PACKAGE.files} == {
        *(f"{domain}{ending}" for domain in DOMAINS for ending in (".zip", "_train.txt", "_test.txt")),
    }
    assert all(len(item.checksum) == 64 for item in PACKAGE.files)


def test_bad_images_are_left_out_where_that_is_asked_for(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.image_store._BLOCK", 7)
    names = [name for domain in DOMAINS for name, _ in _listed(source, f"{domain}_train")]
    bad = [4, 40]
    (source / names[4]).write_bytes(b"")
    (source / names[40]).write_bytes((source / names[40]).read_bytes()[:-100])
    lines: list[str] = []
    data_set = open_data_set("domainnet-clipart", root=source, skip_bad_images=True, progress=lines.append)
    assert [line.partition(": ")[0] for line in lines] == ["skipped", "skipped"]
    assert str(source / names[4]) in lines[0]
    assert len(data_set.train) == 70
    expected = [label for n, label in enumerate(_all_labels(source, "clipart")) if n not in bad]
    assert data_set.train.labels.tolist() == expected
    kept = [name for n, name in enumerate(names) if n not in bad]
    loaded = data_set.train.images.load(np.array([4, 69]))
    assert np.array_equal(loaded, decode_square([source / kept[4], source / kept[69]], 224))


def _all_labels(source: Path, domain: str) -> list[int]:
    return [label if each == domain else 4 for each in DOMAINS for _, label in _listed(source, f"{each}_train")]


def test_damaged_image_is_named_when_it_is_decoded(source: Path) -> None:
    name = _listed(source, "clipart_train")[2][0]
    (source / name).write_bytes((source / name).read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: this image file is damaged or cut short"):
        _open(source).train.images.load(np.array([2]))


def _edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(source: Path) -> None:
        text = (source / name).read_text()
        assert old in text
        (source / name).write_text(text.replace(old, new, 1))

    return edit


def _append(name: str, line: str) -> Callable[[Path], None]:
    def append(source: Path) -> None:
        with (source / name).open("a") as file:
            file.write(line + "\n")

    return append


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    def write(source: Path) -> None:
        (source / name).write_bytes(content)

    return write


def _remove(name: str) -> Callable[[Path], None]:
    def remove(source: Path) -> None:
        path = source / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def _outside_in_domain_only(source: Path) -> None:
    Image.new("RGB", (8, 8)).save(source.parent / "other.jpg")
    _append("clipart_train.txt", "clipart/../../other.jpg 0")(source)


def _no_class_between(source: Path) -> None:
    for path in source.glob("*.txt"):
        path.write_text(path.read_text().replace(" 3\n", " 5\n"))


REAL_1 = "real/airplane/real_001_000001.jpg"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            shutil.rmtree,
            r"domainnet/real: no such file or folder; `python -m data fetch domainnet-real --data-root \S+root`",
        ),
        (
            _remove("real"),
            r"domainnet/real: no such file or folder; .* 18 files \(18\.5 GB\), or takes them from \S+domainnet",
        ),
        (_remove("sketch"), r"domainnet/sketch: no such file"),
        (_remove("sketch_train.txt"), r"domainnet/sketch_train\.txt: no such file"),
        (_remove("real_test.txt"), r"domainnet/real_test\.txt: no such file"),
        (_remove("infograph/ant"), r"infograph/ant: no such folder, but a list names images in it"),
        (_remove(REAL_1), rf"{REAL_1}: no such file, but real_train\.txt names it"),
        (_remove("real/ant/real_002_000005.jpg"), r"real_002_000005\.jpg: no such file, but real_test\.txt names it"),
        (_write(REAL_1, b""), rf"{REAL_1}: this image file is empty \(0 bytes\)"),
        (_write("real_train.txt", b""), r"real_train\.txt: this list is empty"),
        (_write("real_train.txt", b"\xff\xfe\x00\x01"), r"real_train\.txt: this is not a text file"),
        (_append("real_train.txt", f"{REAL_1} 0"), rf"real_train\.txt, line 13: {REAL_1} was named before"),
        (_append("real_test.txt", f"{REAL_1} 0"), rf"real_test\.txt: {REAL_1} is in real_train\.txt too"),
        (_append("real_train.txt", "/etc/hosts.jpg 0"), r"line 13: /etc/hosts\.jpg points outside the folder"),
        (_append("real_train.txt", "real/../../x.jpg 0"), r"line 13: real/\.\./\.\./x\.jpg points outside the folder"),
        (_outside_in_domain_only, r"clipart_train\.txt, line 13: clipart/\.\./\.\./other\.jpg points outside"),
        (_append("real_train.txt", "sketch/ant/x.jpg 0"), r"jpg 0' is not of the form 'real/<class>/<file> <label>'"),
        (_append("real_train.txt", "real/ant/x.jpg"), r"'real/ant/x\.jpg' is not of the form"),
        (_append("real_train.txt", "real/ant/x.jpg -1"), r"'real/ant/x\.jpg -1' is not of the form"),
        (_append("real_train.txt", "real/ant/y/x.jpg 1"), r"'real/ant/y/x\.jpg 1' is no"),
        (_append("real_train.txt", "real//x.jpg 1"), r"'real//x\.jpg 1' is no"),
        (_append("real_train.txt", "real/ant/x.jpg 0"), r"label 0 is 'ant' here, but 'airplane' further up"),
        (_append("sketch_train.txt", "sketch/bee/x.jpg 1"), r"label 1 is '(ant|bee)' here, but '(ant|bee)' further up"),
        (_append("sketch_train.txt", "sketch/ant/x.jpg 4"), r"the lists give 'ant' the labels \[1, 4\]"),
        (_no_class_between, r"no list has an image of class 3 of 0\.\.5"),
    ],
)
def test_bad_files_are_refused_in_one_line(
    source: Path, spoil: Callable[[Path], object], message: str, cache: Path
) -> None:
    spoil(source)
    with pytest.raises(ValueError, match=message) as caught:
        _open(source.parent)
    assert "\n" not in str(caught.value)
    assert len(list(cache.rglob("meta.json"))) <= 1  # where only the test images are bad, the others were looked at


def test_lists_of_two_sources_are_refused(source: Path) -> None:
    path = source / "sketch_train.txt"
    path.write_text(path.read_text().replace("/ant/", "/bee/"))
    with pytest.raises(ValueError, match=r"sketch_train\.txt: label 1 is 'bee' here and 'ant' in another list"):
        _open(source)
