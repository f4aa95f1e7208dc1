/* The parts of capture that run for every operation and every node, without a Python frame.
 *
 * A Python function between the user's line and PyTorch would take the user's place in warnings
 * and tracebacks, and costs a microsecond; a C callable does neither. Limited API 3.10, no torch
 * headers: tensors are read through what PyTorch gives Python for it.
 *
 * In the order in which they are included:
 *
 * _statistics.h  what a tensor's memory holds, read once
 * _torch.h       what we know of torch, and how it is called
 * _around.h      Around: a function between two Python callbacks
 * _views.h       where a tensor's elements lie
 * _tape.h        Tape: the buffer of packed frames, its order numbers and its clock
 * _probes.h      PassState and NodeProbe: the prehook and posthook of one node
 * _leaves.h      Book, Leaf and LeafProbe: what becomes of a leaf's `.grad` and values
 * _sites.h       which line runs, and which operation made which nodes
 * _writes.h      operations that write to leaves
 * _cuts.h        what takes the history of a leaf away
 * _mode.h        ModeCore: the entry point of a TorchFunctionMode
 * _modules.h     ModuleStack: which `nn.Module` runs, and which of its calls
 * _overrides.h   Unoverridden: answers PyTorch as if our mode were not there
 * _modeless.h    Modeless: a function that runs while our mode is off
 * _attributes.h  Attribute and Method: those of tensors, which do for our mode what PyTorch would ask of it
 * _runs.h        RunCount: how many runs were entered, and which pass runs where the caller is
 * _door.h        RunBackward: the recording of an engine run
 * _walk.h        the walk over a graph before a pass, and a probe on each of its nodes
 *
 * What is here: what is asked everywhere, growing buffers, and the module. docs/internals.md says why the
 * core is built as it is, and where the time goes.
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
#include <process.h>
#else
#include <time.h>
#include <unistd.h>
#endif

enum { KIND_FORWARD = 1, KIND_NODE = 7, KIND_ACCUMULATE = 9, KIND_GRAD_WRITE = 10, KIND_DATA_WRITE = 11 };
enum { ENTRY_NONE = 0, ENTRY_SAME = 1, ENTRY_STATS = 2, ENTRY_VALUES = 3, ENTRY_PARTIAL = 5, ENTRY_RECEIVED = 6,
       ENTRY_MANY = 7, ENTRY_UNASKED = 8 };
enum { SPILL = 1 << 20, THREADS = 256, TOO_MANY = THREADS - 1 };
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

static PyObject *s_dtype, *s_device, *s_shape, *s_stride, *s_f_back, *s_f_lasti, *s_enter, *s_exit, *s_initialized, *s_out;

#include "_torch.h"

/* ---------------------------------------------------------------- what is asked everywhere */

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

static long own_pid(void)
{
#ifdef _WIN32
    return _getpid();
#else
    return getpid();
#endif
}

/* Whether a CUDA graph is being captured: whatever is read then, it would replay each time. */
static int is_capturing(void)
{
    int can = truth_of(PyObject_GetAttr(cuda, s_initialized));
    return can < 1 ? can : truth_of(call(&is_capturing_stream));
}

/* ---------------------------------------------------------------- growing buffers */

typedef struct { char *data; Py_ssize_t used, room; } Buffer;

static int reserve(Buffer *buffer, Py_ssize_t more)
{
    if (buffer->used + more <= buffer->room) return 0;
    Py_ssize_t room = buffer->room ? buffer->room : 64; /* an entry of statistics */
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

#include "_around.h"
#include "_views.h"
#include "_tape.h"
#include "_probes.h"
#include "_leaves.h"
#include "_sites.h"
#include "_writes.h"
#include "_cuts.h"
#include "_mode.h"
#include "_modules.h"
#include "_overrides.h"
#include "_modeless.h"
#include "_attributes.h"
#include "_runs.h"

static PyObject *leaf_probe_type, *node_probe_type;

#include "_walk.h"
#include "_door.h"

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
    PyObject *task, *sequence, *enabled;
    PyObject **places[] = {&tensor_type, &parameter_type, &strided, &task, &sequence, &enabled,
                           &hook_dict, &register_theirs, &disable_torch_function};
    enum { KNOWN = sizeof places / sizeof *places };
    PyObject *given[KNOWN], *codes, *capsule = Py_None;
    if (!PyArg_ParseTuple(args, "OOOOOOOOOO!|O", &given[0], &given[1], &given[2], &given[3], &given[4], &given[5],
                          &given[6], &given[7], &given[8], &PyDict_Type, &codes, &capsule))
        return NULL;
    if (find_exchange(capsule) < 0) return NULL;
    for (int i = 0; i < KNOWN; i++) *places[i] = Py_NewRef(given[i]); /* for as long as the process lives */
    know_function(&task_id, task);
    know_function(&sequence_nr, sequence);
    know_function(&grad_enabled, enabled);
    if (find_in_torch() < 0) return NULL;
    asks_layout = strided != in_torch("strided"); /* who would have none read is asked first */
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

static PyObject *core_read_with(PyObject *module, PyObject *number)
{
    long threads = PyLong_AsLong(number);
    if (threads == -1 && PyErr_Occurred()) return NULL;
    reading_threads = threads < 1 ? 1 : threads < THREADS_MOST ? (int)threads : THREADS_MOST;
    Py_RETURN_NONE;
}

static PyMethodDef core_methods[] = {
    {"setup", core_setup, METH_VARARGS,
     "setup(Tensor, Parameter, strided, task_id, sequence_nr, is_grad_enabled, hook_dict,\n"
     "_register_hook, DisableTorchFunction, {dtype: code}, exchange=None)"},
    {"read_with", core_read_with, METH_O, "read_with(threads): have so many read a large tensor together."},
    {"walk", core_walk, METH_VARARGS, "walk(mode, roots, signatures, hides=False): the graph below the roots."},
    {"attach", core_attach, METH_VARARGS, "attach(state, book, fns, same, links, natures, leaves, begun, ended, wanted=b'')"},
    {"detach", core_detach, METH_VARARGS, "detach(state, dicts, fns): take a pass's probes out of them, and let go of its nodes."},
    {"let_go", core_let_go, METH_VARARGS, "let_go(fns): let go of the nodes of a walk that leads to no pass."},
    {"enter_pass", core_enter_pass, METH_O, "enter_pass(number): have what runs from here on, engine included, belong to a pass, or None."},
    {"pass_here", core_pass_here, METH_NOARGS, "The number of the pass that runs where the caller is, or None."},
    {"register_hook", (PyCFunction)(void (*)(void))register_hook, METH_FASTCALL, "Stands in for _HookMixin._register_hook."},
    {NULL},
};
static struct PyModuleDef core_module = {PyModuleDef_HEAD_INIT, "_core", NULL, -1, core_methods};

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *module = PyModule_Create(&core_module);
    if (!module) return NULL;
    choose_blocks();
    s_device = PyUnicode_InternFromString("device");
    s_dtype = PyUnicode_InternFromString("dtype");
    s_stride = PyUnicode_InternFromString("stride");
    s_f_back = PyUnicode_InternFromString("f_back");
    s_f_lasti = PyUnicode_InternFromString("f_lasti");
    s_enter = PyUnicode_InternFromString("__enter__");
    s_exit = PyUnicode_InternFromString("__exit__");
    s_out = PyUnicode_InternFromString("out");
    s_initialized = PyUnicode_InternFromString("_initialized");
    s_look = PyUnicode_InternFromString("look");
    s_take_over = PyUnicode_InternFromString("take_over");
    s_inputs_text = PyUnicode_InternFromString("inputs_text");
    s_backward = PyUnicode_InternFromString("backward");
    s_grad = PyUnicode_InternFromString("grad");
    s_accumulate_grad = PyUnicode_InternFromString("accumulate_grad");
    s_tracer_pass = PyUnicode_InternFromString("tracer pass");
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
        {"ModuleCall", &call_spec}, {"ModulePath", &path_spec}, {"ModuleStack", &stack_spec},
        {"Unoverridden", &unoverridden_spec}, {"Attribute", &attribute_spec}, {"Method", &method_spec}, {"RunCount", &count_spec}, {"RunBackward", &door_spec},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        PyObject *type = PyType_FromSpec(types[i].spec);
        if (!type || PyModule_AddObject(module, types[i].name, type) < 0) return NULL;
        if (types[i].spec == &around_spec) {
            PyObject *modeless = PyType_FromSpecWithBases(&modeless_spec, type);
            if (!modeless || PyModule_AddObject(module, "Modeless", modeless) < 0) return NULL;
        }
        if (types[i].spec == &state_spec) pass_state_type = type;
        if (types[i].spec == &probe_spec) node_probe_type = type;
        if (types[i].spec == &leaf_probe_spec) leaf_probe_type = type;
    }
    return module;
}
