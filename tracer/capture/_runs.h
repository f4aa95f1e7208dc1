/* RunCount: how many runs of the engine were entered through Python; and which pass runs where the caller is.
 * Included by _core.c. */

typedef struct {
    PyObject_HEAD
    long long entered, inside, alone;
    long long first;             /* the number of the first run that is known, -1 while there is none */
    long long entered_by_first;
} RunCount;

static PyObject *s_tracer_pass;

static void run_enters(RunCount *self)
{
    self->entered++;
    self->inside++;
    self->alone = self->inside == 1 ? self->entered : 0;
}

static void run_began(RunCount *self, long long task)
{
    if (self->first >= 0 || self->inside != 1 || self->alone != self->entered) return;
    self->first = task;
    self->entered_by_first = self->entered;
}

static PyObject *count_enter(RunCount *self, PyObject *unused) { run_enters(self); Py_RETURN_NONE; }

static PyObject *count_leave(RunCount *self, PyObject *unused) { self->inside--; Py_RETURN_NONE; }

static PyObject *count_began(RunCount *self, PyObject *number)
{
    long long task = PyLong_AsLongLong(number);
    if (task == -1 && PyErr_Occurred()) return NULL;
    run_began(self, task);
    Py_RETURN_NONE;
}

static PyObject *count_forget(RunCount *self, PyObject *unused) { self->first = -1; Py_RETURN_NONE; }

/* How many were entered after the first that is known; None while there is none. */
static PyObject *count_since_first(RunCount *self, PyObject *unused)
{
    if (self->first < 0) Py_RETURN_NONE;
    return Py_BuildValue("LL", self->first, self->entered - self->entered_by_first);
}

static PyObject *count_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    RunCount *self = (RunCount *)make(type, 0);
    if (self) self->first = -1;
    return (PyObject *)self;
}

static void count_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef count_methods[] = {
    {"enter", (PyCFunction)count_enter, METH_NOARGS, "A run is about to begin, whether or not it will be recorded."},
    {"leave", (PyCFunction)count_leave, METH_NOARGS, "A run has ended."},
    {"began", (PyCFunction)count_began, METH_O,
     "began(task): a run that was entered has this number. What other runs have is known where none was under way as\n"
     "it was entered, and none has been entered since: smaller ones."},
    {"forget", (PyCFunction)count_forget, METH_NOARGS,
     "Runs may begin that are not entered, and not to be counted as missed: begin anew."},
    {"since_first", (PyCFunction)count_since_first, METH_NOARGS,
     "(number of the first run that is known, how many were entered after it), or None."},
    {NULL},
};
static PyType_Slot count_slots[] = {
    {Py_tp_doc, "RunCount(): counts the runs that were entered through Python."},
    {Py_tp_new, count_new}, {Py_tp_dealloc, count_dealloc}, {Py_tp_methods, count_methods}, {0, NULL},
};
static PyType_Spec count_spec = {"tracer.capture._core.RunCount", sizeof(RunCount), 0, Py_TPFLAGS_DEFAULT, count_slots};

/* The pass that runs in a thread which runs all of its nodes: PyTorch need not be told to take it along. What is told
 * meanwhile, by a pass within it, comes first: the engine forgets it with the node that it came in. */
static struct { unsigned long thread; uint32_t pass; } in_thread;

static int runs_here(void) { return in_thread.pass && in_thread.thread == PyThread_get_thread_ident(); }

/* Have what runs from here on, engine included, belong to a pass, or to none. The engine takes the state of the
 * thread that enters it along to every thread in which it runs a node, with what PyTorch lets Python put there. */
static PyObject *core_enter_pass(PyObject *module, PyObject *number)
{
    if (number == Py_None && runs_here()) in_thread.pass = 0;
    PyObject *both[] = {s_tracer_pass, number};
    return call_with(&stash, both, 2);
}

static int enter_pass(uint32_t pass)
{
    PyObject *number = pass ? PyLong_FromUnsignedLong(pass) : Py_NewRef(Py_None);
    PyObject *done = number ? core_enter_pass(NULL, number) : NULL;
    Py_XDECREF(number);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* The pass that runs where the caller is: in its thread, or a device's of the engine; None outside of any. */
static PyObject *core_pass_here(PyObject *module, PyObject *unused)
{
    int is_set = truth_of(call1(&is_stashed, s_tracer_pass));
    PyObject *found = is_set < 0 ? NULL : is_set ? call1(&stashed, s_tracer_pass) : Py_NewRef(Py_None);
    if (found != Py_None || !runs_here()) return found;
    Py_DECREF(found);
    return PyLong_FromUnsignedLong(in_thread.pass);
}

/* Whether this pass does, within which none has begun; -1 with an exception. */
static int is_pass_here(uint32_t pass)
{
    if (runs_here() && in_thread.pass == pass) return 1;
    PyObject *found = core_pass_here(NULL, NULL);
    unsigned long number = !found || found == Py_None ? 0 : PyLong_AsUnsignedLong(found);
    Py_XDECREF(found);
    return PyErr_Occurred() ? -1 : number == pass;
}
