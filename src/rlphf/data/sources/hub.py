"""Pairs or prompts of a data set on the Hugging Face hub. It needs a network, or the data set in the local cache."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rlphf.address import said
from rlphf.data.sources.raw import Place, Raw, Row, convert
from rlphf.data.sources.table import maker
from rlphf.errors import InputError


def read(name: str, columns: Mapping[str, str], preference: str | None, split: str | None) -> Iterator[Raw]:
    """Yield the records of a data set's split ("train" if None), as `table.maker` reads them.

    `name` is "owner/name", or "owner/name:configuration". Raises InputError if the data set cannot be had.
    """
    make = maker(columns, preference, name)
    try:
        import datasets
    except ImportError:
        raise InputError(f"{name}: a source of kind hub needs the package `datasets`; install it") from None
    path, _, configuration = name.partition(":")
    try:
        data = datasets.load_dataset(path, configuration or None, split=split or "train")
    except Exception as error:  # The library passes on what its many parts raise: network, name, split, file formats.
        raise InputError(
            f"{name}: the data set cannot be had ({_reason(error)}); check the name, the split and the network, or download"
            " its files and read them with kind: table"
        ) from None
    yield from convert(_records(name, data), make)


def _records(name: str, data: Iterable[dict[str, Any]]) -> Iterator[Row]:
    n = 0
    try:
        for n, record in enumerate(data, 1):
            yield Place(name, "record", n), record
    except Exception as error:  # Decoding a record may fail as the download may.
        raise InputError(
            f"{name}: the record after {n} cannot be read ({_reason(error)}); load it with a newer `datasets`, or download its"
            " files and read them with kind: table"
        ) from None


def _reason(error: Exception) -> str:
    return said(error) or type(error).__name__
