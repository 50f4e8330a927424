"""Tables in Parquet files, on a disk or in a bucket: their shards, their rows, and the shards that are made of them.

A shard is a run of rows of one row group, so that any machine can read it alone. Shapes: N rows, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

SHARD_ROWS = 65_536
"""Most rows of a shard: 512 float32 numbers of each are 134 MB."""
GROUP_ROWS = 4096
"""Rows of a row group of features: what has to be read for one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A run of rows of a table."""

    number: int
    path: str
    group: int
    start: int
    """Its first row, in the row group."""
    num_rows: int

    @property
    def name(self) -> str:
        """File name of whatever is made of it."""
        return f"part-{self.number:06d}.parquet"


def opened(address: str) -> tuple[Any, str]:
    """The file system of an address (a path, or s3://, gs://, hdfs://, ...) and the path in it.

    Raises ValueError for an address of no known kind.
    """
    if "://" not in address:
        return fs.LocalFileSystem(), str(Path(address).absolute())
    try:
        system, path = fs.FileSystem.from_uri(address)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{address}: this address cannot be opened ({error})") from None
    return system, path


def list_shards(address: str, columns: Sequence[str], *, most: int = SHARD_ROWS) -> tuple[Shard, ...]:
    """The shards of a Parquet file or of a folder of them, in the order of names.

    Only the files' ends are read. Raises ValueError for what is no table, has no rows, or lacks a column.
    """
    system, path = opened(address)
    info = system.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise ValueError(f"{address}: there is no such table")
    paths = [path]
    if info.type == fs.FileType.Directory:
        entries = system.get_file_info(fs.FileSelector(path, recursive=True))
        paths = sorted(entry.path for entry in entries if entry.path.endswith(".parquet"))
    shards: list[Shard] = []
    for each in paths:
        try:
            content = pq.ParquetFile(each, filesystem=system)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{each} is not a Parquet file ({error})") from None
        with content:
            missing = [column for column in columns if column not in content.schema_arrow.names]
            if missing:
                raise ValueError(
                    f"{each} has no column {missing[0]!r}; it has {', '.join(map(repr, content.schema_arrow.names))}"
                )
            for group in range(content.metadata.num_row_groups):
                num = content.metadata.row_group(group).num_rows
                for start in range(0, num, most):
                    shards.append(
                        Shard(number=len(shards), path=each, group=group, start=start, num_rows=min(most, num - start))
                    )
    if not shards:
        raise ValueError(f"{address}: this table has no rows")
    return tuple(shards)


def read_rows(address: str, shard: Shard, columns: Sequence[str]) -> Any:
    """The columns of a shard, as an Arrow table."""
    system, _ = opened(address)
    with pq.ParquetFile(shard.path, filesystem=system) as content:
        return content.read_row_group(shard.group, columns=list(columns)).slice(shard.start, shard.num_rows)


def as_matrix(column: Any, what: str) -> NDArray[np.float32]:
    """Unit rows (N, D) of a column of lists. Raises ValueError for rows of different lengths, zeros, or not finite."""
    joined = column.combine_chunks()
    if not (pa.types.is_list(joined.type) or pa.types.is_fixed_size_list(joined.type)):
        raise ValueError(f"{what}: this column holds {joined.type}; lists of numbers are needed")
    lengths = pc.min_max(pc.list_value_length(joined)).as_py()
    if joined.null_count or not lengths["min"] or lengths["min"] != lengths["max"]:
        raise ValueError(f"{what}: a list of the same number of numbers is needed in each row")
    values = joined.flatten().to_numpy(zero_copy_only=False)
    rows_ND: NDArray[np.float32] = values.reshape(len(joined), -1).astype(np.float32)
    lengths_N = np.linalg.norm(rows_ND, axis=1)
    bad = np.flatnonzero(~np.isfinite(lengths_N) | (lengths_N == 0))
    if len(bad):
        raise ValueError(f"{what}: row {bad[0]} is zero or not finite ({len(bad)} such rows)")
    rows_ND /= lengths_N[:, None]
    return rows_ND


def as_column(rows_ND: NDArray[np.float32]) -> Any:
    """A column of lists of half-precision numbers."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows_ND.astype(np.float16).ravel()), rows_ND.shape[1])


def is_made(folder: str, shard: Shard) -> bool:
    """Whether a shard was made of it in this folder."""
    system, path = opened(folder)
    return bool(system.get_file_info(f"{path}/{shard.name}").type == fs.FileType.File)


def write_shard(folder: str, shard: Shard, columns: Mapping[str, Any], *, group_rows: int = GROUP_ROWS) -> None:
    """Write what was made of a shard; the file is whole or absent."""
    system, path = opened(folder)
    system.create_dir(path, recursive=True)
    unfinished = f"{path}/.{shard.name}.part"
    pq.write_table(pa.table(dict(columns)), unfinished, filesystem=system, row_group_size=group_rows)
    system.move(unfinished, f"{path}/{shard.name}")


def read_shard(folder: str, shard: Shard, columns: Sequence[str]) -> Any:
    """Columns of what was made of a shard."""
    system, path = opened(folder)
    with pq.ParquetFile(f"{path}/{shard.name}", filesystem=system) as content:
        return content.read(columns=list(columns))
