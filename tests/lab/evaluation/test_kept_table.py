"""Tables of ``composer evaluate``: a line that is done is kept, whoever did it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer_lab.evaluation.table import KeptTable, digest

WORDS = st.text("ab", max_size=2)
VALUES = st.one_of(st.none(), st.integers(0, 3), WORDS, st.tuples(st.integers(0, 3)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@given(lines=st.lists(st.tuples(st.booleans(), st.dictionaries(WORDS, VALUES, min_size=1))))
def test_two_processes_in_turn_lose_no_line_of_each_other(folder, lines):
    file = folder / "table.json"
    file.unlink(missing_ok=True)
    one, other = KeptTable.read(file), KeptTable.read(file)
    for first, line in lines:
        (one if first else other).add(line)
    kept = json.loads(file.read_text()) if lines else []
    expected = [json.loads(json.dumps(line)) for _, line in lines]
    assert all(line in kept for line in expected)
    assert all(line in expected for line in kept)
    assert all(line not in kept[:place] for place, line in enumerate(kept))  # none twice


def test_what_another_process_has_done_is_found(tmp_path):
    one, other = (KeptTable.read(tmp_path / "table.json") for _ in range(2))
    other.add({"steps": 2, "recall": 0.5})
    assert one.find({"steps": 2}, needed=["recall"]) == {"steps": 2, "recall": 0.5}
    assert one.find({"steps": 3}) is None


def test_a_line_is_found_by_its_key_and_by_what_is_known(tmp_path):
    table = KeptTable.read(tmp_path / "table.json")
    table.add({"method": "clean", "steps": 2, "recall": None})
    again = KeptTable.read(tmp_path / "table.json")
    assert again.find({"method": "clean", "steps": 2}) == table.rows[0]
    assert again.find({"method": "clean", "steps": 3}) is None
    assert again.find({"method": "clean"}, needed=["recall"]) is None
    again.add({"method": "clean", "steps": 2, "recall": 0.5})
    assert again.find({"method": "clean"}, needed=["recall"]) == again.rows[1]


def test_without_a_file_lines_are_kept_in_memory_alone():
    table = KeptTable.read(None)
    table.add({"steps": 2})
    assert table.find({"steps": 2}) == {"steps": 2}


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "must be JSON"), ("{}", "must hold a table"), ("[1]", "must hold a table")],
)
def test_a_file_of_something_else_is_left_as_it_is(tmp_path, content, words):
    file = tmp_path / "table.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"{words}.*Name another file"):
        KeptTable.read(file)
    assert file.read_text() == content


def test_a_table_needs_a_file_in_a_folder_that_is_there(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder. Name a file"):
        KeptTable.read(tmp_path)
    with pytest.raises(ValueError, match="must be a folder. Make it first"):
        KeptTable.read(tmp_path / "none" / "table.json")


def test_a_digest_is_of_the_content_and_not_of_its_order():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    assert len(digest([])) == 12
