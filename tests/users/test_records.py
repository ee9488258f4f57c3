"""The tables that steps about users exchange."""

from pathlib import Path

import pyarrow as pa
import pytest

from rlphf.errors import InputError
from rlphf.files import write_parquet
from rlphf.users.records import TEXTS, texts_by_user


def written(folder: Path, ids: list[int | None]) -> Path:
    write_parquet(folder / "users.parquet", pa.table({"id": ids, "text": [f"I am {i}." for i in ids]}, TEXTS))
    return folder / "users.parquet"


def test_texts_are_found_by_user(tmp_path: Path) -> None:
    assert texts_by_user(written(tmp_path, [7, 0, 2])) == {7: "I am 7.", 0: "I am 0.", 2: "I am 2."}


def test_users_without_texts_are_no_users_to_be_told_of(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2], "text": [" ", None]}, TEXTS)
    write_parquet(tmp_path / "users.parquet", table)
    assert texts_by_user(tmp_path / "users.parquet") == {1: " ", 2: None}
    with pytest.raises(InputError, match="users.parquet: no user has a text; give users texts"):
        texts_by_user(tmp_path / "users.parquet", told=True)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 2, 1], "id: '1' occurs 2 times; keep one"),
        ([1, -2], "row 2, column id: is no user id"),
        ([None], "row 1, column id: is no user id"),
    ],
)
def test_ids_that_are_none_or_there_twice_are_refused(tmp_path: Path, ids: list[int | None], message: str) -> None:
    with pytest.raises(InputError) as caught:
        texts_by_user(written(tmp_path, ids))
    assert str(caught.value).startswith(f"{tmp_path / 'users.parquet'}: {message}")
