"""ChunkBuffer: frames in, rows of a size worth a row out."""

from __future__ import annotations

from tests.store.recordings import node_frame
from tracer.store.chunks import ChunkBuffer, span_of


def frames(*seqs: int) -> bytes:
    return b"".join(node_frame(seq, seq, pass_id=seq, received=[], returned=[]) for seq in seqs)


def test_frames_come_out_in_rows_in_their_order_however_many_come_at_once() -> None:
    size = len(frames(1))
    buffer = ChunkBuffer(3 * size)
    for came in (frames(1), frames(2), frames(3, 4, 5, 6), frames(7, 8, 9), frames(10)):
        buffer.add(came)
    assert buffer.waiting == 10 * size
    wanted = [frames(1, 2, 3, 4, 5, 6), frames(7, 8, 9), frames(10)]
    for _ in range(2):
        assert buffer.rows() == [
            (number, *span_of(held), held) for number, held in enumerate(wanted, 1)
        ]
    buffer.add(frames(11, 12, 13, 14))
    assert buffer.rows()[3] == (4, *span_of(frames(11, 12, 13, 14)), frames(11, 12, 13, 14))
    buffer.clear()
    assert (buffer.waiting, buffer.rows()) == (0, [])
