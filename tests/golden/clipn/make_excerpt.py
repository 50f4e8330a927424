"""Makes the files beside this one from the full golden data; see README.md. Run by hand.

python tests/golden/clipn/make_excerpt.py <folder with clipn_tiny_epoch_10.pt, golden.npz, golden.json, tiny-clipn.json>
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from models.clipn.prompts import default_templates
from models.clipn.tokens import tokenize_classes
from models.clipn.weights import read_tensors

_TOKEN_TABLES = ("token_embedding.weight", "token_embedding_no.weight")
_NUM_NETWORK_INPUTS = 4  # of `images`, the largest array; the others follow from images_uint8 in the same way


def main(source: Path) -> None:
    """Write the excerpt of `source` into this file's folder."""
    target = Path(__file__).parent
    for name in ("golden.json", "tiny-clipn.json"):
        shutil.copyfile(source / name, target / name)
    with np.load(source / "golden.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["images"] = arrays["images"][:_NUM_NETWORK_INPUTS]
    np.savez_compressed(target / "golden.npz", allow_pickle=False, **arrays)

    golden = json.loads((source / "golden.json").read_text(encoding="utf-8"))
    texts = [tokenize_classes(golden["id_class_names"], t, 77) for t in (golden["vl_templates"], default_templates())]
    used = [arrays["tokens"], arrays["free_tokens"], *(tokens.numpy() for tokens in texts)]
    token_idx = np.unique(np.concatenate([tokens.ravel() for tokens in used])).astype(np.int64)
    tensors = {name: tensor.numpy() for name, tensor in read_tensors(source / "clipn_tiny_epoch_10.pt").items()}
    for name in _TOKEN_TABLES:
        tensors[name] = tensors[name][token_idx]
    np.savez_compressed(target / "tensors.npz", allow_pickle=False, token_idx=token_idx, **tensors)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
