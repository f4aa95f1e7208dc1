/* Attribute and Method: those of tensors, which do for our mode what PyTorch's own would ask of it.
 * Included by _core.c.
 *
 * While a function mode is on, each `x.grad` and each `x - y` costs 2 to 3 µs: PyTorch looks the function up
 * that stands for it by name, and calls the mode with it. Code that trains does that a few times for each
 * parameter. Where our mode is the topmost that round is spared: it is taken off, what it would have done is
 * done, and it is put on again. Asked of the class, both answer with PyTorch's own, which is what modes are
 * called with. */

/* Take our mode off, as PyTorch does before it calls it: 1; 0 where PyTorch must have its way. */
static int steps_aside(Mode *mode)
{
    PyObject *enabled = call(&mode_enabled);
    Py_XDECREF(enabled);
    PyObject *top = enabled == Py_True ? call(&pop_mode) : NULL;
    if (top && top != (PyObject *)mode) {
        PyObject *back = call1(&push_mode, top);
        Py_DECREF(top);
        if (back) top = NULL;
        Py_XDECREF(back);
    }
    Py_XDECREF(top);
    PyErr_Clear();
    return top != NULL;
}

/* Put it on again; takes and returns the result. */
static PyObject *steps_back(Mode *mode, PyObject *result)
{
    PyObject *type = NULL, *value, *trace;
    if (!result) PyErr_Fetch(&type, &value, &trace);
    PyObject *back = call1(&push_mode, (PyObject *)mode);
    if (!back) PyErr_Clear();
    Py_XDECREF(back);
    if (!result) PyErr_Restore(type, value, trace);
    return result;
}

/* ---------------------------------------------------------------- Attribute */

enum { READ = 0, READ_GRAD = 1, READ_DATA = 2 };

typedef struct {
    PyObject_HEAD
    PyObject *original;        /* PyTorch's own descriptor */
    PyObject *getter, *setter; /* its __get__ and __set__, as modes are given them */
    Mode *mode;
    int tells;                 /* what reading it may tell of: READ, READ_GRAD or READ_DATA */
    descrgetfunc get;          /* what the original does */
    descrsetfunc set;
} Attribute;

static int attribute_traverse(Attribute *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->original);
    Py_VISIT(self->getter);
    Py_VISIT(self->setter);
    Py_VISIT((PyObject *)self->mode);
    return 0;
}

static int attribute_clear(Attribute *self)
{
    Py_CLEAR(self->original);
    Py_CLEAR(self->getter);
    Py_CLEAR(self->setter);
    Py_CLEAR(self->mode);
    return 0;
}

static void attribute_dealloc(PyObject *self) { free_object(self, (inquiry)attribute_clear); }

static PyObject *attribute_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"original", "mode", "tells", NULL};
    PyObject *original, *mode;
    int tells = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O|i", names, &PyGetSetDescr_Type, &original, &mode, &tells)) return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Attribute *self = (Attribute *)make(type, 0);
    if (!self) return NULL;
    self->original = Py_NewRef(original);
    self->mode = (Mode *)Py_NewRef(mode);
    self->tells = tells;
    self->get = (descrgetfunc)PyType_GetSlot(&PyGetSetDescr_Type, Py_tp_descr_get);
    self->set = (descrsetfunc)PyType_GetSlot(&PyGetSetDescr_Type, Py_tp_descr_set);
    self->getter = PyObject_GetAttrString(original, "__get__");
    self->setter = PyObject_GetAttrString(original, "__set__");
    if (!self->getter || !self->setter) Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *attribute_get(Attribute *self, PyObject *tensor, PyObject *type)
{
    if (!tensor || !steps_aside(self->mode)) return self->get(self->original, tensor, type);
    if (self->tells == READ || self->mode->paused) return steps_back(self->mode, self->get(self->original, tensor, type));
    if (self->tells == READ_GRAD) {
        PyObject *grad = self->get(self->original, tensor, type);
        return steps_back(self->mode, grad == Py_None ? tell_of_none(self->mode, self->getter, tensor, grad) : grad);
    }
    PyObject *args = PyTuple_Pack(1, tensor);
    PyObject *result = args ? mode_run(self->mode, self->getter, self->getter, args, NULL) : NULL;
    Py_XDECREF(args);
    return steps_back(self->mode, result);
}

static int attribute_set(Attribute *self, PyObject *tensor, PyObject *value)
{
    if (!value || !steps_aside(self->mode)) return self->set(self->original, tensor, value);
    PyObject *args = PyTuple_Pack(2, tensor, value);
    PyObject *result = args ? mode_run(self->mode, self->setter, self->setter, args, NULL) : NULL;
    Py_XDECREF(args);
    steps_back(self->mode, result);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static PyObject *attribute_getattr(PyObject *self, PyObject *name)
{
    PyObject *original = ((Attribute *)self)->original;
    return original ? PyObject_GetAttr(original, name) : PyObject_GenericGetAttr(self, name);
}

static PyType_Slot attribute_slots[] = {
    {Py_tp_doc, "Attribute(original, mode, tells=0): an attribute of tensors, read and set as under the mode; reading may\n"
                 "tell of nothing (0), of a `.grad` that is None (1), or of a cut (2)."},
    {Py_tp_new, attribute_new}, {Py_tp_dealloc, attribute_dealloc}, {Py_tp_traverse, attribute_traverse},
    {Py_tp_clear, attribute_clear}, {Py_tp_getattro, attribute_getattr}, {Py_tp_descr_get, attribute_get},
    {Py_tp_descr_set, attribute_set}, {0, NULL},
};
static PyType_Spec attribute_spec = {"tracer.capture._core.Attribute", sizeof(Attribute), 0, COLLECTED, attribute_slots};

/* ---------------------------------------------------------------- Method */

/* Of `x += y`, `original` is `__iadd__` and `known_as` what PyTorch calls modes with, `add_`. */
typedef struct { PyObject_HEAD PyObject *original, *known_as; Mode *mode; descrgetfunc bind; } Method;

static int method_traverse(Method *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->original);
    Py_VISIT(self->known_as);
    Py_VISIT((PyObject *)self->mode);
    return 0;
}

static int method_clear(Method *self)
{
    Py_CLEAR(self->original);
    Py_CLEAR(self->known_as);
    Py_CLEAR(self->mode);
    return 0;
}

static void method_dealloc(PyObject *self) { free_object(self, (inquiry)method_clear); }

static PyObject *method_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"original", "mode", "known_as", NULL};
    PyObject *original, *mode, *known_as;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OO", names, &PyMethodDescr_Type, &original, &mode, &known_as)) return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Method *self = (Method *)make(type, 0);
    if (!self) return NULL;
    self->original = Py_NewRef(original);
    self->known_as = Py_NewRef(known_as);
    self->mode = (Mode *)Py_NewRef(mode);
    self->bind = (descrgetfunc)PyType_GetSlot(&PyMethodDescr_Type, Py_tp_descr_get);
    return (PyObject *)self;
}

/* Python calls a method without binding it first: the tensor is the first argument. */
static PyObject *method_call(Method *self, PyObject *args, PyObject *kwargs)
{
    if (!steps_aside(self->mode)) return PyObject_Call(self->original, args, kwargs);
    return steps_back(self->mode, mode_run(self->mode, self->known_as, self->original, args, kwargs));
}

static PyObject *method_bind(Method *self, PyObject *tensor, PyObject *type)
{
    return self->bind(self->original, tensor, type);
}

static PyObject *method_getattr(PyObject *self, PyObject *name)
{
    PyObject *original = ((Method *)self)->original;
    return original ? PyObject_GetAttr(original, name) : PyObject_GenericGetAttr(self, name);
}

static PyType_Slot method_slots[] = {
    {Py_tp_doc, "Method(original, mode, known_as): a method of tensors, called as under the mode."},
    {Py_tp_new, method_new}, {Py_tp_dealloc, method_dealloc}, {Py_tp_traverse, method_traverse},
    {Py_tp_clear, method_clear}, {Py_tp_call, method_call}, {Py_tp_getattro, method_getattr},
    {Py_tp_descr_get, method_bind}, {0, NULL},
};
static PyType_Spec method_spec = {"tracer.capture._core.Method", sizeof(Method), 0,
                                  COLLECTED | Py_TPFLAGS_METHOD_DESCRIPTOR, method_slots};
