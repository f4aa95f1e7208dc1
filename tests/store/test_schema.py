"""The schema: it describes itself, and the SQL made from it reads and writes whole rows."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from tests.store.recordings import write
from tracer.records import EVENT_KINDS
from tracer.store.schema import APPLICATION_ID, DDL, FRAMES, SCHEMA_VERSION, select_from, tables


def test_a_file_says_what_it_is_and_which_version(tmp_path: Path) -> None:
    path = write(tmp_path / "run.trace")
    connection = sqlite3.connect(path)
    found = [
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version", "journal_mode")
    ]
    connection.close()
    assert found == [APPLICATION_ID, SCHEMA_VERSION, "delete"]
    assert path.read_bytes()[68:72] == b"AGTR"


def test_a_file_carries_the_description_of_its_tables(tmp_path: Path) -> None:
    connection = sqlite3.connect(write(tmp_path / "run.trace"))
    made = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    assert len(made) == len(tables())
    for (sql,) in made:
        assert sql in DDL
        assert "-- " in sql


def test_every_kind_of_frame_is_described_under_its_code() -> None:
    described = re.findall(r"^ ?(\d+) ([a-z_]+)", FRAMES, re.MULTILINE)[: len(EVENT_KINDS)]
    assert described == [(str(code), kind.kind) for code, kind in enumerate(EVENT_KINDS, 1)]


def test_columns_are_read_as_the_type_that_is_declared() -> None:
    assert select_from("leaf", "WHERE id = ?") == (
        "SELECT IFNULL(CAST(id AS INTEGER), 0), IFNULL(CAST(name AS TEXT), ''), "
        "IFNULL(CAST(meta AS INTEGER), 0), IFNULL(CAST(site AS INTEGER), 0), "
        "CAST(value AS BLOB), CAST(grad AS BLOB) FROM leaf WHERE id = ?"
    )
