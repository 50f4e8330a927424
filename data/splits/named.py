"""ID classes chosen by name, in place of a draw by the seed; and the same names as short text."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import Counter
from collections.abc import Sequence

from data.console import nearest, unknown_name
from data.files import content_hash

MOST_SHOWN = 4
"""Most class names that a label lists; a longer list is shortened."""


def checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names in Unicode's composed form, without surrounding spaces, sorted: one list for one set of classes.

    Sorted, because the order of the classes changes numbers (each position has its own initial weights), and a user who
    writes `dog,cat` means the same problem as `cat,dog`. Raises ValueError for an empty name, and for a name given
    twice, also in two spellings of Unicode.
    """
    composed = [unicodedata.normalize("NFC", name.strip()) for name in names]
    if not all(composed):
        raise ValueError("a class name is empty; expected names such as cat,dog")
    repeated = [name for name, count in Counter(composed).items() if count > 1]
    if repeated:
        spelt = {name.strip() for name, each in zip(names, composed, strict=True) if each == repeated[0]}
        how = ", in two spellings of Unicode" if len(spelt) > 1 else ""
        raise ValueError(f"the class '{repeated[0]}' is given twice{how}; name each class once")
    return tuple(sorted(composed))


def find_classes(names: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Numbers of the classes of those names, in their order.

    Names are compared in Unicode's composed form, since macOS writes an accent as a separate letter. Raises ValueError
    for an unknown name, with the nearest known one, and for a name that two classes of the data set have.
    """
    known = [unicodedata.normalize("NFC", name) for name in class_names]
    found = []
    for name in checked_names(names):
        if name not in known:
            raise unknown_name("class", name, _nearest_first(name, known))
        if known.count(name) > 1:
            raise ValueError(f"two classes of the data set are called '{name}', so the name does not choose one")
        found.append(known.index(name))
    return found


def _nearest_first(name: str, known: Sequence[str]) -> list[str]:
    """The known names with the nearest one first: the message is shortened, and that name must survive."""
    near = nearest(name, known)
    return ([near] if near else []) + [each for each in known if each != near]


def parse_names(text: str) -> tuple[str, ...]:
    """Names from one line of comma-separated values; a name with a comma stands in double quotes.

    Raises ValueError as `checked_names`.
    """
    (names,) = csv.reader([text or " "], skipinitialspace=True)
    return checked_names(names)


def write_names(names: Sequence[str]) -> str:
    """The line that `parse_names` reads back."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()


def short_text(names: Sequence[str]) -> str:
    """The names in a label: `cat, dog`, and a longer list as `apple, aquarium_fish, baby and 17 more [3f2a]`.

    The letters in brackets identify the whole list, so that two long lists never share a row or a file.
    """
    if len(names) <= MOST_SHOWN:
        return ", ".join(names)
    shown = MOST_SHOWN - 1
    return f"{', '.join(names[:shown])} and {len(names) - shown} more [{content_hash(list(names))[:4]}]"
