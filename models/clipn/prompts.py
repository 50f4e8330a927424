"""Sentences in which CLIP and CLIPN read class names. Importing this needs no torch.

A template is a sentence with one `{}` for the class name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.files import content_hash, user_path

PLACEHOLDER = "{}"
DEFAULT_TEMPLATES_HASH = "5beb55ea1566c9c05bf15a51770f74669c5e1a1455bd5ea927d357e521c440d3"
"""Hash of `default_templates`, written here so that planning knows it without importing open_clip."""

_LEFT_OUT_WORDS = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie", "hard to see")
_LEFT_OUT = ("art of the {}.", "itap of my {}.")


def default_templates() -> tuple[str, ...]:
    """The 128 templates used unless the user gives others: the official CLIPN's, without its stray quotes.

    64 of open_clip's 80 ImageNet templates in their order, then the same 64 with their first "of" turned into "with".
    Raises RuntimeError if the installed open_clip has other ImageNet templates.
    """
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    sentences = [template(PLACEHOLDER) for template in OPENAI_IMAGENET_TEMPLATES]
    kept = [s for s in sentences if s not in _LEFT_OUT and not any(word in s for word in _LEFT_OUT_WORDS)]
    templates = (*kept, *(_turned_into_with(sentence) for sentence in kept))
    # Refused, because with other templates all numbers would change silently.
    if templates_hash(templates) != DEFAULT_TEMPLATES_HASH:
        raise RuntimeError("the installed open_clip has other ImageNet templates than those this project was built on")
    return templates


def _turned_into_with(sentence: str) -> str:
    """The form in the second half of the templates for a sentence of the first half."""
    return sentence.replace(" of ", " with ", 1).replace("{} in a video game", "{} appearing in a video game")


def read_templates(path: Path) -> tuple[str, ...]:
    """The user's templates: one per line of a UTF-8 file, with one `{}` for the class name; empty lines are skipped.

    Raises ValueError naming the file and the line.
    """
    try:
        lines = user_path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ValueError(f"templates: there is no file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"templates: {path} cannot be read as UTF-8 text") from error
    templates = []
    for number, line in enumerate(lines, start=1):
        template = line.strip()
        if not template:
            continue
        if template.count(PLACEHOLDER) != 1:
            raise ValueError(
                f"templates: line {number} of {path} needs exactly one {{}} for the class name: {template!r}"
            )
        templates.append(template)
    if not templates:
        raise ValueError(f"templates: {path} has no template; write one per line, for example: a photo of a {{}}.")
    return tuple(templates)


def templates_hash(templates: Sequence[str]) -> str:
    """Hash (64 hex digits) of templates in their order."""
    return content_hash(list(templates))


def clean_class_name(name: str) -> str:
    """The name with underscores as spaces and single spaces between words: `pickup_truck` gives `pickup truck`."""
    return " ".join(name.replace("_", " ").split())


def class_phrases(
    class_names: Sequence[str], *, clean_names: bool = False, domain: str | None = None
) -> tuple[str, ...]:
    """The phrase in the templates for each class: its name, cleaned if wished, after the domain if one is given.

    With domain "real", `airplane` becomes `real airplane` ("a photo of a real airplane."), as the paper's DomainNet
    prompts do. Raises ValueError for no names, empty names and names that are the same (after cleaning).
    """
    if not class_names:
        raise ValueError("class_names: the list is empty; at least one class is needed")
    names = [clean_class_name(name) if clean_names else name for name in class_names]
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if not name.strip():
            raise ValueError(f"class_names: the name of class {index} is empty ({class_names[index]!r}); give it one")
        as_read = " ".join(name.lower().split())  # the tokeniser sees no case and no double spaces
        if as_read in seen:
            raise ValueError(
                f"class_names: classes {seen[as_read]} and {index} have the same name {name!r}; "
                "no text can tell them apart"
            )
        seen[as_read] = index
    return tuple(f"{domain} {name}" if domain else name for name in names)


def fill(template: str, phrase: str) -> str:
    """The sentence of a template for a class phrase."""
    return template.replace(PLACEHOLDER, phrase, 1)
