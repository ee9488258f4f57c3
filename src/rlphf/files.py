"""Reading and writing files: atomic, byte-stable, and with digests."""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from rlphf.errors import InputError

# Prefix of the names of unfinished files and folders; `rlphf gc` knows by it what killed writers left.
UNFINISHED = ".rlphf-"
LARGEST_YAML, MOST_NODES = 2**20, 10**5
# The model card of a folder (`rlphf.cards`), as the hub calls it.
CARD = "README.md"
# Rows of a table that steps exchange; a file may declare more than any memory holds in a few bytes.
MOST_ROWS = 10**8
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` on success, remove it on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{UNFINISHED}{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; an output is as readable as any other new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the place of `path` as a whole, of its target for a link."""
    path = Path(path)
    if path.is_symlink():
        # A link to a folder, maybe on a larger disk, can neither be removed as a folder nor replaced by one.
        path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{UNFINISHED}{path.name}."))
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_space(folder: Path | str, size: float, what: str) -> None:
    """Raise InputError where less than `size` bytes are free for `what` on the disk of `folder`, which need not be there yet."""
    folder = Path(folder).absolute()
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    if free < size:
        raise InputError(
            f"{folder}: {what} need about {size / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free; make room (`rlphf gc` finds"
            " what no result needs), or work on another disk"
        )


def visible(folder: Path | str) -> list[Path]:
    """Return the files of a folder, sorted, but for hidden ones and those of hidden folders in it."""
    folder = Path(folder)
    found = (path for path in folder.rglob("*") if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(path for path in found if path.is_file())


def sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file, or of a folder's files (names and contents, hidden files left out)."""
    path = Path(path)
    if path.is_dir():
        return digest([[p.relative_to(path).as_posix(), sha256(p)] for p in visible(path)])
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value, independent of the order of its keys."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON with sorted keys, indented, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def check_file(path: Path | str) -> None:
    """Raise InputError for what is there and no file: a folder, or a pipe, which would keep its reader waiting for ever."""
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path}: is no file; give the file itself")


def read_text(path: Path | str, kind: str, most: int | None = None) -> str:
    """Read a file of UTF-8 text of `kind`; raise InputError where there is none, or one of more than `most` bytes."""
    path = Path(path)
    check_file(path)
    try:
        if most is not None and path.stat().st_size > most:
            raise InputError(f"{path}: has {path.stat().st_size:,} bytes; {kind} of ours has at most {most:,}")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as {kind} ({error})") from None


def read_json(path: Path | str) -> Any:
    """Read a JSON file; raise InputError when it is missing or broken, or names a key twice."""
    text = read_text(path, "JSON")
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the mapping of a JSON object's pairs; raise ValueError for a key that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counted = Counter(name for name, _ in pairs)
        raise ValueError(f"{next(name for name, count in counted.items() if count > 1)!r} is named twice")
    return found


class _NotPlain(yaml.MarkedYAMLError):
    """Raised for YAML that is none of ours."""


class _PlainLoader(yaml.SafeLoader):
    """Reads mappings, lists and scalars: no tags, by which a file asks for other things, no key twice, and no half characters."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "tag", None):
            raise _NotPlain(problem="tags are not read; write a plain value", problem_mark=event.start_mark)
        # An escape such as "\ud800" is half of a character, which no file can hold.
        if any("\ud800" <= char <= "\udfff" for char in getattr(event, "value", "")):
            raise _NotPlain(problem="half of a surrogate pair is no text; write the character", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                fault = f"{key.value} is named twice; keep one of them"
                raise _NotPlain(problem=fault, problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return node


def _check_size(node: yaml.Node | None) -> None:
    """Raise ValueError unless a document has at most MOST_NODES values with every alias written out, and none in itself."""
    sizes: dict[int, int] = {}
    inside: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in inside:
            raise ValueError("an alias stands in what it names")
        if id(node) not in sizes:
            inside.add(id(node))
            children = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            sizes[id(node)] = 1 + sum(map(size, children)) if isinstance(node, yaml.CollectionNode) else 1
            inside.remove(id(node))
        return sizes[id(node)]

    if node is not None and size(node) > MOST_NODES:
        raise ValueError(f"with its aliases written out it has more than {MOST_NODES:,} values")


def read_yaml(path: Path | str) -> tuple[Any, yaml.Node | None]:
    """Read a YAML file of settings as (value, its node, which knows the lines).

    Raises InputError when it is missing, broken or larger than any we write, for tags, a key named twice, and endless aliases.
    """
    text = read_text(path, "YAML", LARGEST_YAML)
    try:
        loader = _PlainLoader(text)
        node = loader.get_single_node()
        _check_size(node)
        return (None if node is None else loader.construct_document(node)), node
    except _NotPlain as error:
        raise InputError(f"{path}: line {error.problem_mark.line + 1}: {error.problem}") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error})") from None


def write_parquet(path: Path | str, table: Any) -> None:
    """Write a pyarrow Table atomically; equal tables give equal bytes (pandas' metadata is dropped)."""
    import pyarrow.parquet as pq

    with atomic_file(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None).combine_chunks(), temporary, compression="zstd")


def read_parquet(path: Path | str, schema: Any = None) -> Any:
    """Read a Parquet file as a pyarrow Table; raise InputError if it is unreadable, damaged, too long or not of `schema`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_file(path)
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            if file.metadata.num_rows > MOST_ROWS:
                raise InputError(f"{path}: declares {file.metadata.num_rows:,} rows; tables of ours have at most {MOST_ROWS:,}")
            table = file.read()
        # Texts are not looked at by reading alone.
        table.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from None
    if schema is not None:
        missing = [name for name in schema.names if name not in table.column_names]
        if missing:
            raise InputError(f"{path}: column {missing[0]} is missing; expected {', '.join(schema.names)}")
        if len(set(table.column_names)) < len(table.column_names):
            raise InputError(f"{path}: two columns have one name; expected {', '.join(schema.names)}")
        try:
            table = table.select(schema.names).cast(schema)
        except (pa.ArrowException, ValueError) as error:
            raise InputError(f"{path}: wrong column type ({error})") from None
    return table
