/* Tape: the buffer of packed frames (the event stream), its order numbers, its clock, and the entries that
 * tell what a tensor holds. Included by _core.c. */

typedef struct {
    PyObject_HEAD
    Buffer frames;
    uint64_t seq;          /* last order number given out */
    int64_t origin;        /* the clock when the trace began */
    int few;               /* tensors of this many elements or fewer are kept whole */
    int statistics;        /* 0: structure only, no tensor is read */
    PyObject *other;       /* other(tensor) -> entry bytes, for tensors this file cannot read */
    Py_ssize_t most;       /* SPILL; 0 where events are followed as they happen */
    PyObject *full;        /* full(): called when `most` bytes wait; takes them */
    PyObject *meta_of;     /* meta_of(tensor) -> id, where the structure does not say it, or None */
    unsigned long threads[THREADS]; /* 0: has ended */
    int n_threads, last_reused;
} Tape;

static int tape_traverse(Tape *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->other);
    Py_VISIT(self->full);
    Py_VISIT(self->meta_of);
    return 0;
}

static int tape_clear(Tape *self)
{
    Py_CLEAR(self->other);
    Py_CLEAR(self->full);
    Py_CLEAR(self->meta_of);
    return 0;
}

static void tape_dealloc(Tape *self)
{
    free(self->frames.data);
    free_object((PyObject *)self, (inquiry)tape_clear);
}

static PyObject *tape_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"other", "few", "statistics", NULL};
    PyObject *other;
    int few = 16, statistics = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|ip", names, &other, &few, &statistics)) return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Tape *self = (Tape *)make(type, 0);
    if (!self) return NULL;
    self->origin = clock_ns();
    self->most = SPILL;
    self->few = few < 0 ? 0 : few;
    self->statistics = statistics;
    self->other = Py_NewRef(other);
    return (PyObject *)self;
}

/* A small number for the calling thread, 0 for the first seen; that of an ended thread where none is
 * left, and TOO_MANY where none has ended. */
static int tape_thread(Tape *self)
{
    unsigned long ident = PyThread_get_thread_ident();
    for (int i = 0; i < self->n_threads; i++)
        if (self->threads[i] == ident) return i;
    int slot = self->n_threads;
    if (slot < TOO_MANY) self->n_threads++;
    for (int tried = 0; slot == TOO_MANY && tried < TOO_MANY; tried++) {
        self->last_reused = (self->last_reused + 1) % TOO_MANY;
        if (!self->threads[self->last_reused]) slot = self->last_reused;
    }
    if (slot < TOO_MANY) self->threads[slot] = ident;
    return slot;
}

#pragma pack(push, 1)
typedef struct { uint32_t length; uint8_t kind, flags; uint16_t thread; uint32_t pass; uint64_t seq; int64_t t_ns; } Header;
#pragma pack(pop)
enum { HEADER = sizeof(Header) };

static int put_header(Buffer *out, uint32_t length, int kind, int thread, uint32_t pass, uint64_t seq,
                      int64_t t_ns)
{
    Header header = {length, (uint8_t)kind, 0, (uint16_t)thread, pass, seq, t_ns};
    return put(out, &header, sizeof header);
}

static PyObject *tape_now(Tape *self, PyObject *unused)
{
    return PyLong_FromLongLong(clock_ns() - self->origin);
}

static PyObject *tape_next(Tape *self, PyObject *unused)
{
    return PyLong_FromUnsignedLongLong(++self->seq);
}

static PyObject *tape_thread_py(Tape *self, PyObject *unused)
{
    return PyLong_FromLong(tape_thread(self));
}

static PyObject *tape_put(Tape *self, PyObject *frames)
{
    char *bytes;
    Py_ssize_t count;
    if (PyBytes_AsStringAndSize(frames, &bytes, &count) < 0) return NULL;
    if (put(&self->frames, bytes, count) < 0) return NULL;
    Py_RETURN_NONE;
}

/* write(kind, pass, payload...): append a frame that begins now; its payload is the bytes in order. */
static PyObject *tape_write(Tape *self, PyObject *args)
{
    Py_ssize_t parts = PyTuple_Size(args), length = HEADER;
    if (parts < 2) { PyErr_SetString(PyExc_TypeError, "write(kind, pass, *payload)"); return NULL; }
    long kind = PyLong_AsLong(PyTuple_GetItem(args, 0));
    unsigned long pass = PyLong_AsUnsignedLong(PyTuple_GetItem(args, 1));
    if (PyErr_Occurred()) return NULL;
    for (Py_ssize_t i = 2; i < parts; i++) {
        Py_ssize_t size = PyBytes_Size(PyTuple_GetItem(args, i));
        if (size < 0) return NULL;
        length += size;
    }
    Buffer *out = &self->frames;
    if (reserve(out, length) < 0) return NULL;
    put_header(out, (uint32_t)length, (int)kind, tape_thread(self), (uint32_t)pass, ++self->seq,
               clock_ns() - self->origin);
    for (Py_ssize_t i = 2; i < parts; i++) {
        PyObject *part = PyTuple_GetItem(args, i);
        put(out, PyBytes_AsString(part), PyBytes_Size(part));
    }
    Py_RETURN_NONE;
}

static PyObject *tape_take(Tape *self, PyObject *unused)
{
    PyObject *frames = PyBytes_FromStringAndSize(self->frames.data, self->frames.used);
    if (frames) self->frames.used = 0;
    return frames;
}

/* What waiting frames cover, as tracer/store/chunks.py has it: least and greatest order number and pass, how
 * many events, and a bit for each kind. */
static PyObject *tape_span(const Buffer *frames)
{
    uint64_t first_seq = 0, last_seq = 0, kinds = 0;
    uint32_t first_pass = 0, last_pass = 0, events = 0;
    Header header;
    for (Py_ssize_t at = 0; at + HEADER <= frames->used; at += header.length) {
        memcpy(&header, frames->data + at, sizeof header);
        if (header.length < HEADER) { PyErr_SetString(PyExc_ValueError, "not whole frames"); return NULL; }
        uint64_t seq = header.seq;
        uint32_t pass = header.pass;
        events++;
        kinds |= (uint64_t)1 << (header.kind & 63);
        if (seq < first_seq || !first_seq) first_seq = seq;
        if (seq > last_seq) last_seq = seq;
        if (pass && (pass < first_pass || !first_pass)) first_pass = pass;
        if (pass > last_pass) last_pass = pass;
    }
    return Py_BuildValue("KKIIIK", (unsigned long long)first_seq, (unsigned long long)last_seq, first_pass,
                         last_pass, events, (unsigned long long)kinds);
}

static PyObject *tape_take_chunk(Tape *self, PyObject *unused)
{
    PyObject *span = tape_span(&self->frames), *frames = span ? tape_take(self, NULL) : NULL;
    if (!frames) { Py_XDECREF(span); return NULL; }
    return Py_BuildValue("NN", frames, span);
}

static int put_other(Tape *tape, Buffer *out, PyObject *tensor)
{
    PyObject *entry = PyObject_CallFunctionObjArgs(tape->other, tensor, NULL);
    if (!entry) return -1;
    char *bytes;
    Py_ssize_t length;
    int bad = PyBytes_AsStringAndSize(entry, &bytes, &length) < 0 || put(out, bytes, length) < 0;
    Py_DECREF(entry);
    return bad ? -1 : 0;
}

static int put_values(Buffer *out, const View *view, uint32_t meta)
{
    int many = view->count > 255;
    PUT(out, uint8_t, many ? ENTRY_MANY : ENTRY_VALUES);
    PUT(out, uint32_t, meta);
    PUT(out, uint8_t, view->code);
    if (many) PUT(out, uint32_t, view->count);
    else PUT(out, uint8_t, view->count);
    Py_ssize_t length = (Py_ssize_t)view->count * ELEMENT_SIZE[view->code];
    if (reserve(out, length) < 0) return -1;
    view_values(view, out->data + out->used);
    out->used += length;
    return 0;
}

static int put_statistics(Buffer *out, const View *view, uint32_t meta)
{
    Stats stats;
    if (view->count > MANY) {
        Py_BEGIN_ALLOW_THREADS
        stats = view_statistics(view);
        Py_END_ALLOW_THREADS
    } else {
        stats = view_statistics(view);
    }
    PUT(out, uint8_t, ENTRY_STATS);
    PUT(out, uint32_t, meta);
    return put(out, &stats, sizeof stats);
}

/* Append what `tensor` holds as an entry; `meta` is 0 for what the structure says. Other threads may
 * run meanwhile: `out` must not be the tape. */
static int put_entry(Tape *tape, Buffer *out, PyObject *tensor, uint32_t meta)
{
    if (tensor == Py_None) { PUT(out, uint8_t, ENTRY_NONE); return 0; }
    if (!tape->statistics) {
        PUT(out, uint8_t, ENTRY_UNASKED);
        PUT(out, uint32_t, meta);
        return 0;
    }
    View view;
    if (!find_view(tensor, &view)) {
        PyErr_Clear();
        return put_other(tape, out, tensor);
    }
    if (view.count <= tape->few) return put_values(out, &view, meta);
    return has_statistics(view.code) ? put_statistics(out, &view, meta) : put_other(tape, out, tensor);
}

/* Python's tensor methods go through the user's function modes unless told otherwise. */
static PyObject *quiet(void)
{
    PyObject *guard = PyObject_CallNoArgs(disable_torch_function);
    if (!guard) return NULL;
    PyObject *entered = PyObject_CallMethodObjArgs(guard, s_enter, NULL);
    if (!entered) Py_CLEAR(guard);
    Py_XDECREF(entered);
    return guard;
}

/* As `quiet`, for what is asked of tensors as PyTorch makes them: nobody hears it where there is no mode. */
static PyObject *quiet_for_plain(void)
{
    long long modes = number_in(call(&count_modes));
    if (modes > 0) return quiet();
    return modes < 0 ? NULL : Py_NewRef(Py_None);
}

/* The exception that is set, if any, stays as it is. */
static void loud(PyObject *guard)
{
    if (!guard || guard == Py_None) { Py_XDECREF(guard); return; }
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *left = PyObject_CallMethodObjArgs(guard, s_exit, Py_None, Py_None, Py_None, NULL);
    if (!left) PyErr_Clear();
    Py_XDECREF(left);
    Py_DECREF(guard);
    PyErr_Restore(type, value, trace);
}

/* As `quiet`, where what is asked is this tensor: its class may be one that hears it. */
static PyObject *quiet_for(PyObject *tensor)
{
    return is_plain_tensor(tensor) || tensor == Py_None ? quiet_for_plain() : quiet();
}

static void note_refusal(PyObject *tensor)
{
    PyObject *guard = quiet_for_plain();
    if (!guard || is_strided(tensor)) has_refused = 1; else asks_layout = 1;
    if (PyErr_Occurred()) PyErr_Clear();
    loud(guard);
}

static PyObject *tape_entry(Tape *self, PyObject *args)
{
    PyObject *tensor;
    unsigned int meta = 0;
    if (!PyArg_ParseTuple(args, "O|I", &tensor, &meta)) return NULL;
    Buffer out = {0};
    PyObject *entry = NULL;
    if (put_entry(self, &out, tensor, meta) == 0) entry = PyBytes_FromStringAndSize(out.data, out.used);
    free(out.data);
    return entry;
}

/* Have a tape that has grown long taken; -1 only for the user's Ctrl-C. */
static int spill(Tape *self)
{
    if (self->frames.used < self->most || !self->full) return 0;
    PyObject *done = PyObject_CallNoArgs(self->full);
    Py_XDECREF(done);
    if (done) return 0;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    PyErr_Clear();
    return 0;
}

static PyObject *tape_used(Tape *self, void *unused) { return PyLong_FromSsize_t(self->frames.used); }
static PyObject *tape_seq(Tape *self, void *unused) { return PyLong_FromUnsignedLongLong(self->seq); }

static PyMethodDef tape_methods[] = {
    {"now", (PyCFunction)tape_now, METH_NOARGS, "Nanoseconds since the tape began."},
    {"next_seq", (PyCFunction)tape_next, METH_NOARGS, "The next order number, from 1."},
    {"thread", (PyCFunction)tape_thread_py, METH_NOARGS, "A small number for the calling thread."},
    {"put", (PyCFunction)tape_put, METH_O, "Append packed frames (bytes)."},
    {"write", (PyCFunction)tape_write, METH_VARARGS, "write(kind, pass, *payload): append a frame that begins now."},
    {"take_chunk", (PyCFunction)tape_take_chunk, METH_NOARGS,
     "take() and what it covers: (first seq, last seq, first pass, last pass, events, kinds)."},
    {"take", (PyCFunction)tape_take, METH_NOARGS, "All frames so far (bytes); the tape is then empty."},
    {"entry", (PyCFunction)tape_entry, METH_VARARGS, "entry(tensor, meta=0): the packed entry of a tensor or None."},
    {NULL},
};
static PyGetSetDef tape_getset[] = {
    {"used", (getter)tape_used, NULL, "Bytes waiting.", NULL},
    {"seq", (getter)tape_seq, NULL, "The last order number given out.", NULL},
    {NULL},
};
static PyMemberDef tape_members[] = {
    {"full", T_OBJECT, offsetof(Tape, full), 0, NULL},
    {"most", T_PYSSIZET, offsetof(Tape, most), 0, NULL},
    {"meta_of", T_OBJECT, offsetof(Tape, meta_of), 0, NULL},
    {"few", T_INT, offsetof(Tape, few), READONLY, NULL},
    {"statistics", T_INT, offsetof(Tape, statistics), READONLY, NULL},
    {NULL},
};
static PyType_Slot tape_slots[] = {
    {Py_tp_doc, "Tape(other, few=16, statistics=True): the buffer of packed frames."},
    {Py_tp_new, tape_new}, {Py_tp_dealloc, tape_dealloc}, {Py_tp_traverse, tape_traverse},
    {Py_tp_clear, tape_clear}, {Py_tp_methods, tape_methods},
    {Py_tp_getset, tape_getset}, {Py_tp_members, tape_members}, {0, NULL},
};
static PyType_Spec tape_spec = {"tracer.capture._core.Tape", sizeof(Tape), 0, COLLECTED, tape_slots};
