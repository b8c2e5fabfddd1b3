"""The file of a study: what is kept, what is never overwritten, and files of something else."""

import json
import math
import sqlite3
import threading

import pytest

import mrviz
from mrviz.study.store import APPLICATION, SCHEMA, Row, Store, load


def row(key="k", **values):
    return Row(key=key, config=json.dumps({"depth": 2, "source": "dnn"}), **values)


def test_rows_come_back_flat_and_with_the_same_columns(tmp_path):
    path = tmp_path / "study.sqlite"
    with Store(path) as store:
        good = {"test_accuracy": 0.5, "test_loss": math.nan}
        store.write(row("a", outcomes=good, indicators={"leep": -1.5}, notes=("x",)))
        store.write(row("b", error="InputError: no", seconds=2.0))
        assert store.status() == {"a": "done", "b": "failed"}
    first, second = load(path)
    assert first["depth"] == 2 and first["leep"] == -1.5 and first["test_accuracy"] == 0.5
    assert first["test_loss"] is None and first["notes"] == ["x"] and first["error"] is None
    assert second["status"] == "failed" and second["error"] == "InputError: no"
    assert second["leep"] is None and list(first) == list(second)
    assert list(load(path, frame=True)["key"]) == ["a", "b"]


def test_a_finished_run_is_never_overwritten_and_a_failed_one_is(tmp_path):
    path = tmp_path / "study.sqlite"
    with Store(path) as store:
        store.write(row("a", outcomes={"test_accuracy": 0.5}))
        store.write(row("a", outcomes={"test_accuracy": 0.9}))
        store.write(row("b", error="one"))
        store.write(row("b", error="two"))
        store.write(row("b", outcomes={"test_accuracy": 0.7}))
    first, second = load(path)
    assert first["test_accuracy"] == 0.5 and second["test_accuracy"] == 0.7
    assert second["error"] is None and second["status"] == "done"


def test_several_writers_share_a_file(tmp_path):
    path = tmp_path / "study.sqlite"

    def write(number):
        with Store(path) as store:
            for k in range(10):
                store.write(row(f"{number}-{k}"))

    threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load(path)) == 40


def test_a_file_may_be_read_while_it_is_written(tmp_path):
    path = tmp_path / "study.sqlite"
    with Store(path) as store:
        assert load(path) == []
        store.write(row())
        assert len(load(path)) == 1


def foreign(path, kind):
    if kind == "text":
        path.write_text("not a database, but longer than the header of one would have to be")
        return "not a study's file"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (key TEXT)")
        if kind == "schema":
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()
    return f"schema {SCHEMA + 1}" if kind == "schema" else "database of something else"


@pytest.mark.parametrize("kind", ["text", "database", "schema"])
def test_files_of_something_else_are_refused_and_left_as_they_are(kind, tmp_path):
    path = tmp_path / "thesis.sqlite"
    match = foreign(path, kind)
    before = path.read_bytes()
    with pytest.raises(mrviz.InputError, match=match):
        load(path)
    with pytest.raises(mrviz.InputError, match=match):
        Store(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_paths_that_cannot_be(tmp_path):
    with pytest.raises(mrviz.InputError, match="there is no study"):
        load(tmp_path / "none.sqlite")
    with pytest.raises(mrviz.InputError, match="no folder"):
        Store(tmp_path / "none" / "study.sqlite")
    with pytest.raises(mrviz.InputError, match="there is no study"):
        load(tmp_path)
    with pytest.raises(mrviz.InputError, match="cannot be"):
        Store(tmp_path)


def test_a_file_that_was_only_just_made_is_a_study_without_rows(tmp_path):
    path = tmp_path / "study.sqlite"
    sqlite3.connect(path).close()
    path.touch()
    assert load(path) == [] and load(path, frame=True).empty
    with Store(path) as store:
        assert store.status() == {}
