"""Compares a seeded run of this working tree with the same run of another commit: `make same-numbers BASE=<commit>`.

Both run one condition of this tree's preset demo-full (commits before that name have it as `demo`) with every learning
and open-set strategy, in processes and caches of their own on this machine. Their ledgers must have the same file
names, which are the trials' fingerprints, and the same numbers in every record. There is no golden file: the last bits
differ between processors. The base commit's ledger is kept in build/same-numbers, so that only the working tree runs
again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "same-numbers"
STRATEGIES = "random,conf,ll,coreset,lfosa,eoal,mqnet,ccal,vlpure"
MEASURED = ("seconds", "peak_memory_mib", "environment", "time_ms", "service")
"""Fields of a record that say when, where and how fast it was made; all others must be equal."""
COMPARED_ELSEWHERE = ("checksum", "purity")
"""Fields that later versions added around the numbers."""

Ledger = dict[str, list[dict[str, Any]]]


def run_grid(tree: Path, output: Path, strategies: str) -> None:
    """Run the grid with the code of `tree`; its ledger lies in `output`. Raises CalledProcessError if it fails."""
    shutil.rmtree(output, ignore_errors=True)
    preset = ROOT / "experiments" / "presets" / "demo-full.yaml"  # by path: the base commit's own may be another
    words = [
        "experiments/table4.py", "--preset", str(preset), "--mismatch-ratios", "0.4", "--ood-ratios", "0.6", "--seeds",
        "0-1", "--rounds", "3", "--strategies", strategies, "--address", "local", "-q", "-o", str(output / "run"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(tree), "VLPURE_CACHE": str(output / "cache")}
    subprocess.run([sys.executable, *words], cwd=tree, env=environment, check=True, stdin=subprocess.DEVNULL)


def read_ledger(output: Path) -> Ledger:
    """Fingerprint -> the numbers of its records, in the order of the rounds."""
    return {
        path.stem: [
            {name: value for name, value in record.items() if name not in (*MEASURED, *COMPARED_ELSEWHERE)}
            for record in json.loads(path.read_text())["records"]
        ]
        for path in sorted((output / "run" / "ledger").glob("*.json"))
    }


def differences(base: Ledger, tree: Ledger) -> list[str]:
    """One line for each fingerprint that only one side has, and for each round whose numbers differ."""
    lines = [f"{name}: only in the base commit's ledger" for name in base.keys() - tree.keys()]
    lines += [f"{name}: only in the working tree's ledger" for name in tree.keys() - base.keys()]
    for name in sorted(base.keys() & tree.keys()):
        if len(base[name]) != len(tree[name]):
            lines.append(f"{name}: {len(base[name])} rounds in the base commit, {len(tree[name])} in the working tree")
        for before, after in zip(base[name], tree[name], strict=False):
            fields = sorted(
                field for field in before.keys() | after.keys() if before.get(field, ...) != after.get(field, ...)
            )
            if fields:
                lines.append(f"{name}: round {before['round']} differs in {', '.join(fields)}")
    return lines


def base_ledger(commit: str, strategies: str) -> Ledger:
    """The ledger of a commit, from an earlier comparison if there was one."""
    output = FOLDER / f"{commit}-{strategies.replace(',', '-')}"
    if not (output / "finished").exists():
        tree = FOLDER / "tree"
        subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=True)
        shutil.rmtree(tree, ignore_errors=True)
        FOLDER.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "worktree", "add", "--force", "--detach", str(tree), commit], cwd=ROOT, check=True)
        try:
            run_grid(tree, output, strategies)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
        (output / "finished").touch()
    return read_ledger(output)


def main() -> int:
    """Exit code 0 if nothing differs, 1 otherwise, 2 for a commit that does not exist."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("base", help="commit to compare with")
    parser.add_argument("--strategies", default=STRATEGIES, help=f"default: {STRATEGIES}")
    args = parser.parse_args()
    found = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"{args.base}^{{commit}}"], cwd=ROOT, capture_output=True, text=True
    )
    if found.returncode:
        print(f"same_numbers.py: error: {args.base} is not a commit of this repository", file=sys.stderr)
        return 2
    base = base_ledger(found.stdout.strip(), args.strategies)
    run_grid(ROOT, FOLDER / "now", args.strategies)
    now = read_ledger(FOLDER / "now")
    lines = differences(base, now)
    for line in lines:
        print(line)
    print(
        f"{len(now)} trials, {sum(map(len, now.values()))} records, base {args.base}: "
        f"{len(lines) or 'no'} difference{'' if len(lines) == 1 else 's'}"
    )
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
