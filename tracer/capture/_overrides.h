/* ---------------------------------------------------------------- Unoverridden */

/* Stands in for one of PyTorch's `has_torch_function`, and answers as if our mode were not there.
 *
 * Functions written in Python ask it first. Answered yes, they call themselves again through frames
 * of torch/overrides.py, and a warning that counts frames names another line than the user's; and
 * attention leaves its fast path, which rounds differently. Answered no, they run as they do
 * untraced, and the mode sees the operations that they are made of. */
typedef struct { PyObject_HEAD PyObject *function, *mode, *count, *at, *pop, *push; } Unoverridden;

static int unoverridden_traverse(Unoverridden *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->function);
    Py_VISIT(self->mode);
    Py_VISIT(self->count);
    Py_VISIT(self->at);
    Py_VISIT(self->pop);
    Py_VISIT(self->push);
    return 0;
}

static int unoverridden_clear(Unoverridden *self)
{
    Py_CLEAR(self->function);
    Py_CLEAR(self->mode);
    Py_CLEAR(self->count);
    Py_CLEAR(self->at);
    Py_CLEAR(self->pop);
    Py_CLEAR(self->push);
    return 0;
}

static void unoverridden_dealloc(PyObject *self) { free_object(self, (inquiry)unoverridden_clear); }

static PyObject *unoverridden_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"function", "mode", "count", "at", "pop", "push", NULL};
    PyObject *function, *mode, *count, *at, *pop, *push;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOO", names, &function, &mode, &count, &at, &pop, &push))
        return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Unoverridden *self = (Unoverridden *)make(type, 0);
    if (!self) return NULL;
    self->function = Py_NewRef(function);
    self->mode = Py_NewRef(mode);
    self->count = Py_NewRef(count);
    self->at = Py_NewRef(at);
    self->pop = Py_NewRef(pop);
    self->push = Py_NewRef(push);
    return (PyObject *)self;
}

/* How many modes the thread has, if ours is the innermost of them; else 0; -1 on error. */
static long long modes_up_to_ours(Unoverridden *self)
{
    long long count = call_int(self->count);
    if (count <= 0) return count;
    PyObject *top = PyObject_CallFunction(self->at, "L", count - 1);
    Py_XDECREF(top);
    return !top ? -1 : top == self->mode ? count : 0;
}

/* Whether these are tensors as PyTorch makes them, None, or lists and tuples of such. */
static int are_plain(PyObject *objects, int depth)
{
    int is_tuple = PyTuple_Check(objects);
    Py_ssize_t size = is_tuple ? PyTuple_Size(objects) : PyList_Size(objects);
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *object = is_tuple ? PyTuple_GetItem(objects, i) : PyList_GetItem(objects, i);
        PyObject *type = (PyObject *)Py_TYPE(object);
        if (object == Py_None || type == tensor_type || type == parameter_type) continue;
        if (!depth || !(PyTuple_CheckExact(object) || PyList_CheckExact(object))) return 0;
        if (!are_plain(object, depth - 1)) return 0;
    }
    return 1;
}

static PyObject *unoverridden_call(Unoverridden *self, PyObject *args, PyObject *kwargs)
{
    long long modes = modes_up_to_ours(self);
    if (modes < 0) return NULL;
    if (!modes) return PyObject_Call(self->function, args, kwargs);
    if (modes == 1 && are_plain(args, 1)) Py_RETURN_FALSE;
    PyObject *popped = PyObject_CallNoArgs(self->pop);
    if (!popped) return NULL;
    PyObject *answer = PyObject_Call(self->function, args, kwargs);
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *pushed = PyObject_CallFunctionObjArgs(self->push, popped, NULL);
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
    {Py_tp_doc, "Unoverridden(has_torch_function, mode, count, at, pop, push): answers as if without mode."},
    {Py_tp_new, unoverridden_new}, {Py_tp_dealloc, unoverridden_dealloc}, {Py_tp_call, unoverridden_call},
    {Py_tp_traverse, unoverridden_traverse}, {Py_tp_clear, unoverridden_clear},
    {Py_tp_getattro, unoverridden_getattr}, {0, NULL},
};
static PyType_Spec unoverridden_spec = {
    "tracer.capture._core.Unoverridden", sizeof(Unoverridden), 0, COLLECTED, unoverridden_slots};
