"""Label files in all their forms, and what is wrong with the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.errors import InputError
from edge.labels import MAX_LABEL_FILE_BYTES, check_labels, read_labels

ANIMALS = ("cat", "dog", "bird")

NAMES = st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=6), min_size=1, max_size=12)


def written(folder: Path, content: str | bytes, suffix: str = "txt") -> Path:
    path = folder / f"labels.{suffix}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


FORMS = [
    ("txt", "cat\ndog\nbird"), ("txt", "cat\ndog\nbird\n\n  \n"), ("txt", "cat\r\ndog\r\nbird\r\n"),
    ("txt", "cat\rdog\rbird"), ("txt", "\ufeffcat\ndog\nbird\n"), ("txt", "  cat \n\tdog\nbird"),
    ("txt", "0 cat\n1 dog\n2 bird\n"), ("txt", "2\tbird\n0\tcat\n1\tdog"), ("txt", "0: cat\n1: dog\n2: bird"),
    ("names", "cat\ndog\nbird"),
    ("csv", "cat\ndog\nbird"), ("csv", "name\ncat\ndog\nbird\n"), ("csv", "0,cat\n1,dog\n2,bird"),
    ("csv", "cat,0\nbird,2\ndog,1"), ("csv", "index,name\n2,bird\n0,cat\n1,dog"),
    ("csv", "\ufeffId;Label\n0;cat\n1;dog\n2;bird"),
    ("csv", "index\tmid\tdisplay_name\n0\t/m/1\tcat\n1\t/m/2\tdog\n2\t/m/3\tbird"),
    ("csv", '"0","cat"\r\n"1","dog"\r\n"2","bird"'),
    ("csv", "label,name\n1,dog\n0,cat\n2,bird"), ("csv", "id,name\nn01,cat\nn02,dog\nn03,bird"),
    ("csv", "\nname\n\ncat\ndog\nbird"),
    ("json", '["cat", "dog", "bird"]'), ("json", '{"0": "cat", "2": "bird", "1": "dog"}'),
    ("json", '{"dog": 1, "cat": 0, "bird": 2}'), ("json", '[["n1", "cat"], ["n2", "dog"], ["n3", "bird"]]'),
    ("json", '\ufeff{"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "bird"]}'),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "content"), FORMS)
def test_every_form_gives_the_names_in_order(tmp_path: Path, suffix: str, content: str) -> None:
    assert read_labels(written(tmp_path, content, suffix)) == ANIMALS


PLAIN = [
    ("txt", "0\n1\n2", ("0", "1", "2")),
    ("txt", "10:30\n0:05", ("10:30", "0:05")),
    ("txt", "7 up\ncola", ("7 up", "cola")),
    ("txt", "crane\ncrane", ("crane", "crane")),
    ("txt", "0 Class 1\n1 Class 2", ("Class 1", "Class 2")),
    ("txt", "Müller\n猫", ("Müller", "猫")),
    ("txt", "a\u200db", ("a\u200db",)),
    ("csv", '"salt, pepper"\n"a ""b"""', ("salt, pepper", 'a "b"')),
    ("csv", "0,name", ("name",)),
    ("csv", "label", ("label",)),
    ("json", '{"1": 0, "0": 1}', ("1", "0")),
]


@pytest.mark.parametrize(("suffix", "content", "expected"), PLAIN)
def test_names_that_look_like_something_else(
    tmp_path: Path, suffix: str, content: str, expected: tuple[str, ...]
) -> None:
    assert read_labels(written(tmp_path, content, suffix)) == expected


WRONG = [
    ("txt", "", "none"), ("txt", " \n\n", "none"), ("csv", "\n", "empty"), ("json", "", "no JSON"),
    ("json", "[]", "none"),
    ("json", "{}", "none"), ("txt", "cat\n\nbird", "empty one for class 1"), ("json", '["a", " "]', "class 1"),
    ("txt", "0 cat\n0 dog", "got 0 for 'cat' and 'dog'"), ("txt", "0 cat\n2 dog", "without 1"),
    ("txt", "1 cat\n2 dog", "without 0"), ("txt", "0 cat\ndog", "'dog' on line 2"),
    ("csv", "0,cat\n0,dog", "every index once"),
    ("csv", "0,cat\n1", "2 columns in every row, as in row 1, got 1 in row 2"), ("csv", "a,b\nc,d", "header"),
    ("csv", "a,b,c\nd,e,f", "header"), ("csv", "index,name\n0,cat\nx,dog", "got 'x'"),
    ("csv", "name\n" + "x" * 140_000, "no csv"),
    ("json", '{"0": "a", "0": "b"}', "every index once"), ("json", '{"a": 0, "b": 0}', "every index once"),
    ("json", '{"a": -1}', "without 0"), ("json", '{"0": "a", "2": "b"}', "without 1"),
    ("json", '{"zero": "a"}', "got 'zero'"),
    ("json", '{"0": "a", "b": 1}', "got 'b'"), ("json", '{"a": true}', "got 'a'"), ("json", '{"a": 0.0}', "got 'a'"),
    ("json", "[1, 2]", "got 1"), ("json", "[null]", "None"), ("json", "3", "list of names"),
    ("json", '"cat"', "list of names"),
    ("json", "[" * 100_000, "no JSON"), ("json", "{'0': 'cat'}", "no JSON"),
    ("json", "[" + "9" * 5000 + "]", "no JSON"),
    ("json", '["\\ud800"]', r"U\+D800"), ("json", '["a\\u001b[2J"]', r"U\+001B in that of class 0"),
    ("txt", "a\0b", r"U\+0000"),
    ("json", '["a\\nb"]', r"U\+000A"), ("csv", '"a\nb"', r"U\+000A"), ("txt", "a\u2028b", r"U\+2028"),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "content", "words"), WRONG)
def test_what_is_wrong_is_said_with_the_file(tmp_path: Path, suffix: str, content: str, words: str) -> None:
    path = written(tmp_path, content, suffix)
    with pytest.raises(InputError, match=words) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"cannot read the labels in {path}: ") and len(str(caught.value)) < 500


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    cases = {b"caf\xe9": "byte 0xe9 at 3; save it as UTF-8", "cat".encode("utf-16"): "UTF-8"}
    cases[b"a\n" * (MAX_LABEL_FILE_BYTES // 2 + 1)] = "at most 16 MiB"
    for content, words in cases.items():
        with pytest.raises(InputError, match=words):
            read_labels(written(tmp_path, content))


@pytest.mark.parametrize("name", ["none.txt", "", "x" * 5000])
def test_a_missing_file_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot read the label file"):
        read_labels(tmp_path / name)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES, st.randoms(use_true_random=False))
def test_indexed_forms_give_back_any_names_in_any_order(tmp_path: Path, names: list[str], random: object) -> None:
    pairs = list(enumerate(names))
    random.shuffle(pairs)  # type: ignore[attr-defined]
    lines = "\n".join(f"{index} {name}" for index, name in pairs)
    assert read_labels(written(tmp_path, lines)) == tuple(names)
    data = {str(index): name for index, name in pairs}
    assert read_labels(written(tmp_path, json.dumps(data), "json")) == tuple(names)
    assert read_labels(written(tmp_path, json.dumps(names), "json")) == tuple(names)
    if len(set(names)) == len(names):
        inverse = json.dumps({name: index for index, name in pairs})
        assert read_labels(written(tmp_path, inverse, "json")) == tuple(names)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text(' \n\r",;\t0123ab{}[]:', max_size=60), st.sampled_from(["txt", "csv", "json"]))
def test_any_file_gives_names_or_one_sentence(tmp_path: Path, content: str | bytes, suffix: str) -> None:
    try:
        labels = read_labels(written(tmp_path, content, suffix))
    except InputError as err:
        assert "\n" not in str(err)
    else:
        assert labels and all(label.strip() == label != "" for label in labels)


def test_a_wrong_count_states_both() -> None:
    check_labels(ANIMALS, 3)
    for classes in (1, 2, 4, 1000):
        with pytest.raises(InputError, match=rf"expected {classes} names?, .* got 3;"):
            check_labels(ANIMALS, classes)


@pytest.mark.parametrize(("kind", "allowed"), [("sigmoid", True), ("logits", True), ("values", False)])
def test_a_single_output_with_two_sides_takes_one_name_or_two(kind: str, allowed: bool) -> None:
    check_labels(("cat",), 1, kind=kind)
    if allowed:
        check_labels(("cat", "dog"), 1, kind=kind)
    else:
        with pytest.raises(InputError, match="expected 1 name,"):
            check_labels(("cat", "dog"), 1, kind=kind)
