/* Around: calls a function between two Python callbacks, with no frame of its own. Included by _core.c. */

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
    "tracer.capture._core.Around", sizeof(Around), 0, COLLECTED | Py_TPFLAGS_BASETYPE, around_slots};
