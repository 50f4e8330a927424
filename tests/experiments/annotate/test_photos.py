"""Photos of a folder with features of a tiny CLIPN: what is damaged, what is computed again, and what is not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from data.image_files import list_tree
from experiments import suggest
from experiments.annotate.answers.state import State
from experiments.annotate.photos import Photos, photos_with_features
from models.clipn.encode import ImageRows
from models.clipn.model import Clipn
from models.clipn.source import ClipnSource, clip_config
from models.clipn.weights import save_clipn

CLASSES = ("cat", "dog")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipnSource:
    """A tiny CLIPN with random weights."""
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    config = tmp_path / "small.json"
    config.write_text(
        '{"embed_dim": 16,'
        '"vision_cfg": {"image_size": 12, "patch_size": 6, "layers": 1, "width": 16, "head_width": 8},'
        '"text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}'
    )
    torch.manual_seed(0)
    save_clipn(Clipn(clip_config(str(config))), tmp_path / "clipn.pt", epoch=1, name="")
    return ClipnSource(checkpoint=tmp_path / "clipn.pt", model=str(config))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images in two folders, one of them cut, and a text file."""
    for number, name in enumerate(("b/x.jpg", "b/y.png", "a/x.JPEG", "top.png", "b/c/deep.webp", "cut.jpg")):
        write(tmp_path / "photos" / name, number)
    cut = tmp_path / "photos/cut.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    (tmp_path / "photos/notes.txt").touch()
    return tmp_path / "photos"


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 30, 3)).astype(np.uint8)).save(path)


def opened(folder: Path, source: ClipnSource, lines: list[str] | None = None) -> Photos:
    return photos_with_features(
        folder, CLASSES, source, folder.parent, device="cpu", progress=[].append if lines is None else lines.append
    )


def test_images_anywhere_are_found_and_damaged_ones_are_named(folder: Path, source: ClipnSource) -> None:
    photos = opened(folder, source)
    assert photos.names == ("a/x.JPEG", "b/c/deep.webp", "b/x.jpg", "b/y.png", "top.png")
    assert list(photos.damaged) == ["cut.jpg"]
    assert photos.damaged["cut.jpg"].startswith("this image file is damaged or cut short")
    assert photos.num_other == 1
    assert photos.features_ND.shape == (5, 16)
    assert np.allclose(np.linalg.norm(photos.features_ND, axis=1), 1, atol=1e-5)


def test_only_new_and_changed_images_are_encoded(
    folder: Path, source: ClipnSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened(folder, source)
    lines: list[str] = []
    assert opened(folder, source, lines).identity == before.identity
    assert lines == []
    write(folder / "b/new.png", 7)
    write(folder / "top.png", 8)
    (folder / "b/y.png").unlink()
    encoded: list[int] = []
    compute = ImageRows.compute

    def counted(rows: ImageRows, start: int, stop: int) -> NDArray[np.float32]:
        encoded.append(stop - start)
        return compute(rows, start, stop)

    monkeypatch.setattr(ImageRows, "compute", counted)
    after = opened(folder, source, lines)
    assert encoded == [2]
    assert after.names == ("a/x.JPEG", "b/c/deep.webp", "b/new.png", "b/x.jpg", "top.png")
    kept = [before.names.index(name) for name in ("a/x.JPEG", "b/c/deep.webp", "b/x.jpg")]
    assert (after.features_ND[[0, 1, 3]] == before.features_ND[kept]).all()
    assert not np.allclose(after.features_ND[4], before.features_ND[4])
    # As computed at once, in a folder that has been so from the beginning.
    shutil.copytree(folder, folder.parent / "other/photos")
    assert np.allclose(opened(folder.parent / "other/photos", source).features_ND, after.features_ND, atol=1e-6)


def test_a_cache_that_was_emptied_is_made_again_from_what_is_there(folder: Path, source: ClipnSource) -> None:
    before = opened(folder, source)
    (folder / "top.png").unlink()
    shutil.rmtree(folder.parent / "cache")
    after = opened(folder, source)
    assert after.names == before.names[:-1]
    assert np.allclose(after.features_ND, before.features_ND[:-1], atol=1e-6)


def test_a_folder_of_damaged_images_is_refused(tmp_path: Path, source: ClipnSource) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of the 1 images can be decoded"):
        opened(tmp_path / "bad", source)


def test_links_that_lead_nowhere_and_strange_names_are_listed(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    write(root / "sub/a.png", 0)
    (root / "gone.jpg").symlink_to("nowhere.jpg")
    (root / "sub/loop").symlink_to(root)
    (root / ".hidden.jpg").touch()
    (root / "Thumbs.db").touch()
    strange = os.fsdecode(b"caf\xe9.png")
    write(root / "sub/b.png", 1)
    (root / "sub/b.png").rename(root / strange)
    tree = list_tree(root)
    assert [file.name for file in tree.files] == [strange, "sub/a.png"]
    assert tree.left_out == {
        "gone.jpg": "this link points to nowhere.jpg, which does not exist",
        "sub/loop": f"this link leads to a folder that it lies in itself, {root}",
    }
    assert tree.num_other == 0


def test_the_command_with_a_clipn(folder: Path, source: ClipnSource, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--clipn-checkpoint", str(source.checkpoint), "--clip-model", source.model, "-n", "3"]
    assert suggest.main([str(folder), "--classes", "cat,dog", *words]) == 0
    out = capsys.readouterr().out
    assert "5 images, 1 damaged, 0 near-copies set aside, 1 file not JPEG, PNG, GIF, WebP or BMP" in out
    assert "  left out: cut.jpg: this image file is damaged" in out
    assert "ranked by the class names alone" in out
    assert "round 1: " in out
    state = State.open(folder)
    assert len(state.suggestions(1)) == 3
    assert state.settings(1)["detector"] == "atd"
    assert list(state.listing().damaged) == ["cut.jpg"]


def test_without_weights_the_line_says_which_file_goes_where(
    folder: Path, source: ClipnSource, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from models.clipn import pretrained

    def offline(*arguments: object, **named: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(pretrained, "download_pretrained", offline)
    assert suggest.main([str(folder), "--classes", "cat,dog"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "the weights datacomp_xl_s13b_b90k of ViT-B-16 are not in the cache and cannot be downloaded" in last
    assert "put it at " in last
    assert "--features" in last
