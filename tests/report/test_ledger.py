"""The ledger tells every write to a leaf, the first and last of many."""

from __future__ import annotations

from tests import builders
from tracer.report.ledger import Entry, read_ledgers


def test_the_second_pass_adds_to_what_the_first_left():
    (book,) = read_ledgers(builders.hooks())
    assert book.leaf.name == "v"
    assert book.summary == ".grad accumulated twice"
    assert book.first == (
        Entry("v.grad", "accumulated", "None → [1, 1, 4]", "line 7", 1),
        Entry("v.grad", "accumulated", "[1, 1, 4] + [1, 1, 1] → [2, 2, 5]", "line 9", 2),
    )
    assert (book.skipped, book.last) == (0, ())


def test_of_two_hundred_epochs_the_first_and_last_are_told_and_the_rest_counted():
    (book,) = read_ledgers(builders.sgd())
    assert book.summary == (
        ".grad zeroed 200 times, .grad accumulated 200 times, values written 200 times"
    )
    assert book.first[:3] == (
        Entry("b.grad", ".grad =", "None → 0", "line 8"),
        Entry("b.grad", "accumulated", "0 + -19800 → -19800", "line 9", 1),
        Entry("b", ".data =", "1 → 20.8", "line 10"),
    )
    assert book.last[-1] == Entry("b", ".data =", "100 → 100", "line 10")
    assert len(book.first) + book.skipped + len(book.last) == 600


def test_each_leaf_that_is_written_to_has_a_ledger_of_its_own():
    books = read_ledgers(builders.vector_jacobian())
    assert [(book.leaf.name, book.first[0].change) for book in books] == [
        ("m3", "None → 2"), ("m1", "None → 10"), ("m2", "None → 5"),
    ]  # fmt: skip
