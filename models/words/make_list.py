"""Writer of `wordnet.txt.gz` from WordNet 3.0's files, as in Debian's package wordnet-base.

python models/words/make_list.py /usr/share/wordnet

One line per synset of nouns and adjectives: `n` or `a`, the name of its lexicographer file, the line numbers of its
hypernyms (from 0, commas between them), its lemmas (bars between them). Only this script knows WordNet's own format.
"""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path

TARGET = Path(__file__).with_name("wordnet.txt.gz")
KINDS = (
    "adj.all", "adj.pert", "adv.all", "Tops", "act", "animal", "artifact", "attribute", "body", "cognition",
    "communication", "event", "feeling", "food", "group", "location", "motive", "object", "person", "phenomenon",
    "plant", "possession", "process", "quantity", "relation", "shape", "state", "substance", "time",
    *["verb"] * 15, "adj.ppl",
)  # fmt: skip
"""Names of the lexicographer files by number (the manual page lexnames)."""
ADJECTIVE_PLACE = re.compile(r"\((a|p|ip)\)$")
"""Pattern of the mark for an adjective's position, which is not a part of the word."""


def main() -> int:
    """Write the list. Returns the exit code."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/wordnet")
    lines: list[tuple[str, str, list[str], str]] = []
    places: dict[str, int] = {}
    for letter, name in (("n", "data.noun"), ("a", "data.adj")):
        for line in (folder / name).read_text(encoding="ascii").splitlines():
            if line.startswith("  "):
                continue  # the licence
            offset, kind, lemmas, hypernyms = _synset(line)
            if letter == "n":
                places[offset] = len(lines)
            lines.append((letter, KINDS[kind], hypernyms, "|".join(lemmas)))
    text = "".join(
        f"{letter}\t{kind}\t{','.join(str(places[each]) for each in hypernyms)}\t{lemmas}\n"
        for letter, kind, hypernyms, lemmas in lines
    )
    TARGET.write_bytes(gzip.compress(text.encode(), 9, mtime=0))  # equal input, equal bytes
    print(f"written: {TARGET}, {len(lines):,} synsets, {TARGET.stat().st_size:,} bytes")
    return 0


def _synset(line: str) -> tuple[str, int, list[str], list[str]]:
    """Offset, number of the lexicographer file, lemmas, and offsets of the hypernyms (for an instance: its classes)."""
    fields = line.partition(" | ")[0].split()
    num_words = int(fields[3], 16)
    lemmas = [ADJECTIVE_PLACE.sub("", word).replace("_", " ") for word in fields[4 : 4 + 2 * num_words : 2]]
    start = 5 + 2 * num_words
    num_pointers = int(fields[start - 1])
    pointers = [fields[start + 4 * number : start + 4 * number + 4] for number in range(num_pointers)]
    hypernyms = [offset for symbol, offset, part, _ in pointers if symbol in ("@", "@i") and part == "n"]
    return fields[0], int(fields[1]), lemmas, hypernyms


if __name__ == "__main__":
    sys.exit(main())
