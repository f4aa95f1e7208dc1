"""The file format: what each table and column holds, and the SQL that reads and writes rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache

APPLICATION_ID = 0x41475452
"""Bytes 68 to 71 of a trace file: "AGTR"."""

SCHEMA_VERSION = 1
"""`PRAGMA user_version` of the files this code writes, and the newest that it reads."""

DDL = """
-- A trace is one SQLite database; application_id says that it is one, user_version which schema.
-- Numbers that refer to another table (site, module, meta, string, graph) are its `id`; 0 is none.
-- Lists are JSON; [] is an empty one. Times are nanoseconds since the trace began.
-- While it is recorded, a write-ahead log beside it (FILE-wal, FILE-shm) is part of the trace; a
-- closed trace is one file. Where a recording keeps to limits, older passes are deleted with their
-- events and what only they refer to; ids are not used again, and `dropped` counts them.

CREATE TABLE trace (            -- what ran: one row
    id INTEGER PRIMARY KEY,     -- 1
    script TEXT NOT NULL,       -- the script or module that ran, '' when traced from within
    argv TEXT NOT NULL,         -- JSON: list of strings
    started REAL NOT NULL,      -- seconds since 1970-01-01 UTC
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    rank INTEGER NOT NULL,      -- of a distributed run, else 0
    world_size INTEGER NOT NULL,
    versions TEXT NOT NULL,     -- JSON: list of [name, version]
    limits TEXT NOT NULL,       -- what was asked of the recording: every=10 last=5; '' for all
    outcome TEXT NOT NULL,      -- how the run ended, '' when it ended well
    complete INTEGER NOT NULL   -- 1 once closed; 0: being recorded, or its process died
);

CREATE TABLE string (           -- texts that frames refer to; 0 is the empty one
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL
);

CREATE TABLE meta (             -- metadata of tensors, each combination once
    id INTEGER PRIMARY KEY,
    shape TEXT NOT NULL,        -- JSON: list of sizes
    dtype TEXT NOT NULL,        -- float32
    device TEXT NOT NULL,       -- cpu, cuda:0
    layout TEXT NOT NULL        -- strided
);

CREATE TABLE source (           -- text of each user file that appears
    file TEXT PRIMARY KEY,
    text TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE site (             -- places in source: one expression each
    id INTEGER PRIMARY KEY,
    file TEXT NOT NULL,
    line INTEGER NOT NULL,
    function TEXT NOT NULL,
    expression TEXT NOT NULL,   -- x1 * m3
    targets TEXT NOT NULL,      -- JSON: names its value was bound to, ["x2"]
    statement TEXT NOT NULL     -- x2 = x1 * m3
);

CREATE TABLE module (           -- calls of nn.Modules that operations ran in
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL,         -- encoder.layers.0.linear1
    cls TEXT NOT NULL,          -- Linear
    call INTEGER NOT NULL,      -- counts calls of that path, from 1
    parent INTEGER NOT NULL     -- the module call that this one was made in
);

CREATE TABLE hook (             -- users' hooks
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,         -- tensor hook, prehook, posthook, accumulate hook, retain_grad, ...
    text TEXT NOT NULL,         -- its source, or qualified name
    subject TEXT NOT NULL,      -- name of the tensor, node or module that it is on
    defined INTEGER NOT NULL,   -- site where the function was written
    added INTEGER NOT NULL      -- site where it was registered
);

CREATE TABLE leaf (             -- tensors that receive a .grad
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    meta INTEGER NOT NULL,
    site INTEGER NOT NULL,
    value BLOB,                 -- entry: what it held when the trace met it; NULL: not recorded
    grad BLOB                   -- entry: what its .grad held then; NULL: it was None
);

CREATE TABLE graph (            -- structures; every pass with the same structure has the same one
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,       -- equal structures have equal digests
    notes TEXT NOT NULL,        -- JSON: list of strings
    roots TEXT NOT NULL,        -- JSON: list of [node, input_nr]: where its passes start
    nodes INTEGER NOT NULL,     -- how many torch.autograd.graph.Nodes it has: their ids are from 0,
                                -- dense, in first-visit order from the roots
    -- what nodes have, each only once
    sorts TEXT NOT NULL,        -- JSON: list of [name, kind, outputs, saved, attributes]:
                                --   MulBackward0; operation, accumulate, custom, hook wrapper or
                                --   compiled; meta of each gradient that arrives, 0 where not
                                --   known; list of [attribute, meta or 0, bytes or null]; list of
                                --   [name, value]
    operations TEXT NOT NULL,   -- JSON: list of [site, op, note]: what made them, torch.mul
    variables TEXT NOT NULL,    -- JSON: list of lists of names that the user gave to what they
                                -- made, ["x2"]
    modules TEXT NOT NULL,      -- JSON: list of modules
    loops TEXT NOT NULL,        -- JSON: list of lists of [variable, value]: where loops around them
                                -- stood
    -- columns of numbers, little-endian, of 1, 2, 4 or 8 bytes: as many as the greatest one needs;
    -- one for each node: which of the above it has, from 0
    sort BLOB NOT NULL,
    operation BLOB NOT NULL,
    variable BLOB NOT NULL,
    module BLOB NOT NULL,
    loop BLOB NOT NULL,
    call BLOB NOT NULL,         -- counts executions of the same site, from 1
    sequence_nr BLOB NOT NULL,  -- one more than its sequence_nr; 0 for AccumulateGrad
    slots BLOB NOT NULL,        -- how many entries its next_functions have
    -- and one for each of these entries, node by node
    target BLOB NOT NULL,       -- one more than the node that receives; 0: none does
    input_nr BLOB NOT NULL      -- at which of its inputs
);

CREATE TABLE pass (             -- runs of the autograd engine
    id INTEGER PRIMARY KEY,     -- from 1, in order of begin
    graph INTEGER NOT NULL,
    kind TEXT NOT NULL,         -- backward, grad, engine
    site INTEGER NOT NULL,      -- of the backward call
    roots TEXT NOT NULL,        -- JSON: list of [node, input_nr]
    seeds BLOB NOT NULL,        -- entries: the gradients given for the roots
    retain_graph INTEGER NOT NULL,
    create_graph INTEGER NOT NULL,
    inputs TEXT,                -- JSON: names given as inputs=, NULL when it was not given
    thread INTEGER NOT NULL,
    parent INTEGER,             -- the pass that this one ran inside of
    begin_ns INTEGER NOT NULL,
    end_ns INTEGER,             -- NULL: it never ended
    error TEXT NOT NULL,        -- type of the exception that it raised, '' for none
    message TEXT NOT NULL,
    error_node INTEGER,         -- the node that the exception came from
    node_count INTEGER NOT NULL,    -- nodes that the engine executed
    leaf_count INTEGER NOT NULL,    -- leaves among them
    torchviz TEXT NOT NULL      -- DOT text that torchviz made of the roots, '' when not asked for
);

CREATE TABLE chunk (            -- the events, many to a row, as packed frames
    id INTEGER PRIMARY KEY,
    first_seq INTEGER NOT NULL, -- least and greatest seq of its events
    last_seq INTEGER NOT NULL,
    first_pass INTEGER NOT NULL,    -- least and greatest pass of its events, 0 when none has one
    last_pass INTEGER NOT NULL,
    count INTEGER NOT NULL,     -- events
    kinds INTEGER NOT NULL,     -- bit k is set when there are events of kind k
    frames BLOB NOT NULL        -- see FRAMES
);

CREATE TABLE dropped (          -- what the recorder left out
    reason TEXT PRIMARY KEY,
    count INTEGER NOT NULL
) WITHOUT ROWID;
"""

FRAMES = """
Frames are little-endian and unaligned, one after another. They lie in the order in which things
ended; `seq` is the order in which they began.

header   length u32 (of the whole frame), kind u8, flags u8 (0), thread u16, pass u32 (0: none),
         seq u64 (from 1), t_ns i64

  kind            payload
 1 forward        op string, site, module string: u32; low, high u64: sequence numbers [low, high)
                  of the nodes it made; grad mode u8 (0 grad, 1 no_grad, 2 inference);
                  cut kind string u32, and if it is not 0: region site u32, count u16, strings u32;
                  inputs u16, outputs u16, then each: meta u32, made_by u64 (seq of a forward event,
                  0: not known), leaf i64 (-1: no leaf), name string u32
 2 grad_mode      mode string u32, site u32
 3 hook_added     hook u32, site u32
 4 hook_removed   hook u32, site u32
 5 pass_begin
 6 pass_end
 7 node           node u32, order u32, end_ns i64 (-1: never ended), received u32, returned u32,
                  then the entries, received first
 8 hook           hook u32, node i64, input_nr i64 (-1: none), flags u8 (1: changed, 2: had been
                  removed), raised string u32, before u32, after u32, then the entries, before first
 9 accumulate     leaf u32, node u32, order u32, end_ns i64, then entries before, incoming, after
10 grad_write     leaf u32, how string u32, site u32, then the entries before, after
11 data_write     leaf u32, how string u32, site u32, then the entries before, after
12 grad_read      tensor string u32, sequence_nr i64 (-1: none), site u32
13 optimizer_step optimizer string u32, site u32, count u32, leaves u32
14 recompute      seq of a forward event u64 (0: not known), site u32
15 mark           site u32, then the text as UTF-8
16 dropped        count u64, reason string u32
17 pause          resumed u32 (0: begins, 1: ends), site u32
18 saved_write    node u32, attribute string u32, how string u32, version i64 (-1: not counted),
                  site u32

An entry is what was seen of one tensor. Where its meta is 0, the structure tells it: for received k
of a node and for what a prehook or tensor hook sees, `outputs[k]` of the node; for returned slot j
and what a posthook sees, `outputs[input_nr]` of the node that edge j leads to; for a seed, that of
its root; for a write, that of the leaf.

state u8        then
0 none
1 same as sent  only in received, and in an accumulation: what the one edge into this input carried
2 statistics    meta u32; norm, min, max, mean f64; zeros, nans, infs u64
3 values        meta u32; dtype code u8; count u8; the elements in the tensor's dtype, row-major.
                The statistics are derived from them, in double with one rounding for each sum.
4 unread        meta u32; reason string u32
5 partly known  meta u32; mask u16; norm, min, max, mean, zeros, nans, infs f64; bit i: i is known
6 as received   k u8: only in returned entries: the very tensor that the node received as input k
7 many values   meta u32; dtype code u8; count u32; then as 3
8 not asked for meta u32: a tensor of which nothing was to be kept (detail=structure)

dtype codes     1 float32, 2 float64, 3 float16, 4 bfloat16, 5 complex64, 6 complex128, 7 int64,
                8 int32, 9 int16, 10 int8, 11 uint8, 12 bool, 13 float8_e4m3fn, 14 float8_e5m2
"""


@dataclass(frozen=True, slots=True)
class Column:
    """One column as the schema declares it."""

    name: str
    type: str
    optional: bool

    @property
    def read(self) -> str:
        """SQL that reads it as the declared type, whatever a stranger's file holds."""
        cast = f"CAST({self.name} AS {self.type})"
        return cast if self.optional else f"IFNULL({cast}, {_EMPTY[self.type]})"


_EMPTY = {"INTEGER": "0", "REAL": "0.0", "TEXT": "''", "BLOB": "x''"}


@cache
def tables() -> Mapping[str, tuple[Column, ...]]:
    """The columns of each table, as SQLite understands the schema."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(DDL)
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
        return {
            name: _columns(connection, name) for name in names if not name.startswith("sqlite_")
        }


def _columns(connection: sqlite3.Connection, table: str) -> tuple[Column, ...]:
    rows = connection.execute(f"PRAGMA table_info({table})")
    return tuple(
        Column(name, kind, not required and not key) for _, name, kind, required, _, key in rows
    )


RAN = "ran"
"""Stands for a row of `pass` that has little to tell."""

_INSERT_RAN = """
INSERT INTO pass VALUES
    (?, ?, ?, ?, ?, ?, ?, 0, NULLIF(?, ''), ?, NULL, ?, ?, '', '', NULL, ?, ?, '')
"""


@cache
def insert_into(table: str) -> str:
    """SQL that writes one whole row, in place of one with the same key.

    Of `RAN`, a pass that ended well within no other, it takes what differs from one to the next,
    and nothing that `sqlite3` would look for an adapter of, as it does for None and bytes.
    """
    if table == RAN:
        return _INSERT_RAN
    marks = ", ".join("?" * len(tables()[table]))
    return f"INSERT OR REPLACE INTO {table} VALUES ({marks})"


@cache
def select_from(table: str, rest: str = "") -> str:
    """SQL that reads whole rows, each column as the type it is declared to have."""
    columns = ", ".join(column.read for column in tables()[table])
    return f"SELECT {columns} FROM {table} {rest}"
