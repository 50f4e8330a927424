"""What an export holds, and the file operations that its writers share."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.files import make_folder, write_text_atomically
from experiments.annotate.answers.state import NONE, UNSURE, Label, Suggestion


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Suggestions and labels on their way into another tool's files."""

    directory: Path
    """Folder that gets the files."""
    folder: Path
    """The folder of the images."""
    classes: tuple[str, ...]
    suggestions: tuple[Suggestion, ...]
    """Those that are not answered, the first to be labelled first."""
    labels: tuple[Label, ...]

    @property
    def answers(self) -> tuple[str, ...]:
        """All possible answers: the classes, "none of my classes", "cannot tell"."""
        return (*self.classes, NONE, UNSURE)

    def absolute(self, image: str) -> str:
        """The absolute path of an image."""
        return f"{self.folder.absolute()}/{image}"

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the export."""
        write_text_atomically(self.directory / name, text)

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the export."""
        self.write_text(name, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def place(image: Path, target: Path) -> None:
    """Give an image a second name: a hard link, or a copy if the other name is on another disk.

    A file that is there already is replaced.
    """
    make_folder(target.parent)
    target.unlink(missing_ok=True)
    try:
        os.link(image.resolve(), target)
    except OSError:  # another disk, or a file system without hard links: the copy reports what is really wrong
        shutil.copy2(image, target)
