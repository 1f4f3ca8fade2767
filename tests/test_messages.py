"""Error messages: `Owner: name must be X, got Y.`, and at most one more sentence, what to do."""

import ast
import re
from pathlib import Path

import pytest
import torch
from conftest import mixture

from composer import Sampler, get_transform, load_backend
from composer.solvers import DDIM
from composer_plugins import CFG, Anagram, Inpaint, SDEdit

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for package in ("composer", "plugins/composer_plugins", "plugins/composer_lab")
    for path in sorted((ROOT / package).rglob("*.py"))
] + sorted((ROOT / "plugins/composer_studio").rglob("*.py"))
VALUE = "\N{WHITE SQUARE}"
CLAUSES = {
    "it has complex entries",
    "it holds something else",
    "its weights do not have their checksum",
    f"{VALUE} does not have its checksum",
    f"{VALUE} is declared by instances",
    "torch takes a number as that of a GPU",
}
"""Reasons that the caller puts into a sentence."""


def written(node):
    """The text of an expression, with a square for each value; None if it is no text."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(p.value if isinstance(p, ast.Constant) else VALUE for p in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            both = written(left), written(right)
            return None if None in both else "".join(both)
    return None


def messages():
    """The place and the text of each message that is raised as text."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                text = written(node.exc.args[0])
                if text is not None and " " in text:  # one word is a kind, as UnknownNameError has
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def faults(text):
    """What is wrong with the form of a message."""
    ends = re.findall(rf"[.?!]\s+(?=[A-Z`{VALUE}'\"(])", text)
    return [
        fault
        for fault, found in {
            "must end in a full stop": not re.search(rf"(\.|\?|{VALUE})$", text),
            "joins two sentences by a semicolon": "; " in text,
            "has more than two sentences": len(ends) > 1,
        }.items()
        if found
    ]


KINDS = {
    "transform, decomposition, plugin or package",
    "backend of this page",
}  # the first argument of UnknownNameError


def test_every_message_is_at_most_two_whole_sentences():
    found = {place: text for place, text in messages() if text not in CLAUSES | KINDS}
    assert len(found) > 400
    wrong = {place: (faults(text), text) for place, text in found.items() if faults(text)}
    assert not wrong, "\n".join(f"{place}: {fault}" for place, fault in wrong.items())


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("CFG: scale must be a number, got 'x'.", 0),
        (f"{VALUE}: steps must be at least 1, got {VALUE}. Raise it.", 0),
        ("scale must be a number", 1),
        ("x is wrong; mend it", 2),
        ("One. Two. Three.", 1),
    ],
)
def test_the_form_is_checked(text, count):
    assert len(faults(text)) == count


NAMES = {
    "CFG": CFG,
    "DDIM": DDIM,
    "Anagram": Anagram,
    "Inpaint": Inpaint,
    "SDEdit": SDEdit,
    "Sampler": Sampler,
    "get_transform": get_transform,
    "load_backend": load_backend,
    "torch": torch,
    "backend": mixture(),
    "IMAGE": torch.zeros(1, 8, 8),
    "MASK": torch.eye(8),
}
TABLE = (Path(__file__).parent / "messages.txt").read_text().strip().split("\n\n")
"""Calls with a fault that users make, and below each the whole message."""


@pytest.mark.parametrize("row", TABLE)
def test_common_faults_are_named_in_these_words(row):
    call, message = row.split("\n")
    errors = TypeError, ValueError, LookupError, FileNotFoundError
    with pytest.raises(errors) as raised:
        eval(call, NAMES)
    assert str(raised.value) == message
