"""The drawn DomainNet is read like the published one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.drawings import MANNERS, SHAPES, draw, main, write_drawings
from data.registry import open_data_set
from data.sources.domainnet_lists import DOMAINS


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    write_drawings(root, num_train=2, num_test=1)
    return root


def test_it_is_a_domainnet(drawn: Path) -> None:
    data = open_data_set("domainnet-sketch", root=drawn)
    assert data.class_names == tuple(SHAPES)
    assert (data.domain, data.split_protocol) == ("sketch", "domain")
    assert data.train.class_sizes(len(SHAPES)).tolist() == [2] * len(SHAPES)
    assert (len(data.train), len(data.test)) == (6 * 2 * len(SHAPES), len(SHAPES))


def test_other_drawings_of_all_domains_are_an_image_folder(drawn: Path) -> None:
    data = open_data_set(f"folder:{drawn / 'drawings'}")
    assert (data.class_names, data.image_size) == (tuple(SHAPES), 32)
    assert (len(data.train), len(data.test)) == (6 * 2 * len(SHAPES), 6 * len(SHAPES))
    files = {path.read_bytes() for path in drawn.rglob("*.png")}
    assert len(files) == 2 * 6 * 3 * len(SHAPES)  # no drawing is there twice


def test_equal_seeds_draw_equal_images_and_domains_differ() -> None:
    assert set(MANNERS) == set(DOMAINS)
    images = [np.asarray(draw("star", domain, np.random.default_rng(seed))) for domain in DOMAINS for seed in (0, 0, 1)]
    for first, again, other in zip(images[::3], images[1::3], images[2::3], strict=True):
        assert first.shape == (32, 32, 3)
        assert (first == again).all()
        assert (first != other).any()
    assert len({image.tobytes() for image in images}) == 2 * len(DOMAINS)


def test_what_cannot_be_drawn_is_told(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(drawn)]) == 2
    assert "is there already; choose another folder" in capsys.readouterr().err
    assert main([str(tmp_path / "new"), "--num-test", "0"]) == 2
    assert "at least 1 of each" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
