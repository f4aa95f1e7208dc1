/* ---------------------------------------------------------------- Unoverridden */

/* Stands in for one of PyTorch's `has_torch_function`, and answers as if our mode were not there.
 *
 * Functions written in Python ask it first. Answered yes, they call themselves again through frames
 * of torch/overrides.py, and a warning that counts frames names another line than the user's; and
 * attention leaves its fast path, which rounds differently. Answered no, they run as they do
 * untraced, and the mode sees the operations that they are made of. */
typedef struct { PyObject_HEAD PyObject *function, *mode; } Unoverridden;

static int unoverridden_traverse(Unoverridden *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->function);
    Py_VISIT(self->mode);
    return 0;
}

static int unoverridden_clear(Unoverridden *self)
{
    Py_CLEAR(self->function);
    Py_CLEAR(self->mode);
    return 0;
}

static void unoverridden_dealloc(PyObject *self) { free_object(self, (inquiry)unoverridden_clear); }

static PyObject *unoverridden_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"function", "mode", NULL};
    PyObject *function, *mode;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO", names, &function, &mode)) return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Unoverridden *self = (Unoverridden *)make(type, 0);
    if (!self) return NULL;
    self->function = Py_NewRef(function);
    self->mode = Py_NewRef(mode);
    return (PyObject *)self;
}

/* How many modes the thread has, if ours is the innermost of them; else 0; -1 on error. */
static long long modes_up_to_ours(PyObject *mode)
{
    long long count = number_in(call(&count_modes));
    if (count <= 0) return count;
    PyObject *top = call(&pop_mode), *back = top ? call1(&push_mode, top) : NULL; /* which is half of what asking takes */
    Py_XDECREF(top);
    Py_XDECREF(back);
    return !back ? -1 : top == mode ? count : 0;
}

/* Whether these are tensors as PyTorch makes them, numbers, None, or lists and tuples of such. */
static int are_plain(PyObject *objects, int depth)
{
    int is_tuple = PyTuple_Check(objects);
    Py_ssize_t size = is_tuple ? PyTuple_Size(objects) : PyList_Size(objects);
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *object = is_tuple ? PyTuple_GetItem(objects, i) : PyList_GetItem(objects, i);
        if (object == Py_None || PyLong_CheckExact(object) || PyFloat_CheckExact(object) || is_plain_tensor(object)) continue;
        if (!depth || !(PyTuple_CheckExact(object) || PyList_CheckExact(object))) return 0;
        if (!are_plain(object, depth - 1)) return 0;
    }
    return 1;
}

static PyObject *unoverridden_call(Unoverridden *self, PyObject *args, PyObject *kwargs)
{
    long long modes = modes_up_to_ours(self->mode);
    if (modes < 0) return NULL;
    if (!modes) return PyObject_Call(self->function, args, kwargs);
    if (modes == 1 && are_plain(args, 1)) Py_RETURN_FALSE;
    PyObject *popped = call(&pop_mode);
    if (!popped) return NULL;
    PyObject *answer = PyObject_Call(self->function, args, kwargs);
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *pushed = call1(&push_mode, popped);
    Py_DECREF(popped);
    if (pushed) PyErr_Restore(type, value, trace); else Py_CLEAR(answer);
    Py_XDECREF(pushed);
    return answer;
}

static PyObject *unoverridden_getattr(PyObject *self, PyObject *name)
{
    PyObject *function = ((Unoverridden *)self)->function;
    return function ? PyObject_GetAttr(function, name) : PyObject_GenericGetAttr(self, name);
}

static PyType_Slot unoverridden_slots[] = {
    {Py_tp_doc, "Unoverridden(has_torch_function, mode): answers as if without the mode."},
    {Py_tp_new, unoverridden_new}, {Py_tp_dealloc, unoverridden_dealloc}, {Py_tp_call, unoverridden_call},
    {Py_tp_traverse, unoverridden_traverse}, {Py_tp_clear, unoverridden_clear},
    {Py_tp_getattro, unoverridden_getattr}, {0, NULL},
};
static PyType_Spec unoverridden_spec = {
    "tracer.capture._core.Unoverridden", sizeof(Unoverridden), 0, COLLECTED, unoverridden_slots};
