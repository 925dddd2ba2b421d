"""`curves.parquet`: the counts of every sample, from which all numbers of a table can be computed again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wsol.cli.files import atomic

if TYPE_CHECKING:
    from wsol.evaluation import PixelCounts


class Scored(NamedTuple):
    """Who a sample is: its slide, its patient, and its class as an index."""

    slide: str
    patient: str
    label: int


class CurveWriter:
    """Method after method into one file: at 16 KB per sample, a study of thousands of slides does not hold all of them."""

    def __init__(self, file: Any, who: Mapping[str, Scored]) -> None:
        """`file` is an open `pyarrow.parquet.ParquetWriter` of the schema below."""
        self._file, self._who = file, who

    def add(self, method: str, counts: Mapping[str, PixelCounts]) -> None:
        """One row per sample with its positive and negative pixels per bin."""
        import pyarrow as pa

        who = [self._who[sample] for sample in counts]
        columns = {
            "method": [method] * len(who),
            "sample": list(counts),
            "slide": [one.slide for one in who],
            "patient": [one.patient for one in who],
            "label": [one.label for one in who],
            "positives": [one.positives for one in counts.values()],
            "negatives": [one.negatives for one in counts.values()],
        }
        self._file.write_table(pa.table(columns, schema=self._file.schema))


@contextmanager
def write_curves(path: Path, who: Mapping[str, Scored]) -> Iterator[CurveWriter]:
    """A writer of `path`, which is there when the block ends well; `who` names every sample that will come."""
    import pyarrow as pa
    from pyarrow import parquet

    counts = [(name, pa.list_(pa.int64())) for name in ("positives", "negatives")]
    words = [(name, pa.string()) for name in ("method", "sample", "slide", "patient")]
    schema = pa.schema([*words, ("label", pa.int64()), *counts])
    with atomic(path) as temporary, parquet.ParquetWriter(temporary, schema) as file:
        yield CurveWriter(file, who)


def read_curves(path: Path, method: str) -> dict[str, PixelCounts]:
    """Sample -> counts of one method of a file; none where the file does not hold the method."""
    from pyarrow import parquet

    from wsol.evaluation import PixelCounts

    columns = ["sample", "positives", "negatives"]
    table = parquet.read_table(path, columns=columns, filters=[("method", "=", method)], use_threads=False).combine_chunks()
    rows = zip(*(table[name] for name in columns), strict=True)
    return {s.as_py(): PixelCounts(p.values.to_numpy(), n.values.to_numpy()) for s, p, n in rows}
