"""Tables in files: every format that is read, what is taken from them, and what is written."""

from npflows.core.table import Table
from npflows.files.tables.reading import Parts, open_source, read_table, take
from npflows.files.tables.source import TableError
from npflows.files.tables.streams import TableStream, is_of_dask, stream_table
from npflows.files.tables.writing import check_writable, write_table

__all__ = [
    "Parts",
    "Table",
    "TableError",
    "TableStream",
    "check_writable",
    "is_of_dask",
    "open_source",
    "read_table",
    "stream_table",
    "take",
    "write_table",
]
