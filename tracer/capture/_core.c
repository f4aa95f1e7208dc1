/* The parts of capture that run for every operation and every node, without a Python frame.
 *
 * A Python function between the user's line and PyTorch would take the user's place in warnings
 * and tracebacks, and costs a microsecond; a C callable does neither. Limited API 3.10, no torch
 * headers: tensors are read through their own Python methods.
 *
 * Around     calls a function between two Python callbacks, with no frame of its own.
 * Tape       the buffer of packed frames (the event stream), its order numbers and its clock.
 * PassState  what the probes of one backward pass share.
 * NodeProbe  the prehook and posthook of one node: reads gradients, writes one frame.
 * Unoverridden  answers PyTorch's question whether a call is overridden as if our mode were not there.
 * Mode       the entry point of a TorchFunctionMode, and the log of which operation made which node.
 *
 * The frame and entry layouts are those of tracer/store/frames.py.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "_statistics.h"
#ifdef _WIN32
#include <windows.h>
#else
#include <time.h>
#endif

enum { KIND_FORWARD = 1, KIND_NODE = 7, KIND_ACCUMULATE = 9, KIND_GRAD_WRITE = 10, KIND_DATA_WRITE = 11 };
enum { ENTRY_NONE = 0, ENTRY_SAME = 1, ENTRY_STATS = 2, ENTRY_VALUES = 3, ENTRY_PARTIAL = 5, ENTRY_RECEIVED = 6,
       ENTRY_MANY = 7, ENTRY_UNASKED = 8 };
enum { HEADER = 28, SPILL = 1 << 20, THREADS = 256, TOO_MANY = THREADS - 1 };
enum { MANY = 1 << 18 }; /* elements whose reading lets other threads run */

static int64_t clock_ns(void)
{
#ifdef _WIN32
    LARGE_INTEGER count, rate;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&rate);
    int64_t whole = count.QuadPart / rate.QuadPart, rest = count.QuadPart % rate.QuadPart;
    return whole * 1000000000 + rest * 1000000000 / rate.QuadPart;
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
#endif
}

/* ---------------------------------------------------------------- what we know of torch */

static PyObject *tensor_type, *parameter_type;
static PyObject *task_id_fn, *sequence_fn, *grad_enabled_fn, *disable_torch_function;
static PyObject *strided, *hook_dict;
static struct { PyObject *dtype; int code; } dtypes[16];
static int n_dtypes;
static PyObject *s_dtype, *s_layout, *s_is_cpu, *s_is_nested, *s_shape, *s_stride, *s_data_ptr, *s_is_neg,
    *s_is_conj, *s_f_back, *s_f_lasti, *s_enter, *s_exit, *s_cdata, *s_version, *s_grad, *s_is_view, *s_is_leaf,
    *s_requires_grad;

static PyObject *call0(PyObject *object, PyObject *name)
{
    return PyObject_CallMethodObjArgs(object, name, NULL);
}

/* The method's truth: 1, 0, or -1 with an exception. */
static int ask(PyObject *object, PyObject *name, int is_method)
{
    PyObject *answer = is_method ? call0(object, name) : PyObject_GetAttr(object, name);
    if (!answer) return -1;
    int truth = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return truth;
}

static long long ask_int(PyObject *object, PyObject *name)
{
    PyObject *answer = call0(object, name);
    if (!answer) return -1;
    long long number = PyLong_AsLongLong(answer);
    Py_DECREF(answer);
    return number;
}

static long long call_int(PyObject *function)
{
    PyObject *answer = PyObject_CallNoArgs(function);
    if (!answer) return -1;
    long long number = PyLong_AsLongLong(answer);
    Py_DECREF(answer);
    return number;
}

/* What we make holds callbacks, and they hold us: the collector must see every reference. */
static void free_object(PyObject *self, inquiry clear)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

enum { COLLECTED = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC };

/* Of probes there are two for each node and pass: that many more objects to look through made the
 * collector a third of what recording cost. They are in cycles only while their pass runs, and
 * LivePass.detach takes these apart. */
static void free_uncollected(PyObject *self, inquiry clear)
{
    PyTypeObject *type = Py_TYPE(self);
    clear(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* ---------------------------------------------------------------- growing buffers */

typedef struct { char *data; Py_ssize_t used, room; } Buffer;

static int reserve(Buffer *buffer, Py_ssize_t more)
{
    if (buffer->used + more <= buffer->room) return 0;
    Py_ssize_t room = buffer->room ? buffer->room : 256;
    while (room < buffer->used + more) room *= 2;
    char *data = realloc(buffer->data, room);
    if (!data) { PyErr_NoMemory(); return -1; }
    buffer->data = data;
    buffer->room = room;
    return 0;
}

static int put(Buffer *buffer, const void *bytes, Py_ssize_t count)
{
    if (reserve(buffer, count) < 0) return -1;
    memcpy(buffer->data + buffer->used, bytes, count);
    buffer->used += count;
    return 0;
}

#define PUT(buffer, type, value) \
    do { type put_value = (type)(value); if (put(buffer, &put_value, sizeof put_value) < 0) return -1; } while (0)

/* ---------------------------------------------------------------- Around */

typedef struct { PyObject_HEAD PyObject *function, *before, *after; } Around;

static int around_traverse(Around *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->function);
    Py_VISIT(self->before);
    Py_VISIT(self->after);
    return 0;
}

static int around_clear(Around *self)
{
    Py_CLEAR(self->function);
    Py_CLEAR(self->before);
    Py_CLEAR(self->after);
    return 0;
}

static void around_dealloc(PyObject *self) { free_object(self, (inquiry)around_clear); }

static PyObject *around_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"function", "before", "after", NULL};
    PyObject *function, *before, *after;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO", names, &function, &before, &after)) return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Around *self = (Around *)make(type, 0);
    if (!self) return NULL;
    self->function = Py_NewRef(function);
    self->before = Py_NewRef(before);
    self->after = Py_NewRef(after);
    return (PyObject *)self;
}

/* Call function(*args, **kwargs) between before(args, kwargs) -> token and after(token, result,
 * exception). The callbacks guard themselves; should one raise all the same, it must not be seen,
 * unless it is the user's Ctrl-C. */
static PyObject *call_around(PyObject *function, PyObject *before, PyObject *after, PyObject *args,
                             PyObject *kwargs)
{
    PyObject *shown = kwargs && PyDict_Size(kwargs) ? kwargs : Py_None;
    PyObject *token = PyObject_CallFunctionObjArgs(before, args, shown, NULL);
    if (!token) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) return NULL;
        PyErr_Clear();
        return PyObject_Call(function, args, kwargs);
    }
    PyObject *result = PyObject_Call(function, args, kwargs);
    PyObject *type = NULL, *value = NULL, *trace = NULL;
    if (!result) {
        PyErr_Fetch(&type, &value, &trace);
        PyErr_NormalizeException(&type, &value, &trace);
    }
    PyObject *done = PyObject_CallFunctionObjArgs(after, token, result ? result : Py_None,
                                                  value ? value : Py_None, NULL);
    int interrupted = !done && !PyErr_ExceptionMatches(PyExc_Exception);
    if (!done && !(interrupted && result)) PyErr_Clear();
    Py_XDECREF(done);
    Py_DECREF(token);
    if (!result) PyErr_Restore(type, value, trace);
    else if (interrupted) Py_CLEAR(result);
    return result;
}

static PyObject *around_call(Around *self, PyObject *args, PyObject *kwargs)
{
    return call_around(self->function, self->before, self->after, args, kwargs);
}

static PyObject *around_bind(PyObject *self, PyObject *object, PyObject *owner)
{
    static PyObject *method_type;
    if (!object || object == Py_None) return Py_NewRef(self);
    if (!method_type) {
        PyObject *types = PyImport_ImportModule("types");
        if (!types) return NULL;
        method_type = PyObject_GetAttrString(types, "MethodType");
        Py_DECREF(types);
        if (!method_type) return NULL;
    }
    return PyObject_CallFunctionObjArgs(method_type, self, object, NULL);
}

/* Whatever else is asked of it (name, doc, module, signature) is the wrapped function's. */
static PyObject *around_getattr(PyObject *self, PyObject *name)
{
    PyObject *function = ((Around *)self)->function;
    int of_type = PyUnicode_CompareWithASCIIString(name, "__doc__") == 0 ||
                  PyUnicode_CompareWithASCIIString(name, "__module__") == 0;
    PyObject *own = of_type && function ? NULL : PyObject_GenericGetAttr(self, name);
    if (own || (!of_type && !PyErr_ExceptionMatches(PyExc_AttributeError)) || !function) return own;
    PyErr_Clear();
    return PyObject_GetAttr(function, name);
}

static int around_setattr(PyObject *self, PyObject *name, PyObject *value)
{
    return PyObject_SetAttr(((Around *)self)->function, name, value);
}

static PyMemberDef around_members[] = {
    {"__wrapped__", T_OBJECT, offsetof(Around, function), READONLY, NULL},
    {NULL},
};

static PyType_Slot around_slots[] = {
    {Py_tp_doc, "Around(function, before, after): call function between two callbacks, with no frame."},
    {Py_tp_new, around_new}, {Py_tp_dealloc, around_dealloc}, {Py_tp_call, around_call},
    {Py_tp_traverse, around_traverse}, {Py_tp_clear, around_clear}, {Py_tp_descr_get, around_bind},
    {Py_tp_getattro, around_getattr}, {Py_tp_setattro, around_setattr},
    {Py_tp_members, around_members}, {0, NULL},
};
static PyType_Spec around_spec = {
    "tracer.capture._core.Around", sizeof(Around), 0, COLLECTED, around_slots};

/* ---------------------------------------------------------------- Tape */

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

static int put_header(Buffer *out, uint32_t length, int kind, int thread, uint32_t pass, uint64_t seq,
                      int64_t t_ns)
{
    PUT(out, uint32_t, length);
    PUT(out, uint8_t, kind);
    PUT(out, uint8_t, 0);
    PUT(out, uint16_t, thread);
    PUT(out, uint32_t, pass);
    PUT(out, uint64_t, seq);
    PUT(out, int64_t, t_ns);
    return 0;
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
    uint32_t first_pass = 0, last_pass = 0, events = 0, length;
    for (Py_ssize_t at = 0; at + HEADER <= frames->used; at += length) {
        uint64_t seq;
        uint32_t pass;
        const char *frame = frames->data + at;
        memcpy(&length, frame, sizeof length);
        memcpy(&pass, frame + 8, sizeof pass);
        memcpy(&seq, frame + 12, sizeof seq);
        if (length < HEADER) { PyErr_SetString(PyExc_ValueError, "not whole frames"); return NULL; }
        events++;
        kinds |= (uint64_t)1 << (frame[4] & 63);
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

/* What the struct of torch's DLPack table and the tensor it fills in look like (dlpack.h, version 1). */
typedef struct {
    void *data;
    int32_t device, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} Borrowed;
typedef struct {
    uint32_t major, minor;
    void *older, *allocate, *lend_for_long, *take_over;
    int (*borrow)(void *tensor, Borrowed *out);
} Exchange;
static const Exchange *exchange;

static int code_of(const Borrowed *borrowed)
{
    if (borrowed->lanes != 1) return 0;
    switch (borrowed->code << 8 | borrowed->bits) {
    case 0x220: return FLOAT32;
    case 0x240: return FLOAT64;
    case 0x210: return FLOAT16;
    case 0x410: return BFLOAT16;
    case 0x540: return COMPLEX64;
    case 0x580: return COMPLEX128;
    case 0x040: return INT64;
    case 0x020: return INT32;
    case 0x010: return INT16;
    case 0x008: return INT8;
    case 0x108: return UINT8;
    case 0x608: return BOOL;
    case 0xa08: return FLOAT8_E4M3FN;
    case 0xc08: return FLOAT8_E5M2;
    default: return 0;
    }
}

/* One call that allocates nothing; torch has it from 2.10 on. */
static int view_by_exchange(PyObject *tensor, View *view)
{
    Borrowed borrowed;
    if (exchange->borrow(tensor, &borrowed) != 0 || borrowed.device != 1) return 0;
    if (borrowed.ndim > MOST_DIMENSIONS) return 0;
    view->code = code_of(&borrowed);
    view->data = (const char *)borrowed.data + borrowed.byte_offset;
    view->ndim = borrowed.ndim;
    for (int d = 0; d < borrowed.ndim; d++) {
        view->shape[d] = borrowed.shape[d];
        view->strides[d] = borrowed.strides[d];
    }
    return 1;
}

/* The numbers of a tuple; how many, or -1. Takes the reference. */
static int numbers_of(PyObject *tuple, int64_t *numbers)
{
    Py_ssize_t count = tuple && PyTuple_Check(tuple) ? PyTuple_Size(tuple) : -1;
    if (count > MOST_DIMENSIONS) count = -1;
    for (Py_ssize_t i = 0; i < count; i++) numbers[i] = PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
    Py_XDECREF(tuple);
    return PyErr_Occurred() ? -1 : (int)count;
}

static int view_by_methods(PyObject *tensor, View *view)
{
    PyObject *dtype = PyObject_GetAttr(tensor, s_dtype);
    view->code = 0;
    for (int i = 0; dtype && i < n_dtypes; i++)
        if (dtypes[i].dtype == dtype) view->code = dtypes[i].code;
    Py_XDECREF(dtype);
    if (!view->code || ask(tensor, s_is_nested, 0) != 0) return 0;
    view->ndim = numbers_of(PyObject_GetAttr(tensor, s_shape), view->shape);
    if (view->ndim < 0 || numbers_of(call0(tensor, s_stride), view->strides) != view->ndim) return 0;
    view->data = (const char *)(uintptr_t)ask_int(tensor, s_data_ptr);
    return !PyErr_Occurred();
}

/* Whether the elements can be read from memory. Asks first what is cheap to ask: being refused by
 * torch costs a millisecond. */
static int find_view(PyObject *tensor, View *view)
{
    PyObject *type = (PyObject *)Py_TYPE(tensor);
    if (type != tensor_type && type != parameter_type) return 0;
    PyObject *layout = PyObject_GetAttr(tensor, s_layout);
    Py_XDECREF(layout);
    if (layout != strided || ask(tensor, s_is_cpu, 0) != 1 || ask(tensor, s_is_neg, 1) != 0) return 0;
    if (!(exchange ? view_by_exchange(tensor, view) : view_by_methods(tensor, view)) || !view->code) return 0;
    if ((view->code == COMPLEX64 || view->code == COMPLEX128) && ask(tensor, s_is_conj, 1) != 0) return 0;
    view->count = 1;
    for (int d = 0; d < view->ndim; d++) view->count *= view->shape[d];
    return view->data || !view->count;
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
    PyObject *entered = call0(guard, s_enter);
    if (!entered) Py_CLEAR(guard);
    Py_XDECREF(entered);
    return guard;
}

/* The exception that is set, if any, stays as it is. */
static void loud(PyObject *guard)
{
    if (!guard) return;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *left = PyObject_CallMethodObjArgs(guard, s_exit, Py_None, Py_None, Py_None, NULL);
    if (!left) PyErr_Clear();
    Py_XDECREF(left);
    Py_DECREF(guard);
    PyErr_Restore(type, value, trace);
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

/* ---------------------------------------------------------------- PassState */

typedef struct {
    PyObject_HEAD
    Tape *tape;
    PyObject *claim;       /* claim(state, task) -> bool: is this engine run ours? */
    PyObject *fault;       /* fault(): an exception of our own is set; record it and stop */
    uint32_t id;
    long long task;        /* the engine's number for this run, -1 until a probe has seen it */
    uint32_t order, node_count, leaf_count;
    int guarded;           /* a function mode is active while the engine runs */
    int closed;
    PyObject *key;         /* of its probes in dicts of hooks: nested passes meet in the same ones */
    PyObject *open;        /* dict: node -> NodeProbe begun and not ended */
    PyObject *unsettled;   /* list of LeafProbes that have run and are not written yet */
    PyObject *made;        /* made(node, low, high): a node made these nodes; None where none can be made */
} PassState;

static int state_traverse(PassState *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->tape);
    Py_VISIT(self->claim);
    Py_VISIT(self->fault);
    Py_VISIT(self->open);
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
    Py_CLEAR(self->open);
    Py_CLEAR(self->unsettled);
    Py_CLEAR(self->made);
    return 0;
}

static void state_dealloc(PyObject *self) { free_object(self, (inquiry)state_clear); }

static PyObject *state_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"tape", "id", "claim", "fault", NULL};
    PyObject *tape, *claim, *fault;
    unsigned int id;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OIOO", names, &tape, &id, &claim, &fault)) return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PassState *self = (PassState *)make(type, 0);
    if (!self) return NULL;
    self->tape = (Tape *)Py_NewRef(tape);
    self->claim = Py_NewRef(claim);
    self->fault = Py_NewRef(fault);
    self->id = id;
    self->task = -1;
    self->key = PyLong_FromLongLong(-(long long)id);
    self->open = PyDict_New();
    self->unsettled = PyList_New(0);
    if (!self->key || !self->open || !self->unsettled) { Py_DECREF(self); return NULL; }
    return (PyObject *)self;
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
    {"open", T_OBJECT, offsetof(PassState, open), READONLY, NULL},
    {"unsettled", T_OBJECT, offsetof(PassState, unsettled), READONLY, NULL},
    {"made", T_OBJECT, offsetof(PassState, made), 0, NULL},
    {NULL},
};
static PyType_Slot state_slots[] = {
    {Py_tp_doc, "PassState(tape, id, claim, fault): what the probes of one pass share."},
    {Py_tp_new, state_new}, {Py_tp_dealloc, state_dealloc}, {Py_tp_traverse, state_traverse},
    {Py_tp_clear, state_clear}, {Py_tp_members, state_members}, {0, NULL},
};
static PyType_Spec state_spec = {
    "tracer.capture._core.PassState", sizeof(PassState), 0, COLLECTED, state_slots};

/* 1 when the engine run that is calling belongs to this state, 0 when not, -1 on error. */
static int is_ours(PassState *state)
{
    if (state->closed) return 0;
    long long task = call_int(task_id_fn);
    if (task == -1) return PyErr_Occurred() ? -1 : 0; /* no engine runs */
    if (state->task == task) return 1;
    if (state->task != -1) return 0;
    PyObject *answer = PyObject_CallFunction(state->claim, "OL", state, task);
    if (!answer) return -1;
    int ours = PyObject_IsTrue(answer);
    Py_DECREF(answer);
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

typedef struct {
    PyObject_HEAD
    PassState *state;
    uint32_t node;
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

static int probe_clear(NodeProbe *self)
{
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

static PyObject *probe_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"state", "node", "same", "reuse", "begun", "ended", NULL};
    PyObject *state, *same, *begun = Py_None, *ended = Py_None;
    unsigned int node;
    int reuse = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OIS|pOO", names, &state, &node, &same, &reuse,
                                     &begun, &ended))
        return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    NodeProbe *self = (NodeProbe *)make(type, 0);
    if (!self) return NULL;
    self->state = (PassState *)Py_NewRef(state);
    self->node = node;
    self->same = Py_NewRef(same);
    self->reuse = reuse;
    self->begun = begun == Py_None ? NULL : Py_NewRef(begun);
    self->ended = ended == Py_None ? NULL : Py_NewRef(ended);
    return (PyObject *)self;
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
    PyObject *key = PyLong_FromUnsignedLong(self->node);
    if (!key) return -1;
    int failed = PyDict_SetItem(state->open, key, (PyObject *)self);
    Py_DECREF(key);
    if (failed) return -1;
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
    PyObject *key = PyLong_FromUnsignedLong(self->node);
    if (!key) return -1;
    int was_open = PyDict_Contains(self->state->open, key) == 1 && PyDict_DelItem(self->state->open, key) == 0;
    Py_DECREF(key);
    if (!was_open) { PyErr_Clear(); return 0; }
    if (self->ended && call_quietly(self->ended) < 0) return -1;
    if (makes_nodes(self->state) && tell_made(self) < 0) return -1;
    if (!inputs || !outputs) return -1;
    Py_ssize_t count = PyTuple_Size(inputs), arrived = PyTuple_Size(outputs);
    if (count < 0 || arrived < 0) return -1;
    Buffer returned = {0};
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
    free(returned.data);
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

#include "_leaves.h"

/* ---------------------------------------------------------------- Mode */

/* What to do when a function is called: its id, and the callbacks of one that needs them. */
enum { OBSERVE = 0, IGNORE = 1, WRITE = 2, SET_GRAD = 3, GET_GRAD = 4 };

typedef struct { PyObject_HEAD uint32_t id, how; int action; PyObject *before, *after; } Op;

static int op_traverse(Op *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->before);
    Py_VISIT(self->after);
    return 0;
}

static int op_clear(Op *self)
{
    Py_CLEAR(self->before);
    Py_CLEAR(self->after);
    return 0;
}

static void op_dealloc(PyObject *self) { free_object(self, (inquiry)op_clear); }

static PyObject *op_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"id", "action", "how", "before", "after", NULL};
    unsigned int id, how = 0;
    int action = OBSERVE;
    PyObject *before = Py_None, *after = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "I|iIOO", names, &id, &action, &how, &before, &after))
        return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Op *self = (Op *)make(type, 0);
    if (!self) return NULL;
    self->id = id;
    self->action = action;
    self->how = how;
    self->before = before == Py_None ? NULL : Py_NewRef(before);
    self->after = after == Py_None ? NULL : Py_NewRef(after);
    return (PyObject *)self;
}

static PyMemberDef op_members[] = {
    {"id", T_UINT, offsetof(Op, id), READONLY, NULL},
    {"action", T_INT, offsetof(Op, action), READONLY, NULL},
    {NULL},
};
static PyType_Slot op_slots[] = {
    {Py_tp_doc, "Op(id, action=0, how=0, before=None, after=None): what to do when a function is called."},
    {Py_tp_new, op_new}, {Py_tp_dealloc, op_dealloc}, {Py_tp_traverse, op_traverse},
    {Py_tp_clear, op_clear}, {Py_tp_members, op_members}, {0, NULL},
};
static PyType_Spec op_spec = {"tracer.capture._core.Op", sizeof(Op), 0, COLLECTED, op_slots};

/* Code positions seen: (code, lasti) -> site id and how often it ran; lasti -1 is the code itself,
 * whose value says whether it is the user's. The Python side keeps the code objects alive. */
/* A position in the user's code; `inner` is where in PyTorch's own Python code it had come to, if it
 * was inside such code: a function that runs many operations runs each of them once. */
typedef struct { const void *code, *inner; int32_t lasti, inner_lasti; } At;
typedef struct { At at; uint32_t value, calls, round, most; } Place; /* most: calls ever in a round */
typedef struct { Place *slots; uint32_t room, used; } Places;

static uint32_t hash_at(At at)
{
    return (uint32_t)(((uintptr_t)at.code >> 4) * 2654435761u + (uint32_t)at.lasti * 40503u +
                      ((uintptr_t)at.inner >> 4) * 2246822519u + (uint32_t)at.inner_lasti * 3266489917u);
}

static int is_at(At one, At other)
{
    return one.code == other.code && one.lasti == other.lasti && one.inner == other.inner &&
           one.inner_lasti == other.inner_lasti;
}

/* The place, or the empty one where it belongs: whoever fills that counts it as used. */
static Place *find_place(Places *places, At at)
{
    if (places->used * 2 >= places->room) {
        uint32_t room = places->room ? places->room * 2 : 1024;
        Place *slots = calloc(room, sizeof(Place));
        if (!slots) { PyErr_NoMemory(); return NULL; }
        Place *old = places->slots;
        for (uint32_t i = 0; i < places->room; i++)
            if (old[i].at.code) {
                uint32_t slot = hash_at(old[i].at);
                while (slots[slot & (room - 1)].at.code) slot++;
                slots[slot & (room - 1)] = old[i];
            }
        free(old);
        places->slots = slots;
        places->room = room;
    }
    for (uint32_t slot = hash_at(at);; slot++) {
        Place *place = &places->slots[slot & (places->room - 1)];
        if (!place->at.code || is_at(place->at, at)) return place;
    }
}

/* Which operation made which nodes: sequence numbers [low, high), in order, the newest MADE_MOST only. */
typedef struct { uint64_t low, high, seq; uint32_t site, op, module, call; } Made;
typedef struct { Made *items; uint32_t room, start, used; } MadeLog;
enum { MADE_MOST = 1 << 19, NESTED_MOST = 16, RAN_MOST = 10000, MOST_OPS = 1 << 16 };

/* What was written to in place: where its elements are and which version that made; the newest only. */
typedef struct { uint64_t seq; long long pointer, version; uint32_t how, site; } Written;
enum { WRITTEN_MOST = 1 << 12 };

typedef struct {
    PyObject_HEAD
    Tape *tape;
    PyObject *ops;         /* dict: function -> Op */
    PyObject *describe;    /* describe(function) -> Op */
    PyObject *is_user;     /* is_user(code) -> bool */
    PyObject *site;        /* site(code, lasti, line) -> id */
    PyObject *ran;         /* ran(site, call): a site ran more often in a round than ever, or None */
    PyObject *plain;       /* plain(op id, args, kwargs, result, site, seq, t_ns): made no node */
    PyObject *fault;
    Book *book;
    uint32_t stepping;     /* while an optimizer steps: its name, as a string id */
    struct {
        uint32_t module;   /* id of the module whose forward is running, 0 for none */
        uint32_t path;     /* and its path, as a string id */
        uint32_t pass;     /* the pass that is running, 0 for none */
    } now[THREADS];        /* by thread */
    uint32_t round;        /* counts of a site start anew when this changes */
    int paused;
    uint64_t evicted;
    Places places;
    MadeLog made[THREADS];
    Written *written;      /* a ring */
    uint64_t n_written;
} Mode;

static int mode_traverse(Mode *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->tape);
    Py_VISIT(self->book);
    Py_VISIT(self->ops);
    Py_VISIT(self->describe);
    Py_VISIT(self->is_user);
    Py_VISIT(self->site);
    Py_VISIT(self->ran);
    Py_VISIT(self->plain);
    Py_VISIT(self->fault);
    return 0;
}

static int mode_clear(Mode *self)
{
    Py_CLEAR(self->tape);
    Py_CLEAR(self->book);
    Py_CLEAR(self->ops);
    Py_CLEAR(self->describe);
    Py_CLEAR(self->is_user);
    Py_CLEAR(self->site);
    Py_CLEAR(self->ran);
    Py_CLEAR(self->plain);
    Py_CLEAR(self->fault);
    return 0;
}

static void mode_dealloc(Mode *self)
{
    free(self->places.slots);
    free(self->written);
    for (int i = 0; i < THREADS; i++) free(self->made[i].items);
    free_object((PyObject *)self, (inquiry)mode_clear);
}

static PyObject *mode_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"tape", "describe", "is_user", "site", "plain", "fault", NULL};
    PyObject *tape, *describe, *is_user, *site, *plain, *fault;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOO", names, &tape, &describe, &is_user, &site,
                                     &plain, &fault))
        return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Mode *self = (Mode *)make(type, 0);
    if (!self) return NULL;
    self->tape = (Tape *)Py_NewRef(tape);
    self->ops = PyDict_New();
    self->describe = Py_NewRef(describe);
    self->is_user = Py_NewRef(is_user);
    self->site = Py_NewRef(site);
    self->plain = Py_NewRef(plain);
    self->fault = Py_NewRef(fault);
    self->round = 1;
    return (PyObject *)self;
}

static uint32_t count_call(Mode *self, Place *place)
{
    if (place->round != self->round) { place->round = self->round; place->calls = 0; }
    return ++place->calls;
}

static int lasti_of(PyObject *frame, int32_t *lasti)
{
    PyObject *last = PyObject_GetAttr(frame, s_f_lasti);
    if (!last) return -1;
    *lasti = (int32_t)PyLong_AsLong(last);
    Py_DECREF(last);
    return 0;
}

/* A site runs for the first time as often as this in a round: its loops stand where they first did. */
static int tell_ran(Mode *self, Place *place, uint32_t site, uint32_t call)
{
    if (call <= place->most || call > RAN_MOST || !self->ran || self->ran == Py_None) return 0;
    place->most = call;
    PyObject *done = PyObject_CallFunction(self->ran, "II", site, call);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* The site of the nearest user frame, 0 where there is none; with `call`, count one more call of it. */
static int64_t find_site(Mode *self, uint32_t *call)
{
    PyObject *frame = (PyObject *)PyEval_GetFrame();
    At inner = {NULL, NULL, 0, 0};
    if (call) *call = 0;
    Py_XINCREF(frame);
    while (frame && frame != Py_None) {
        PyCodeObject *code = PyFrame_GetCode((PyFrameObject *)frame);
        At at = {code, NULL, -1, 0};
        Place *place = find_place(&self->places, at);
        if (!place) goto fail;
        if (!place->at.code) {
            PyObject *answer = PyObject_CallFunctionObjArgs(self->is_user, code, NULL);
            if (!answer) goto fail;
            int is_user = PyObject_IsTrue(answer);
            Py_DECREF(answer);
            if (is_user < 0) goto fail;
            place = find_place(&self->places, at);
            if (!place) goto fail;
            *place = (Place){at, is_user, 0, 0};
            self->places.used++;
        }
        if (place->value) {
            if (lasti_of(frame, &at.lasti) < 0) goto fail;
            place = find_place(&self->places, at);
            if (!place) goto fail;
            if (!place->at.code) {
                PyObject *id = PyObject_CallFunction(self->site, "Oii", code, at.lasti,
                                                     PyFrame_GetLineNumber((PyFrameObject *)frame));
                if (!id) goto fail;
                uint32_t value = (uint32_t)PyLong_AsUnsignedLong(id);
                Py_DECREF(id);
                if (PyErr_Occurred()) goto fail;
                place = find_place(&self->places, at);
                if (!place) goto fail;
                *place = (Place){at, value, 0, 0};
                self->places.used++;
            }
            uint32_t value = place->value;
            if (call && inner.code) {
                at.inner = inner.code;
                at.inner_lasti = inner.lasti;
                place = find_place(&self->places, at);
                if (!place) goto fail;
                if (!place->at.code) { *place = (Place){at, value, 0, 0}; self->places.used++; }
            }
            if (call) {
                *call = count_call(self, place);
                if (tell_ran(self, place, value, *call) < 0) goto fail;
            }
            Py_DECREF(code);
            Py_DECREF(frame);
            return value;
        }
        if (call && !inner.code) {
            inner.code = code;
            if (lasti_of(frame, &inner.lasti) < 0) goto fail;
        }
        Py_DECREF(code);
        PyObject *back = PyObject_GetAttr(frame, s_f_back);
        Py_DECREF(frame);
        if (!back) return -1;
        frame = back;
        continue;
    fail:
        Py_DECREF(code);
        Py_DECREF(frame);
        return -1;
    }
    Py_XDECREF(frame);
    return 0;
}

static Made *made_at(MadeLog *log, uint32_t at) { return &log->items[(log->start + at) & (log->room - 1)]; }

static int log_made(Mode *self, int thread, Made made)
{
    MadeLog *log = &self->made[thread];
    if (thread == TOO_MANY) { self->evicted++; return 0; } /* whose counts would get mixed up */
    if (log->used == log->room && log->room < MADE_MOST) {
        uint32_t room = log->room ? log->room * 2 : 256;
        Made *items = realloc(log->items, room * sizeof(Made));
        if (!items) { PyErr_NoMemory(); return -1; }
        log->items = items;
        log->room = room;
    }
    if (log->used < log->room) {
        log->used++;
    } else {
        log->start = (log->start + 1) & (log->room - 1);
        self->evicted++;
    }
    /* a custom Function is logged after what its forward made, though it took its number before */
    uint32_t at = log->used - 1;
    for (; at > 0 && made_at(log, at - 1)->low > made.low; at--) *made_at(log, at) = *made_at(log, at - 1);
    *made_at(log, at) = made;
    return 0;
}

static int log_forward(Mode *self, uint32_t op, long long low, long long high, uint64_t seq, int64_t begin)
{
    uint32_t call = 0;
    int64_t site = find_site(self, high > low ? &call : NULL);
    if (site < 0) return -1;
    Tape *tape = self->tape;
    int thread = tape_thread(tape);
    if (high > low && log_made(self, thread, (Made){low, high, seq, (uint32_t)site, op, self->now[thread].module, call}) < 0) return -1;
    Buffer *out = &tape->frames;
    if (reserve(out, HEADER + 64) < 0) return -1;
    put_header(out, HEADER + 37, KIND_FORWARD, thread, self->now[thread].pass, seq, begin - tape->origin);
    PUT(out, uint32_t, op);
    PUT(out, uint32_t, site);
    PUT(out, uint32_t, self->now[thread].path);
    PUT(out, uint64_t, low);
    PUT(out, uint64_t, high);
    PUT(out, uint8_t, 0);  /* grad mode: grad */
    PUT(out, uint32_t, 0); /* no cut */
    PUT(out, uint16_t, 0); /* no inputs, no outputs listed: the graph has them */
    PUT(out, uint16_t, 0);
    return 0;
}

/* 1 where C can record what a writing function does, with the leaf it writes (NULL: none of ours);
 * 0 where that is for Python; -1 with an exception. */
static int simple_write(Mode *self, Op *op, PyObject *args, PyObject *kwargs, Leaf **leaf)
{
    *leaf = NULL;
    PyObject *target = PyTuple_Size(args) ? PyTuple_GetItem(args, 0) : Py_None;
    PyObject *type = (PyObject *)Py_TYPE(target);
    if (!self->book || (kwargs && PyDict_GetItemString(kwargs, "out"))) return 0;
    if (type != tensor_type && type != parameter_type) return 0;
    *leaf = find_leaf(self->book, target);
    if (op->action == SET_GRAD) {
        int gives = PyTuple_Size(args) == 2 && PyTuple_GetItem(args, 1) != Py_None;
        if (!*leaf) return !gives; /* a leaf that no pass has met yet may be one from now on */
        if (ask(target, s_is_leaf, 0) != 1) return 0; /* no more: asking for its `.grad` would warn */
        return PyTuple_Size(args) == 2 && PyTuple_GetItem(args, 1) == Py_None &&
               !self->now[tape_thread(self->tape)].pass;
    }
    if (*leaf) return 1;
    int concerned = may_concern(self->book, target);
    return concerned < 0 ? -1 : !concerned;
}

/* Who writes: the optimizer while it steps, else the operation; 0 with an exception. */
static uint32_t writer_of(Mode *self, uint32_t how)
{
    if (!self->stepping) return how;
    PyObject *enabled = PyObject_CallNoArgs(grad_enabled_fn);
    if (!enabled) return 0;
    if (enabled != Py_True) how = self->stepping;
    Py_DECREF(enabled);
    return how;
}

/* Note that a tensor was written to, for when a node finds what it kept changed. */
static int note_written(Mode *self, PyObject *tensor, uint32_t how)
{
    int64_t site = find_site(self, NULL);
    how = writer_of(self, how);
    if (site < 0 || PyErr_Occurred()) return -1;
    if (!self->written && !(self->written = calloc(WRITTEN_MOST, sizeof *self->written))) { PyErr_NoMemory(); return -1; }
    Written note = {++self->tape->seq, 0, 0, how, (uint32_t)site};
    read_mark(tensor, &note.version, &note.pointer);
    self->written[self->n_written++ & (WRITTEN_MOST - 1)] = note;
    return 0;
}

static PyObject *mode_note_written(Mode *self, PyObject *args)
{
    PyObject *tensor;
    unsigned int how;
    if (!PyArg_ParseTuple(args, "OI", &tensor, &how) || note_written(self, tensor, how) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *mode_writes(Mode *self, PyObject *args)
{
    unsigned long long since = 0;
    if (!PyArg_ParseTuple(args, "|K", &since)) return NULL;
    uint64_t first = self->n_written > WRITTEN_MOST ? self->n_written - WRITTEN_MOST : 0, last = self->n_written;
    while (last > first && self->written[(last - 1) & (WRITTEN_MOST - 1)].seq > since) last--;
    first = last;
    PyObject *writes = PyList_New(0);
    for (uint64_t i = first; writes && i < self->n_written; i++) {
        Written *note = &self->written[i & (WRITTEN_MOST - 1)];
        PyObject *told = Py_BuildValue("KLLII", (unsigned long long)note->seq, note->pointer, note->version, note->how, note->site);
        if (!told || PyList_Append(writes, told) < 0) Py_CLEAR(writes);
        Py_XDECREF(told);
    }
    return writes;
}

static int write_frame(Mode *self, Op *op, Leaf *leaf, int kind, const Buffer *before, const Buffer *after)
{
    int64_t site = find_site(self, NULL);
    uint32_t how = writer_of(self, op->how);
    if (site < 0 || PyErr_Occurred()) return -1;
    Tape *tape = self->tape;
    Buffer *out = &tape->frames;
    int thread = tape_thread(tape);
    uint32_t length = (uint32_t)(HEADER + 12 + before->used + after->used), ids[3] = {leaf->id, how, (uint32_t)site};
    if (reserve(out, length) < 0) return -1;
    put_header(out, length, kind, thread, self->now[thread].pass, ++tape->seq, clock_ns() - tape->origin);
    put(out, ids, sizeof ids);
    put(out, before->data, before->used);
    return put(out, after->data, after->used);
}

static int read_before(Mode *self, Op *op, Leaf *leaf, PyObject *tensor, Buffer *before)
{
    if (op->action == WRITE) {
        long long version, pointer;
        read_mark(tensor, &version, &pointer);
        if (version == leaf->version && pointer == leaf->pointer) return copy_buffer(before, &leaf->data);
        return put_entry(self->tape, before, tensor, leaf->meta);
    }
    PyObject *grad = PyObject_GetAttr(tensor, s_grad);
    if (!grad) return -1;
    int failed = put_entry(self->tape, before, grad, leaf->meta) < 0;
    Py_DECREF(grad);
    return failed ? -1 : compare_grad(self->book, leaf, before);
}

static int enter_write(Mode *self, Op *op, Leaf *leaf, PyObject *tensor, const Buffer *before)
{
    if (op->action == WRITE) {
        if (read_again(self->tape, &leaf->data, tensor, leaf->meta) < 0) return -1;
        read_mark(tensor, &leaf->version, &leaf->pointer);
        return write_frame(self, op, leaf, KIND_DATA_WRITE, before, &leaf->data);
    }
    uint8_t none = ENTRY_NONE;
    leaf->grad.used = 0;
    if (put(&leaf->grad, &none, 1) < 0) return -1;
    return write_frame(self, op, leaf, KIND_GRAD_WRITE, before, &leaf->grad);
}

/* Call a function that writes to this leaf, and record what the leaf held before and after. */
static PyObject *call_write(Mode *self, Op *op, Leaf *leaf, PyObject *function, PyObject *args, PyObject *kwargs)
{
    PyObject *tensor = PyTuple_GetItem(args, 0), *result = NULL;
    Buffer before = {0};
    Py_INCREF((PyObject *)leaf);
    PyObject *guard = quiet();
    int failed = !guard || read_before(self, op, leaf, tensor, &before) < 0;
    loud(guard);
    if (failed && hand_over_fault(self->fault) < 0) goto done;
    result = PyObject_Call(function, args, kwargs);
    if (!result || failed || self->paused) goto done;
    guard = quiet();
    failed = !guard || enter_write(self, op, leaf, tensor, &before) < 0;
    loud(guard);
    if (failed && hand_over_fault(self->fault) < 0) Py_CLEAR(result);
done:
    free(before.data);
    Py_DECREF((PyObject *)leaf);
    return result;
}

/* Call an Op's callbacks for a call that is over already. */
static PyObject *tell(PyObject *before, PyObject *after, PyObject *args, PyObject *result)
{
    PyObject *token = PyObject_CallFunctionObjArgs(before, args, Py_None, NULL);
    PyObject *done = token ? PyObject_CallFunctionObjArgs(after, token, result, Py_None, NULL) : NULL;
    Py_XDECREF(token);
    Py_XDECREF(done);
    if (done) return result;
    if (PyErr_ExceptionMatches(PyExc_Exception)) { PyErr_Clear(); return result; }
    Py_DECREF(result);
    return NULL;
}

static int is_tensor(PyObject *object)
{
    PyObject *type = (PyObject *)Py_TYPE(object);
    if (type == tensor_type || type == parameter_type) return 1;
    int answer = PyObject_IsInstance(object, tensor_type);
    if (answer < 0) PyErr_Clear(); /* an object may refuse to tell its class */
    return answer == 1;
}

/* Whether a tensor among these, or in a list or tuple among them, satisfies `test`; -1 on error. */
static int any_tensor(PyObject *objects, int (*test)(PyObject *), int depth)
{
    int is_tuple = PyTuple_Check(objects);
    /* a subclass of Tensor runs code of its own, which may shorten the list */
    for (Py_ssize_t i = 0; i < (is_tuple ? PyTuple_Size(objects) : PyList_Size(objects)); i++) {
        PyObject *object = Py_NewRef(is_tuple ? PyTuple_GetItem(objects, i) : PyList_GetItem(objects, i));
        int found = 0;
        if (depth && (PyTuple_Check(object) || PyList_Check(object))) found = any_tensor(object, test, 0);
        else if (is_tensor(object)) found = test(object);
        Py_DECREF(object);
        if (found) return found;
    }
    return 0;
}

static int requires_grad(PyObject *tensor) { return ask(tensor, s_requires_grad, 0); }
static int is_any(PyObject *tensor) { return 1; }

/* What an operation that made no node is to us: 0 nothing, 1 an event that names it, 2 for Python to
 * look into (it may have cut history, or ran where gradients are off), -1 on error. */
static int weigh_plain(Mode *self, PyObject *args, PyObject *kwargs, PyObject *result)
{
    PyObject *enabled = PyObject_CallNoArgs(grad_enabled_fn);
    if (!enabled) return -1;
    int off = enabled != Py_True;
    Py_DECREF(enabled);
    if (off) return self->stepping ? 0 : 2;
    int carries = any_tensor(args, requires_grad, 1);
    if (!carries && kwargs) {
        PyObject *values = PyDict_Values(kwargs);
        carries = values ? any_tensor(values, requires_grad, 1) : -1;
        Py_XDECREF(values);
    }
    if (carries) return carries < 0 ? -1 : 2;
    if (PyTuple_Check(result) || PyList_Check(result)) return any_tensor(result, is_any, 0);
    return is_tensor(result);
}

static int call_plain(Mode *self, Op *op, PyObject *args, PyObject *kwargs, PyObject *result, int64_t begin)
{
    int64_t site = find_site(self, NULL);
    if (site < 0) return -1;
    PyObject *done = PyObject_CallFunction(self->plain, "IOOOIKL", op->id, args, kwargs ? kwargs : Py_None, result,
                                           (unsigned int)site, (unsigned long long)++self->tape->seq,
                                           (long long)(begin - self->tape->origin));
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* What to do when this function is called: a new reference, or NULL with an exception. */
static Op *find_op(Mode *self, PyObject *function)
{
    PyObject *op = PyDict_GetItemWithError(self->ops, function);
    if (op) return (Op *)Py_NewRef(op);
    int has_hash = !PyErr_Occurred();
    if (!has_hash && !PyErr_ExceptionMatches(PyExc_Exception)) return NULL;
    PyErr_Clear();
    op = PyObject_CallFunctionObjArgs(self->describe, function, NULL);
    /* functions made anew for each call must not pile up */
    if (op && has_hash && PyDict_Size(self->ops) < MOST_OPS && PyDict_SetItem(self->ops, function, op) < 0)
        Py_CLEAR(op);
    return (Op *)op;
}

static PyObject *mode_torch_function(Mode *self, PyObject *all, PyObject *named)
{
    static char *names[] = {"func", "types", "args", "kwargs", NULL};
    PyObject *function, *types, *args = NULL, *kwargs = NULL;
    if (!PyArg_ParseTupleAndKeywords(all, named, "OO|OO", names, &function, &types, &args, &kwargs)) return NULL;
    if (kwargs == Py_None) kwargs = NULL;
    PyObject *own_args = args ? Py_NewRef(args) : PyTuple_New(0);
    if (own_args && !PyTuple_Check(own_args)) {
        PyObject *tuple = PySequence_Tuple(own_args);
        Py_DECREF(own_args);
        own_args = tuple;
    }
    if (!own_args) return NULL;
    PyObject *result = NULL;
    Op *op = NULL;
    if (self->paused) goto just_call;
    PyObject *out = kwargs ? PyDict_GetItemString(kwargs, "out") : NULL;
    if (out && out != Py_None) { /* it writes there, which it does not when called without */
        PyObject *pair = Py_BuildValue("(OO)", function, Py_True);
        op = pair ? find_op(self, pair) : NULL;
        Py_XDECREF(pair);
    } else {
        op = find_op(self, function);
    }
    if (!op) {
        if (hand_over_fault(self->fault) == 0) goto just_call;
        Py_DECREF(own_args);
        return NULL;
    }
    if (op->action == IGNORE) goto just_call;
    int64_t begin = clock_ns();
    long long low = call_int(sequence_fn);
    if (low < 0) PyErr_Clear();
    if (op->action == GET_GRAD) {
        /* nothing to tell unless somebody reads it of a tensor that is no leaf */
        result = PyObject_Call(function, own_args, kwargs);
        PyObject *tensor = PyTuple_Size(own_args) ? PyTuple_GetItem(own_args, 0) : NULL;
        if (result == Py_None && tensor && self->book && !find_leaf(self->book, tensor))
            result = tell(op->before, op->after, own_args, result);
        goto done;
    }
    Leaf *leaf = NULL;
    int simple = op->action == WRITE || op->action == SET_GRAD ? simple_write(self, op, own_args, kwargs, &leaf) : 0;
    if (simple < 0) PyErr_Clear();
    result = simple == 1 && leaf ? call_write(self, op, leaf, function, own_args, kwargs)
             : op->before && simple != 1 ? call_around(function, op->before, op->after, own_args, kwargs)
                                         : PyObject_Call(function, own_args, kwargs);
    if (!result || self->paused) goto done;
    long long high = call_int(sequence_fn);
    int failed = high < 0;
    if (simple == 1 && op->action == WRITE) {
        PyObject *guard = quiet();
        failed |= !guard || note_written(self, PyTuple_GetItem(own_args, 0), op->how) < 0;
        loud(guard);
    }
    if (high > low) {
        failed |= log_forward(self, op->id, low, high, ++self->tape->seq, begin) < 0;
    } else if (!failed && !op->before && op->action == OBSERVE) {
        PyObject *guard = quiet();
        int weight = guard ? weigh_plain(self, own_args, kwargs, result) : -1;
        if (weight == 1) failed = log_forward(self, op->id, 0, 0, ++self->tape->seq, begin) < 0;
        if (weight == 2) failed = call_plain(self, op, own_args, kwargs, result, begin) < 0;
        loud(guard);
        if (weight < 0) failed = 1;
    }
    if ((failed && hand_over_fault(self->fault) < 0) || spill(self->tape) < 0) Py_CLEAR(result);
    goto done;
just_call:
    result = PyObject_Call(function, own_args, kwargs);
done:
    Py_DECREF(own_args);
    Py_XDECREF((PyObject *)op);
    return result;
}

/* An operation that ran inside another one began later: the last to begin is asked first. */
static Made *find_made(MadeLog *log, uint64_t wanted)
{
    uint32_t low = 0, high = log->used;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (made_at(log, middle)->low <= wanted) low = middle + 1; else high = middle;
    }
    for (uint32_t back = 0; back < NESTED_MOST && back < low; back++)
        if (made_at(log, low - 1 - back)->high > wanted) return made_at(log, low - 1 - back);
    return NULL;
}

/* Sequence numbers are counted by thread, and a node does not tell its thread: the calling thread is
 * asked first. */
static Made *find_made_anywhere(Mode *self, int own, uint64_t wanted)
{
    Made *made = find_made(&self->made[own], wanted);
    for (int i = 0; !made && i < self->tape->n_threads; i++)
        if (i != own) made = find_made(&self->made[i], wanted);
    return made;
}

static PyObject *mode_made_by(Mode *self, PyObject *number)
{
    uint64_t wanted = PyLong_AsUnsignedLongLong(number);
    if (wanted == (uint64_t)-1) { PyErr_Clear(); Py_RETURN_NONE; }
    Made *made = find_made_anywhere(self, tape_thread(self->tape), wanted);
    if (!made) Py_RETURN_NONE;
    return Py_BuildValue("IIIIK", made->site, made->op, made->module, made->call, (unsigned long long)made->seq);
}

/* The system gives a new thread the identity of one that ended, and torch counts its nodes from 0: what
 * the old one made keeps its own place. */
static PyObject *mode_begin_thread(Mode *self, PyObject *unused)
{
    Tape *tape = self->tape;
    unsigned long ident = PyThread_get_thread_ident();
    for (int i = 0; i < tape->n_threads; i++)
        if (tape->threads[i] == ident) tape->threads[i] = 0;
    int thread = tape_thread(tape);
    self->made[thread].used = self->made[thread].start = 0;
    memset(&self->now[thread], 0, sizeof self->now[thread]);
    Py_RETURN_NONE;
}

static PyObject *mode_set_module(Mode *self, PyObject *args)
{
    int thread = tape_thread(self->tape);
    if (!PyArg_ParseTuple(args, "II", &self->now[thread].module, &self->now[thread].path)) return NULL;
    Py_RETURN_NONE;
}

static PyObject *mode_set_pass(Mode *self, PyObject *args)
{
    if (!PyArg_ParseTuple(args, "I", &self->now[tape_thread(self->tape)].pass)) return NULL;
    Py_RETURN_NONE;
}

static PyObject *mode_here(Mode *self, PyObject *unused)
{
    int64_t site = find_site(self, NULL);
    return site < 0 ? NULL : PyLong_FromLongLong(site);
}

static PyObject *mode_enter_made(Mode *self, PyObject *args)
{
    unsigned int op;
    long long low, high, begin;
    unsigned long long seq;
    if (!PyArg_ParseTuple(args, "ILLKL", &op, &low, &high, &seq, &begin)) return NULL;
    if (log_forward(self, op, low, high, seq, begin + self->tape->origin) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *mode_log_made(Mode *self, PyObject *args)
{
    unsigned long long low, high;
    unsigned int site, op, module, call;
    if (!PyArg_ParseTuple(args, "KKIIII", &low, &high, &site, &op, &module, &call)) return NULL;
    if (log_made(self, tape_thread(self->tape), (Made){low, high, 0, site, op, module, call}) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef mode_methods[] = {
    {"__torch_function__", (PyCFunction)(void (*)(void))mode_torch_function, METH_VARARGS | METH_KEYWORDS, NULL},
    {"made_by", (PyCFunction)mode_made_by, METH_O,
     "made_by(sequence_nr): (site, op, module, call, seq) of the operation that made a node, or None."},
    {"begin_thread", (PyCFunction)mode_begin_thread, METH_NOARGS, "The calling thread has just been started."},
    {"set_module", (PyCFunction)mode_set_module, METH_VARARGS, "set_module(id, path): what runs in this thread."},
    {"set_pass", (PyCFunction)mode_set_pass, METH_VARARGS, "set_pass(id): what runs in this thread, 0 for none."},
    {"log_forward", (PyCFunction)mode_enter_made, METH_VARARGS,
     "log_forward(op, low, high, seq, t_ns): record an operation that was seen another way."},
    {"log_made", (PyCFunction)mode_log_made, METH_VARARGS,
     "log_made(low, high, site, op, module, call): say what made nodes that no operation did."},
    {"note_written", (PyCFunction)mode_note_written, METH_VARARGS, "note_written(tensor, how): it was written to in place."},
    {"writes", (PyCFunction)mode_writes, METH_VARARGS,
     "writes(since=0): [(seq, address, version, how, site)] of the newest writes after that order number, in order."},
    {"here", (PyCFunction)mode_here, METH_NOARGS, "The id of the site of the nearest user frame, 0 for none."},
    {NULL},
};
static PyMemberDef mode_members[] = {
    {"book", T_OBJECT, offsetof(Mode, book), 0, NULL},
    {"ran", T_OBJECT, offsetof(Mode, ran), 0, NULL},
    {"stepping", T_UINT, offsetof(Mode, stepping), 0, NULL},
    {"round", T_UINT, offsetof(Mode, round), 0, NULL},
    {"paused", T_INT, offsetof(Mode, paused), 0, NULL},
    {"evicted", T_ULONGLONG, offsetof(Mode, evicted), READONLY, NULL},
    {NULL},
};
static PyType_Slot mode_slots[] = {
    {Py_tp_doc, "The __torch_function__ of a TorchFunctionMode, in C."},
    {Py_tp_new, mode_new}, {Py_tp_dealloc, mode_dealloc}, {Py_tp_traverse, mode_traverse},
    {Py_tp_clear, mode_clear}, {Py_tp_methods, mode_methods}, {Py_tp_members, mode_members}, {0, NULL},
};
static PyType_Spec mode_spec = {
    "tracer.capture._core.ModeCore", sizeof(Mode), 0, COLLECTED | Py_TPFLAGS_BASETYPE, mode_slots};

#include "_overrides.h"

static PyObject *leaf_probe_type, *node_probe_type;

static int add_sink(NodeProbe *probe, uint32_t slot, LeafProbe *leaf)
{
    Sink *sinks = realloc(probe->sinks, (probe->n_sinks + 1) * sizeof *sinks);
    if (!sinks) { PyErr_NoMemory(); return -1; }
    probe->sinks = sinks;
    sinks[probe->n_sinks++] = (Sink){slot, Py_NewRef((PyObject *)leaf), &leaf->sent};
    return 0;
}

#include "_walk.h"

/* ---------------------------------------------------------------- module */

static int find_exchange(PyObject *capsule)
{
    exchange = NULL;
    if (capsule == Py_None) return 0;
    const Exchange *found = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    if (!found) return -1;
    if (found->major == 1 && found->borrow) exchange = found;
    return 0;
}

static PyObject *core_setup(PyObject *module, PyObject *args)
{
    PyObject **places[] = {&tensor_type, &parameter_type, &strided, &task_id_fn, &sequence_fn, &grad_enabled_fn,
                           &hook_dict, &register_theirs, &disable_torch_function};
    enum { KNOWN = sizeof places / sizeof *places };
    PyObject *given[KNOWN], *codes, *capsule = Py_None;
    if (!PyArg_ParseTuple(args, "OOOOOOOOOO!|O", &given[0], &given[1], &given[2], &given[3], &given[4], &given[5],
                          &given[6], &given[7], &given[8], &PyDict_Type, &codes, &capsule))
        return NULL;
    if (find_exchange(capsule) < 0) return NULL;
    for (int i = 0; i < KNOWN; i++) *places[i] = Py_NewRef(given[i]); /* for as long as the process lives */
    PyObject *dtype, *code;
    Py_ssize_t at = 0;
    n_dtypes = 0;
    while (n_dtypes < 16 && PyDict_Next(codes, &at, &dtype, &code)) {
        dtypes[n_dtypes].code = (int)PyLong_AsLong(code);
        if (PyErr_Occurred()) return NULL;
        dtypes[n_dtypes++].dtype = Py_NewRef(dtype);
    }
    Py_RETURN_NONE;
}

static PyMethodDef core_methods[] = {
    {"setup", core_setup, METH_VARARGS,
     "setup(Tensor, Parameter, strided, task_id, sequence_nr, is_grad_enabled, hook_dict,\n"
     "_register_hook, DisableTorchFunction, {dtype: code}, exchange=None)"},
    {"walk", core_walk, METH_VARARGS, "walk(mode, roots, signatures): the graph below the roots."},
    {"attach", core_attach, METH_VARARGS, "attach(state, book, fns, same, links, custom, leaves, begun, ended, wanted=b'')"},
    {"detach", core_detach, METH_VARARGS, "detach(state, dicts, fns): take a pass's probes out of them."},
    {"register_hook", register_hook, METH_VARARGS, "Stands in for _HookMixin._register_hook."},
    {NULL},
};
static struct PyModuleDef core_module = {PyModuleDef_HEAD_INIT, "_core", NULL, -1, core_methods};

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *module = PyModule_Create(&core_module);
    if (!module) return NULL;
    choose_blocks();
    s_dtype = PyUnicode_InternFromString("dtype");
    s_layout = PyUnicode_InternFromString("layout");
    s_is_cpu = PyUnicode_InternFromString("is_cpu");
    s_is_nested = PyUnicode_InternFromString("is_nested");
    s_stride = PyUnicode_InternFromString("stride");
    s_data_ptr = PyUnicode_InternFromString("data_ptr");
    s_is_neg = PyUnicode_InternFromString("is_neg");
    s_is_conj = PyUnicode_InternFromString("is_conj");
    s_f_back = PyUnicode_InternFromString("f_back");
    s_f_lasti = PyUnicode_InternFromString("f_lasti");
    s_enter = PyUnicode_InternFromString("__enter__");
    s_exit = PyUnicode_InternFromString("__exit__");
    s_cdata = PyUnicode_InternFromString("_cdata");
    s_version = PyUnicode_InternFromString("_version");
    s_grad = PyUnicode_InternFromString("grad");
    s_requires_grad = PyUnicode_InternFromString("requires_grad");
    s_is_leaf = PyUnicode_InternFromString("is_leaf");
    s_is_view = PyUnicode_InternFromString("_is_view");
    s_next_functions = PyUnicode_InternFromString("next_functions");
    s_sequence_nr = PyUnicode_InternFromString("_sequence_nr");
    s_input_metadata = PyUnicode_InternFromString("_input_metadata");
    s_shape = PyUnicode_InternFromString("shape");
    s_variable = PyUnicode_InternFromString("variable");
    s_register_prehook = PyUnicode_InternFromString("register_prehook");
    s_register_hook = PyUnicode_InternFromString("register_hook");
    struct { const char *name; PyType_Spec *spec; } types[] = {
        {"Around", &around_spec}, {"Tape", &tape_spec}, {"PassState", &state_spec},
        {"NodeProbe", &probe_spec}, {"Op", &op_spec}, {"ModeCore", &mode_spec},
        {"Leaf", &leaf_spec}, {"Book", &book_spec}, {"LeafProbe", &leaf_probe_spec},
        {"Unoverridden", &unoverridden_spec},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        PyObject *type = PyType_FromSpec(types[i].spec);
        if (!type || PyModule_AddObject(module, types[i].name, type) < 0) return NULL;
        if (types[i].spec == &probe_spec) node_probe_type = type;
        if (types[i].spec == &leaf_probe_spec) leaf_probe_type = type;
    }
    return module;
}
