/* The probes on nodes: PassState is what those of one backward pass share, NodeProbe the prehook and
 * posthook of one node, which reads gradients and writes one frame. Included by _core.c. */

typedef struct {
    PyObject_HEAD
    Tape *tape;
    PyObject *claim;       /* claim(state, task) -> bool: is this engine run ours? */
    int (*claims)(void *door, void *state, PyObject *task); /* the same in C, where there is no `claim` */
    void *door;
    PyObject *fault;       /* fault(): an exception of our own is set; record it and stop */
    uint32_t id;
    long long task;        /* the engine's number for this run, -1 until a probe has seen it */
    uint32_t order, node_count, leaf_count;
    int guarded;           /* a function mode is active while the engine runs */
    int closed;
    PyObject *key;         /* of its probes in dicts of hooks: nested passes meet in the same ones */
    struct Run *open;      /* those begun and not ended, the newest first; borrowed */
    struct Run *idle;      /* one that a probe has used and another can use again */
    Buffer spare;          /* and room */
    PyObject *unsettled;   /* list of LeafProbes that have run and are not written yet */
    PyObject *made;        /* made(node, low, high): a node made these nodes; None where none can be made */
    PyObject *seed, *seed_entry; /* the only one, borrowed, and what it was read to hold; NULL where that is not known */
} PassState;

/* What is known of a node while it runs: few do at a time, and a pass has a probe for each there is. */
typedef struct Run {
    struct NodeProbe *probe;
    struct Run *newer, *older; /* among those that are open */
    int is_open;
    uint32_t order, n_received;
    uint64_t seq;
    int64_t begin;
    long long low;         /* the next node's sequence number, where nodes can be made */
    Buffer received;
} Run;

static void free_run(Run *run)
{
    if (run) free(run->received.data);
    PyMem_Free(run);
}

static int state_traverse(PassState *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->tape);
    Py_VISIT(self->claim);
    Py_VISIT(self->fault);
    Py_VISIT(self->unsettled);
    Py_VISIT(self->made);
    return 0;
}

static int state_clear(PassState *self)
{
    Py_CLEAR(self->tape);
    Py_CLEAR(self->claim);
    Py_CLEAR(self->fault);
    Py_CLEAR(self->key);
    Py_CLEAR(self->unsettled);
    Py_CLEAR(self->made);
    Py_CLEAR(self->seed_entry);
    return 0;
}

static void state_dealloc(PassState *self)
{
    free_run(self->idle);
    free(self->spare.data);
    free_object((PyObject *)self, (inquiry)state_clear);
}

/* `key` is NULL where another pass may be on the same nodes at the time. */
static PassState *make_state(PyTypeObject *type, PyObject *tape, uint32_t id, PyObject *key, PyObject *claim, PyObject *fault)
{
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PassState *self = (PassState *)make(type, 0);
    if (!self) return NULL;
    self->tape = (Tape *)Py_NewRef(tape);
    self->claim = Py_XNewRef(claim);
    self->fault = Py_NewRef(fault);
    self->id = id;
    self->task = -1;
    self->key = key ? Py_NewRef(key) : PyUnicode_FromFormat("tracer pass %u", id); /* tables whose keys are strings are smaller */
    self->unsettled = PyList_New(0);
    if (!self->key || !self->unsettled) Py_CLEAR(self);
    return self;
}

static PyObject *state_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"tape", "id", "claim", "fault", NULL};
    PyObject *tape, *claim, *fault;
    unsigned int id;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OIOO", names, &tape, &id, &claim, &fault)) return NULL;
    return (PyObject *)make_state(type, tape, id, NULL, claim, fault);
}

static PyMemberDef state_members[] = {
    {"id", T_UINT, offsetof(PassState, id), READONLY, NULL},
    {"task", T_LONGLONG, offsetof(PassState, task), 0, NULL},
    {"order", T_UINT, offsetof(PassState, order), 0, NULL},
    {"node_count", T_UINT, offsetof(PassState, node_count), 0, NULL},
    {"leaf_count", T_UINT, offsetof(PassState, leaf_count), 0, NULL},
    {"guarded", T_INT, offsetof(PassState, guarded), 0, NULL},
    {"closed", T_INT, offsetof(PassState, closed), 0, NULL},
    {"key", T_OBJECT, offsetof(PassState, key), READONLY, NULL},
    {"unsettled", T_OBJECT, offsetof(PassState, unsettled), READONLY, NULL},
    {"made", T_OBJECT, offsetof(PassState, made), 0, NULL},
    {NULL},
};
static PyObject *state_open(PassState *self, void *unused);
static PyGetSetDef state_getset[] = {
    {"open", (getter)state_open, NULL, "{node: NodeProbe} of those that have begun and not ended.", NULL},
    {NULL},
};
static PyType_Slot state_slots[] = {
    {Py_tp_doc, "PassState(tape, id, claim, fault): what the probes of one pass share."},
    {Py_tp_new, state_new}, {Py_tp_dealloc, state_dealloc}, {Py_tp_traverse, state_traverse},
    {Py_tp_clear, state_clear}, {Py_tp_members, state_members},
    {Py_tp_getset, state_getset}, {0, NULL},
};
static PyType_Spec state_spec = {
    "tracer.capture._core.PassState", sizeof(PassState), 0, COLLECTED, state_slots};

static int claim_run(PassState *state, long long task)
{
    PyObject *number = PyLong_FromLongLong(task), *answer = NULL;
    if (!number) return -1;
    int ours = state->claims ? state->claims(state->door, state, number) : -1;
    if (!state->claims && (answer = PyObject_CallFunctionObjArgs(state->claim, state, number, NULL))) ours = PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    Py_DECREF(number);
    return ours;
}

/* 1 when the engine run that is calling belongs to this state, 0 when not, -1 on error. */
static int is_ours(PassState *state)
{
    if (state->closed) return 0;
    long long task = number_in(call(&task_id));
    if (task == -1) return PyErr_Occurred() ? -1 : 0; /* no engine runs */
    if (state->task == task) return 1;
    if (state->task != -1) return 0;
    int ours = claim_run(state, task);
    if (ours == 1) state->task = task;
    return ours;
}

/* Our own failure must not become the user's: hand it over and go on. A Ctrl-C that came while our
 * code ran is the user's: -1 then, with the exception set. */
static int hand_over_fault(PyObject *fault)
{
    PyObject *type, *value, *trace;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    PyObject *done = PyObject_CallFunctionObjArgs(fault, value ? value : Py_None, NULL);
    int interrupted = !done && !PyErr_ExceptionMatches(PyExc_Exception);
    if (!done && !interrupted) PyErr_Clear();
    Py_XDECREF(done);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return interrupted ? -1 : 0;
}

/* ---------------------------------------------------------------- NodeProbe */

/* What a node is beyond its edges: attach is told for each. */
enum { USER_CODE = 1, REARRANGES = 2 };

/* The entry of what one edge sent, as the sender read it: where it arrives it need not be read again. */
typedef struct { int holders; Buffer entry; } Sent;

static Sent *make_sent(void)
{
    Sent *sent = PyMem_Calloc(1, sizeof *sent);
    if (sent) sent->holders = 1;
    else PyErr_NoMemory();
    return sent;
}

static Sent *hold_sent(Sent *sent) { sent->holders++; return sent; }

static void let_go_of_sent(Sent *sent)
{
    if (!sent || --sent->holders) return;
    free(sent->entry.data);
    PyMem_Free(sent);
}

/* A slot, and who wants the entry of its gradient. */
typedef struct { uint32_t slot; Sent *sent; } Sink;
typedef struct { uint32_t count; Sink each[]; } Sinks;

typedef struct NodeProbe {
    PyObject_HEAD
    PassState *state;
    uint32_t node;
    int reuse;             /* no user code between: what was received is unchanged, what is returned fits */
    PyObject *same;        /* bytes: per input, 1 where it receives just what one edge sent */
    PyObject *begun;       /* begun(): called before a custom Function runs, or None */
    PyObject *ended;
    Run *run;              /* NULL where it does not run */
    Sinks *sinks;          /* or NULL */
    Sent *sent;            /* of what arrives, where the node only rearranges it; else NULL */
    uint64_t loose;        /* bit i: slot i leads nowhere, so that the structure does not know its metadata */
} NodeProbe;

/* Begin a run, or begin the one that did not end anew. */
static Run *begin_run(NodeProbe *self)
{
    PassState *state = self->state;
    if (!self->run) {
        self->run = state->idle ? state->idle : PyMem_Calloc(1, sizeof *self->run);
        state->idle = NULL;
    }
    if (!self->run) { PyErr_NoMemory(); return NULL; }
    self->run->probe = self;
    self->run->received.used = 0;
    return self->run;
}

static void end_run(NodeProbe *self)
{
    if (self->state->idle) free_run(self->run); else self->state->idle = self->run;
    self->run = NULL;
}

static void open_run(Run *run)
{
    if (run->is_open) return;
    PassState *state = run->probe->state;
    run->is_open = 1;
    run->newer = NULL;
    run->older = state->open;
    if (run->older) run->older->newer = run;
    state->open = run;
}

/* Whether it was open. */
static int close_run(Run *run)
{
    if (!run || !run->is_open) return 0;
    run->is_open = 0;
    if (run->older) run->older->newer = run->newer;
    if (run->newer) run->newer->older = run->older; else run->probe->state->open = run->older;
    return 1;
}

static PyObject *state_open(PassState *self, void *unused)
{
    PyObject *probes = PyDict_New();
    for (Run *run = self->open; probes && run; run = run->older) {
        PyObject *number = PyLong_FromUnsignedLong(run->probe->node);
        if (!number || PyDict_SetItem(probes, number, (PyObject *)run->probe) < 0) Py_CLEAR(probes);
        Py_XDECREF(number);
    }
    return probes;
}

static int probe_clear(NodeProbe *self)
{
    close_run(self->run);
    free_run(self->run);
    self->run = NULL;
    Py_CLEAR(self->state);
    Py_CLEAR(self->same);
    Py_CLEAR(self->begun);
    Py_CLEAR(self->ended);
    while (self->sinks && self->sinks->count) let_go_of_sent(self->sinks->each[--self->sinks->count].sent);
    free(self->sinks);
    self->sinks = NULL;
    let_go_of_sent(self->sent);
    self->sent = NULL;
    return 0;
}

static void probe_dealloc(NodeProbe *self)
{
    free_uncollected((PyObject *)self, (inquiry)probe_clear);
}

/* `begun` and `ended` are NULL where nobody is to be called. */
static PyObject *make_probe(PyTypeObject *type, PyObject *state, uint32_t node, PyObject *same, int reuse,
                            PyObject *begun, PyObject *ended)
{
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    NodeProbe *self = (NodeProbe *)make(type, 0);
    if (!self) return NULL;
    self->state = (PassState *)Py_NewRef(state);
    self->node = node;
    self->same = Py_NewRef(same);
    self->reuse = reuse;
    self->begun = Py_XNewRef(begun);
    self->ended = Py_XNewRef(ended);
    return (PyObject *)self;
}

static PyObject *probe_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"state", "node", "same", "reuse", "begun", "ended", NULL};
    PyObject *state, *same, *begun = Py_None, *ended = Py_None;
    unsigned int node;
    int reuse = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OIS|pOO", names, &state, &node, &same, &reuse,
                                     &begun, &ended))
        return NULL;
    return make_probe(type, state, node, same, reuse, begun == Py_None ? NULL : begun, ended == Py_None ? NULL : ended);
}

static int call_quietly(PyObject *callback)
{
    PyObject *done = PyObject_CallNoArgs(callback);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* User code may hand over any shape and dtype, which the engine fits to the structure only later. */
static int put_gradient(NodeProbe *self, Buffer *out, PyObject *gradient, int is_known)
{
    Tape *tape = self->state->tape;
    uint32_t meta = 0;
    if (!is_known && gradient != Py_None && tape->meta_of && tape->meta_of != Py_None) {
        PyObject *id = PyObject_CallFunctionObjArgs(tape->meta_of, gradient, NULL);
        if (!id) return -1;
        meta = (uint32_t)PyLong_AsUnsignedLong(id);
        Py_DECREF(id);
    }
    return put_entry(tape, out, gradient, meta);
}

/* Whether this is the seed as it was read: nothing has run since. */
static int is_seed(PassState *state, PyObject *gradient) { return gradient == state->seed && state->seed_entry && !state->order; }

static int makes_nodes(PassState *state) { return state->made && state->made != Py_None; }

/* A node that makes nodes, as with create_graph: tell which, by their sequence numbers. */
static int tell_made(NodeProbe *self)
{
    long long high = number_in(call(&sequence_nr));
    if (high == -1) return -1;
    if (high == self->run->low) return 0;
    PyObject *done = PyObject_CallFunction(self->state->made, "ILL", self->node, self->run->low, high);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int probe_begin(NodeProbe *self, PyObject *gradients)
{
    PassState *state = self->state;
    Tape *tape = state->tape;
    const char *same = PyBytes_AsString(self->same);
    if (!same || !gradients || PyTuple_Size(gradients) < 0) return -1;
    Run *run = begin_run(self);
    if (!run) return -1;
    run->n_received = (uint32_t)PyTuple_Size(gradients);
    uint32_t known = (uint32_t)PyBytes_Size(self->same);
    for (uint32_t i = 0; i < run->n_received; i++) {
        PyObject *gradient = PyTuple_GetItem(gradients, i);
        if (i < known && same[i] && gradient != Py_None) {
            PUT(&run->received, uint8_t, ENTRY_SAME);
        } else if (self->reuse && is_seed(state, gradient)) {
            if (put(&run->received, PyBytes_AsString(state->seed_entry), PyBytes_Size(state->seed_entry)) < 0) return -1;
        } else if (put_gradient(self, &run->received, gradient, self->reuse) < 0) {
            return -1;
        }
    }
    open_run(run);
    run->seq = ++tape->seq;
    run->order = ++state->order;
    state->node_count++;
    if (makes_nodes(state) && (run->low = number_in(call(&sequence_nr))) == -1) return -1;
    run->begin = clock_ns();
    return self->begun ? call_quietly(self->begun) : 0;
}

static int probe_write(NodeProbe *self, int64_t end, uint32_t n_returned, Buffer *returned)
{
    Tape *tape = self->state->tape;
    Run *run = self->run;
    Buffer *out = &tape->frames;
    Py_ssize_t start = out->used;
    struct { uint32_t node, order; int64_t end; uint32_t n_received, n_returned; } told = {
        self->node, run->order, end, run->n_received, n_returned};
    uint32_t length = (uint32_t)(HEADER + sizeof told + run->received.used + (returned ? returned->used : 0));
    if (reserve(out, length) < 0) return -1;
    put_header(out, length, KIND_NODE, tape_thread(tape), self->state->id, run->seq, run->begin - tape->origin);
    put(out, &told, sizeof told);
    put(out, run->received.data, run->received.used);
    if (returned) put(out, returned->data, returned->used);
    if (out->used - start != length) { PyErr_SetString(PyExc_SystemError, "frame length"); return -1; }
    return 0;
}

/* The statistics of what arrived at a node's first input, where they are known and its metadata is what the
 * structure says; else NULL. */
static const char *statistics_of_arrived(NodeProbe *self)
{
    const char *entry = self->run->n_received ? self->run->received.data : NULL;
    if (entry && entry[0] == ENTRY_SAME) entry = self->sent && self->sent->entry.used ? self->sent->entry.data : NULL;
    static const char known[5] = {ENTRY_STATS, 0, 0, 0, 0};
    return entry && !memcmp(entry, known, sizeof known) ? entry : NULL;
}

/* Hand an entry to those who want the gradient of a slot. */
static int hand_on(NodeProbe *self, uint32_t slot, const char *entry, Py_ssize_t size)
{
    for (uint32_t n = 0; self->sinks && n < self->sinks->count; n++) {
        Sink *sink = &self->sinks->each[n];
        if (sink->slot != slot) continue;
        sink->sent->entry.used = 0;
        if (put(&sink->sent->entry, entry, size) < 0) return -1;
    }
    return 0;
}

/* Append the entry of what a node returns in one slot. */
static int put_returned(NodeProbe *self, Buffer *out, PyObject *gradient, uint32_t slot, PyObject *outputs)
{
    int twin = -1, is_loose = slot < 64 && self->loose >> slot & 1;
    Py_ssize_t arrived = PyTuple_Size(outputs), start = out->used;
    for (Py_ssize_t k = 0; self->reuse && gradient != Py_None && k < arrived && k < 200; k++)
        if (PyTuple_GetItem(outputs, k) == gradient) { twin = (int)k; break; }
    int rearranges = self->sent && self->reuse && !is_loose && gradient != Py_None;
    const char *known = twin == 0 || rearranges ? statistics_of_arrived(self) : NULL;
    if (twin >= 0) {
        uint8_t entry[2] = {ENTRY_RECEIVED, (uint8_t)twin};
        if (put(out, entry, 2) < 0) return -1;
        return known ? hand_on(self, slot, known, STATS_SIZE) : 0;
    }
    int failed = known ? put(out, known, STATS_SIZE) : put_gradient(self, out, gradient, self->reuse && !is_loose);
    return failed < 0 ? -1 : hand_on(self, slot, out->data + start, out->used - start);
}

static int probe_end(NodeProbe *self, PyObject *inputs, PyObject *outputs)
{
    Tape *tape = self->state->tape;
    int64_t end = clock_ns() - tape->origin;
    if (!close_run(self->run)) return 0;
    if (self->ended && call_quietly(self->ended) < 0) return -1;
    if (makes_nodes(self->state) && tell_made(self) < 0) return -1;
    if (!inputs || !outputs) return -1;
    Py_ssize_t count = PyTuple_Size(inputs);
    if (count < 0 || PyTuple_Size(outputs) < 0) return -1;
    PassState *state = self->state;
    Buffer returned = state->spare;
    returned.used = 0;
    state->spare = (Buffer){0};
    int failed = 0;
    for (Py_ssize_t i = 0; i < count && !failed; i++)
        failed = put_returned(self, &returned, PyTuple_GetItem(inputs, i), (uint32_t)i, outputs) < 0;
    if (!failed) failed = probe_write(self, end, (uint32_t)count, &returned) < 0;
    free(state->spare.data);
    state->spare = returned;
    end_run(self);
    return failed ? -1 : 0;
}

static PyObject *probe_call(NodeProbe *self, PyObject *args, PyObject *kwargs)
{
    Py_ssize_t count = PyTuple_Size(args);
    PyObject *guard = NULL;
    int ours = is_ours(self->state);
    if (ours == 1 && self->state->guarded) {
        guard = quiet();
        if (!guard) ours = -1;
    }
    if (ours == 1) {
        int failed = count == 1 ? probe_begin(self, PyTuple_GetItem(args, 0))
                                : probe_end(self, PyTuple_GetItem(args, 0), PyTuple_GetItem(args, 1));
        if (failed < 0) ours = -1;
    }
    int stop = ours < 0 && hand_over_fault(self->state->fault) < 0;
    loud(guard);
    if (stop || spill(self->state->tape) < 0) return NULL;
    Py_RETURN_NONE;
}

/* For a node that raised: its frame, with no end. */
static PyObject *probe_abandon(NodeProbe *self, PyObject *unused)
{
    if (self->run && probe_write(self, -1, 0, NULL) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef probe_methods[] = {
    {"abandon", (PyCFunction)probe_abandon, METH_NOARGS, "Write the frame of a node that never ended."},
    {NULL},
};
static PyMemberDef probe_members[] = {
    {"node", T_UINT, offsetof(NodeProbe, node), READONLY, NULL},
    {"same", T_OBJECT_EX, offsetof(NodeProbe, same), 0, NULL},
    {"reuse", T_INT, offsetof(NodeProbe, reuse), 0, NULL},
    {NULL},
};
static PyObject *probe_order(NodeProbe *self, void *unused)
{
    return PyLong_FromUnsignedLong(self->run ? self->run->order : 0);
}

static PyGetSetDef probe_getset[] = {
    {"order", (getter)probe_order, NULL, "As which node of its pass it runs; 0 where it does not.", NULL},
    {NULL},
};
static PyType_Slot probe_slots[] = {
    {Py_tp_doc, "NodeProbe(state, node, same, reuse, begun, ended): prehook and posthook of one node."},
    {Py_tp_new, probe_new}, {Py_tp_dealloc, probe_dealloc}, {Py_tp_call, probe_call},
    {Py_tp_methods, probe_methods}, {Py_tp_members, probe_members}, {Py_tp_getset, probe_getset}, {0, NULL},
};
static PyType_Spec probe_spec = {
    "tracer.capture._core.NodeProbe", sizeof(NodeProbe), 0, Py_TPFLAGS_DEFAULT, probe_slots};
