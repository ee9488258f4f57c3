"""Pairs or prompts of a data set on the Hugging Face hub. It needs a network, or the data set in the local cache."""

from collections.abc import Iterator, Mapping

from rlphf.data.sources.raw import Place, Raw, convert
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
        reason = str(error) or type(error).__name__
        raise InputError(
            f"{name}: the data set cannot be had ({reason}); check the name, the split and the network, "
            "or download its files and read them with kind: table"
        ) from None
    yield from convert(((Place(name, "record", n), record) for n, record in enumerate(data, 1)), make)
