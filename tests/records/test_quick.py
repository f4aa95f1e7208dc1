"""Records that are made quickly are what their classes would have made."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, astuple, fields

import pytest

from tracer.records import Accumulate, Edge, Forward, Gradient, Node, NodeRun, TensorMeta, TensorRef
from tracer.records.quick import maker

RECORDS = [
    Gradient(TensorMeta((3,)), 1.0, -1.0, 2.0, 0.5, 1, 2, 3, None, "why"),
    Edge(1, 2, 3, 4),
    Node(5, "MulBackward0", sequence_nr=7, variables=("x",), op="torch.mul", note="n"),
    TensorRef(None, 3, 4, "x"),
    NodeRun(seq=1, t_ns=2, thread=3, pass_id=4, node=5, order=6, end_ns=7, received=(None,)),
    Accumulate(seq=1, leaf=2, node=3, order=4, end_ns=5),
    Forward(seq=1, op="torch.mul", sequence_nrs=(2, 3), module="encoder"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_made_quickly_is_one_of_its_class(record):
    values = [getattr(record, field.name) for field in fields(record)]
    made = maker(type(record))(*values)
    assert type(made) is type(record)
    assert made == record
    assert hash(made) == hash(record)
    assert repr(made) == repr(record)
    assert astuple(pickle.loads(pickle.dumps(made))) == astuple(record)
    with pytest.raises(FrozenInstanceError):
        setattr(made, fields(record)[0].name, 9)
