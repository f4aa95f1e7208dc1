/* Modeless: an Around whose function runs while our mode is off. Included by _core.c.
 *
 * Where our mode is the topmost and watches before and after, or is not the topmost and was not left off for
 * later, what the two callbacks would do is done here. */

typedef struct { Around around; Mode *mode; PyObject *taken_off; } Modeless;

static int modeless_traverse(Modeless *self, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)self->mode);
    Py_VISIT(self->taken_off);
    return around_traverse(&self->around, visit, arg);
}

static int modeless_clear(Modeless *self)
{
    Py_CLEAR(self->mode);
    Py_CLEAR(self->taken_off);
    return around_clear(&self->around);
}

static void modeless_dealloc(PyObject *self) { free_object(self, (inquiry)modeless_clear); }

static PyObject *modeless_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *function, *before, *after, *mode, *taken_off;
    if (!PyArg_ParseTuple(args, "OOOOO!", &function, &before, &after, &mode, &PyDict_Type, &taken_off)) return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Modeless *self = (Modeless *)make(type, 0);
    if (!self) return NULL;
    self->around = (Around){self->around.ob_base, Py_NewRef(function), Py_NewRef(before), Py_NewRef(after)};
    self->mode = (Mode *)Py_NewRef(mode);
    self->taken_off = Py_NewRef(taken_off);
    return (PyObject *)self;
}

static int watches(Modeless *self) { return !self->mode->paused && !PyDict_Size(self->taken_off); }

/* Take the mode off: 1, or 0 where it is not the topmost; -1 with an exception, and it stays on. */
static int take_off(Mode *mode)
{
    long long modes = number_in(call(&count_modes));
    PyObject *top = modes > 0 ? call(&pop_mode) : NULL;
    int taken = top == (PyObject *)mode;
    PyObject *back = top && !taken ? call1(&push_mode, top) : Py_NewRef(Py_None);
    Py_XDECREF(top);
    Py_XDECREF(back);
    return modes < 0 || (modes && !top) || !back ? -1 : taken;
}

/* What `after` does where it need not look further. */
static int put_back(Modeless *self, int taken, PyObject *result, PyObject *error)
{
    PyObject *done;
    if (!watches(self)) done = PyObject_CallFunction(self->around.after, "OOO", taken ? Py_True : Py_False, result, error);
    else if (taken) done = call1(&push_mode, (PyObject *)self->mode);
    else return 0;
    Py_XDECREF(done);
    if (done) return 0;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    PyErr_Clear();
    return 0;
}

static PyObject *modeless_call(Modeless *self, PyObject *args, PyObject *kwargs)
{
    int taken = watches(self) ? take_off(self->mode) : -1;
    if (taken < 0) {
        PyErr_Clear();
        return around_call(&self->around, args, kwargs);
    }
    PyObject *result = PyObject_Call(self->around.function, args, kwargs), *type = NULL, *value = NULL, *trace = NULL;
    if (!result) {
        PyErr_Fetch(&type, &value, &trace);
        PyErr_NormalizeException(&type, &value, &trace);
    }
    int interrupted = put_back(self, taken, result ? result : Py_None, value ? value : Py_None) < 0;
    if (!result) {
        PyErr_Clear();
        PyErr_Restore(type, value, trace);
    } else if (interrupted) {
        Py_CLEAR(result);
    }
    return result;
}

static PyType_Slot modeless_slots[] = {
    {Py_tp_doc, "Modeless(function, before, after, mode, taken_off): call function while the mode is off."},
    {Py_tp_new, modeless_new}, {Py_tp_dealloc, modeless_dealloc}, {Py_tp_call, modeless_call},
    {Py_tp_traverse, modeless_traverse}, {Py_tp_clear, modeless_clear}, {0, NULL},
};
static PyType_Spec modeless_spec = {"tracer.capture._core.Modeless", sizeof(Modeless), 0, COLLECTED, modeless_slots};
