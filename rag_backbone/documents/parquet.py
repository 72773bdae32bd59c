"""Rows of Parquet files, read in bounded batches; needs pyarrow (extra `parquet`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rag_backbone.checks import clause
from rag_backbone.documents.decoding import UndecodableError
from rag_backbone.documents.json_lines import JSONLine


def read_parquet_rows(path: Path) -> Iterator[JSONLine]:
    """Yield each row as an object of its columns, like a line of JSON.

    Raises:
        UndecodableError: If the file is damaged, or no Parquet file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield JSONLine(number, row)
    except pa.ArrowException as error:
        raise UndecodableError(f"is no Parquet file that can be read: {clause(error)}") from error
