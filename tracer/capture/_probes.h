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
    struct NodeProbe *open; /* those begun and not ended, the newest first; borrowed */
    Buffer spare[2];       /* room that probes have used and others can use again */
    PyObject *unsettled;   /* list of LeafProbes that have run and are not written yet */
    PyObject *made;        /* made(node, low, high): a node made these nodes; None where none can be made */
} PassState;

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
    return 0;
}

static void state_dealloc(PassState *self)
{
    for (int i = 0; i < 2; i++) free(self->spare[i].data);
    free_object((PyObject *)self, (inquiry)state_clear);
}

/* A buffer to fill, and to give back. */
static Buffer take_room(PassState *self)
{
    for (int i = 0; i < 2; i++)
        if (self->spare[i].data) {
            Buffer taken = self->spare[i];
            self->spare[i] = (Buffer){0};
            taken.used = 0;
            return taken;
        }
    return (Buffer){0};
}

static void give_room(PassState *self, Buffer *buffer)
{
    for (int i = 0; i < 2 && buffer->data; i++)
        if (!self->spare[i].data) { self->spare[i] = *buffer; *buffer = (Buffer){0}; }
    free(buffer->data);
    *buffer = (Buffer){0};
}

static PassState *make_state(PyTypeObject *type, PyObject *tape, uint32_t id, PyObject *claim, PyObject *fault)
{
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PassState *self = (PassState *)make(type, 0);
    if (!self) return NULL;
    self->tape = (Tape *)Py_NewRef(tape);
    self->claim = Py_XNewRef(claim);
    self->fault = Py_NewRef(fault);
    self->id = id;
    self->task = -1;
    self->key = PyLong_FromLongLong(-(long long)id);
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
    return (PyObject *)make_state(type, tape, id, claim, fault);
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
    long long task = call_int(task_id_fn);
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

/* A slot whose gradient goes to a leaf: the probe there takes the entry as its own reading. */
typedef struct { uint32_t slot; PyObject *probe; Buffer *sent; } Sink;

typedef struct NodeProbe {
    PyObject_HEAD
    PassState *state;
    uint32_t node;
    struct NodeProbe *newer, *older; /* among those that are open */
    int is_open;
    PyObject *same;        /* bytes: per input, 1 where it receives just what one edge sent */
    int reuse;             /* no user code between: what was received is unchanged, what is returned fits */
    PyObject *begun;       /* begun(): called before a custom Function runs, or None */
    PyObject *ended;
    /* while the node runs */
    uint64_t seq;
    int64_t begin;
    long long low;         /* the next node's sequence number, where nodes can be made */
    uint32_t order, n_received;
    Buffer received;
    Sink *sinks;
    uint32_t n_sinks;
    uint64_t loose;        /* bit i: slot i leads nowhere, so that the structure does not know its metadata */
} NodeProbe;

static void open_probe(NodeProbe *self)
{
    if (self->is_open) return;
    self->is_open = 1;
    self->newer = NULL;
    self->older = self->state->open;
    if (self->older) self->older->newer = self;
    self->state->open = self;
}

/* Whether it was open. */
static int close_probe(NodeProbe *self)
{
    if (!self->is_open) return 0;
    self->is_open = 0;
    if (self->older) self->older->newer = self->newer;
    if (self->newer) self->newer->older = self->older; else self->state->open = self->older;
    return 1;
}

static PyObject *state_open(PassState *self, void *unused)
{
    PyObject *probes = PyDict_New();
    for (NodeProbe *probe = self->open; probes && probe; probe = probe->older) {
        PyObject *number = PyLong_FromUnsignedLong(probe->node);
        if (!number || PyDict_SetItem(probes, number, (PyObject *)probe) < 0) Py_CLEAR(probes);
        Py_XDECREF(number);
    }
    return probes;
}

static int probe_clear(NodeProbe *self)
{
    if (self->state) close_probe(self);
    Py_CLEAR(self->state);
    Py_CLEAR(self->same);
    Py_CLEAR(self->begun);
    Py_CLEAR(self->ended);
    while (self->n_sinks) Py_DECREF(self->sinks[--self->n_sinks].probe);
    return 0;
}

static void probe_dealloc(NodeProbe *self)
{
    probe_clear(self);
    free(self->sinks);
    free(self->received.data);
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

static int makes_nodes(PassState *state) { return state->made && state->made != Py_None; }

/* A node that makes nodes, as with create_graph: tell which, by their sequence numbers. */
static int tell_made(NodeProbe *self)
{
    long long high = call_int(sequence_fn);
    if (high == -1) return -1;
    if (high == self->low) return 0;
    PyObject *done = PyObject_CallFunction(self->state->made, "ILL", self->node, self->low, high);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int probe_begin(NodeProbe *self, PyObject *gradients)
{
    PassState *state = self->state;
    Tape *tape = state->tape;
    const char *same = PyBytes_AsString(self->same);
    if (!same || !gradients || PyTuple_Size(gradients) < 0) return -1;
    if (!self->received.data) self->received = take_room(state);
    self->received.used = 0;
    self->n_received = (uint32_t)PyTuple_Size(gradients);
    uint32_t known = (uint32_t)PyBytes_Size(self->same);
    for (uint32_t i = 0; i < self->n_received; i++) {
        PyObject *gradient = PyTuple_GetItem(gradients, i);
        if (i < known && same[i] && gradient != Py_None) {
            PUT(&self->received, uint8_t, ENTRY_SAME);
        } else if (put_gradient(self, &self->received, gradient, self->reuse) < 0) {
            return -1;
        }
    }
    open_probe(self);
    self->seq = ++tape->seq;
    self->order = ++state->order;
    state->node_count++;
    if (makes_nodes(state) && (self->low = call_int(sequence_fn)) == -1) return -1;
    self->begin = clock_ns();
    return self->begun ? call_quietly(self->begun) : 0;
}

static int probe_write(NodeProbe *self, int64_t end, uint32_t n_returned, Buffer *returned)
{
    Tape *tape = self->state->tape;
    Buffer *out = &tape->frames;
    Py_ssize_t start = out->used;
    uint32_t length = (uint32_t)(HEADER + 24 + self->received.used + (returned ? returned->used : 0));
    if (reserve(out, length) < 0) return -1;
    put_header(out, length, KIND_NODE, tape_thread(tape), self->state->id, self->seq, self->begin - tape->origin);
    PUT(out, uint32_t, self->node);
    PUT(out, uint32_t, self->order);
    PUT(out, int64_t, end);
    PUT(out, uint32_t, self->n_received);
    PUT(out, uint32_t, n_returned);
    put(out, self->received.data, self->received.used);
    if (returned) put(out, returned->data, returned->used);
    if (out->used - start != length) { PyErr_SetString(PyExc_SystemError, "frame length"); return -1; }
    return 0;
}

static int probe_end(NodeProbe *self, PyObject *inputs, PyObject *outputs)
{
    Tape *tape = self->state->tape;
    int64_t end = clock_ns() - tape->origin;
    if (!close_probe(self)) return 0;
    if (self->ended && call_quietly(self->ended) < 0) return -1;
    if (makes_nodes(self->state) && tell_made(self) < 0) return -1;
    if (!inputs || !outputs) return -1;
    Py_ssize_t count = PyTuple_Size(inputs), arrived = PyTuple_Size(outputs);
    if (count < 0 || arrived < 0) return -1;
    Buffer returned = take_room(self->state);
    int failed = 0;
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        PyObject *gradient = PyTuple_GetItem(inputs, i);
        int twin = -1;
        for (Py_ssize_t k = 0; self->reuse && gradient != Py_None && k < arrived && k < 200; k++)
            if (PyTuple_GetItem(outputs, k) == gradient) { twin = (int)k; break; }
        Py_ssize_t start = returned.used;
        if (twin >= 0) {
            uint8_t entry[2] = {ENTRY_RECEIVED, (uint8_t)twin};
            failed = put(&returned, entry, 2) < 0;
        } else {
            int is_loose = i < 64 && self->loose >> i & 1;
            failed = put_gradient(self, &returned, gradient, self->reuse && !is_loose) < 0;
            for (uint32_t n = 0; n < self->n_sinks && !failed; n++)
                if (self->sinks[n].slot == (uint32_t)i) {
                    self->sinks[n].sent->used = 0;
                    failed = put(self->sinks[n].sent, returned.data + start, returned.used - start) < 0;
                }
        }
    }
    if (!failed) failed = probe_write(self, end, (uint32_t)count, &returned) < 0;
    give_room(self->state, &returned);
    give_room(self->state, &self->received);
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
    if (probe_write(self, -1, 0, NULL) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef probe_methods[] = {
    {"abandon", (PyCFunction)probe_abandon, METH_NOARGS, "Write the frame of a node that never ended."},
    {NULL},
};
static PyMemberDef probe_members[] = {
    {"node", T_UINT, offsetof(NodeProbe, node), READONLY, NULL},
    {"order", T_UINT, offsetof(NodeProbe, order), READONLY, NULL},
    {"same", T_OBJECT_EX, offsetof(NodeProbe, same), 0, NULL},
    {"reuse", T_INT, offsetof(NodeProbe, reuse), 0, NULL},
    {NULL},
};
static PyType_Slot probe_slots[] = {
    {Py_tp_doc, "NodeProbe(state, node, same, reuse, begun, ended): prehook and posthook of one node."},
    {Py_tp_new, probe_new}, {Py_tp_dealloc, probe_dealloc}, {Py_tp_call, probe_call},
    {Py_tp_methods, probe_methods}, {Py_tp_members, probe_members}, {0, NULL},
};
static PyType_Spec probe_spec = {
    "tracer.capture._core.NodeProbe", sizeof(NodeProbe), 0, Py_TPFLAGS_DEFAULT, probe_slots};
