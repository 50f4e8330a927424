"""Templates, class phrases and user templates."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import open_clip.zero_shot_metadata
import pytest

from models.clipn.prompts import (
    class_phrases,
    clean_class_name,
    default_templates,
    fill,
    read_templates,
    templates_hash,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "clipn" / "golden.json"


def test_the_default_templates_are_the_references_without_its_stray_quotes() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    templates = default_templates()
    assert len(templates) == len(set(templates)) == 128
    assert list(templates) == [template.rstrip("'") for template in golden["vl_templates"]]
    assert list(templates) == [template.strip("',") for template in golden["templates"]]
    assert templates[34] == "a photo of a {}."
    assert templates[98] == "a photo with a {}."


def test_another_open_clip_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = open_clip.zero_shot_metadata.OPENAI_IMAGENET_TEMPLATES[1:]
    monkeypatch.setattr(open_clip.zero_shot_metadata, "OPENAI_IMAGENET_TEMPLATES", fewer)
    with pytest.raises(RuntimeError, match="open_clip has other ImageNet templates"):
        default_templates()


def test_importing_needs_no_torch() -> None:
    code = "import sys, models.clipn.prompts; sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_user_templates(tmp_path: Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_bytes("a photo of a {}.\r\n\r\n  a naïve drawing of the {}\n".encode())
    templates = read_templates(path)
    assert templates == ("a photo of a {}.", "a naïve drawing of the {}")
    assert templates_hash(templates) != templates_hash(templates[::-1])
    assert fill(templates[1], "{odd} cat") == "a naïve drawing of the {odd} cat"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a {}.\na photo.\n", "line 2 of .*templates.txt needs exactly one {} .*'a photo.'"),
        (b"a {} and a {}\n", "line 1 .* exactly one {}"),
        (b"\n \n", "has no template"),
        (b"a \xff {}\n", "cannot be read as UTF-8"),
    ],
)
def test_bad_user_templates_are_told(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_templates(path)


def test_a_missing_template_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="templates: there is no file"):
        read_templates(tmp_path / "absent.txt")
    with pytest.raises(ValueError, match=r"templates: .* cannot be read"):
        read_templates(tmp_path)


def test_class_phrases() -> None:
    names = ("pickup_truck", "Great  wall")
    assert class_phrases(names) == names
    assert class_phrases(names, clean_names=True) == ("pickup truck", "Great wall")
    assert class_phrases(names, domain="real") == ("real pickup_truck", "real Great  wall")
    assert clean_class_name("_the__end_") == "the end"


@pytest.mark.parametrize(
    ("names", "clean", "message"),
    [
        ((), False, "the list is empty"),
        (("cat", " "), False, "class 1 is empty"),
        (("cat", "_"), True, "class 1 is empty"),
        (("cat", "dog", "cat"), False, "classes 0 and 2 have the same name 'cat'"),
        (("Cat", "cat "), False, "classes 0 and 1 have the same name"),
        (("pickup_truck", "pickup truck"), True, "classes 0 and 1 have the same name 'pickup truck'"),
    ],
)
def test_names_that_cannot_be_told_apart(names: tuple[str, ...], clean: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_phrases(names, clean_names=clean)
