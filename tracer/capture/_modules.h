/* ModuleStack: which `nn.Module` runs in each thread, from the callbacks around `Module.__call__`. What
 * has been called before from the same line costs no Python. Included by _core.c. */

/* One call of a module in a round, as Python made it known: every call of the same path that is the same in
 * number and within the same other call (0 for none) is this. */
typedef struct { PyObject_HEAD uint32_t id, number, within, path_id; PyObject *path; } ModuleCall;

static int call_clear(ModuleCall *self)
{
    Py_CLEAR(self->path);
    return 0;
}

static void call_dealloc(PyObject *self) { free_uncollected(self, (inquiry)call_clear); }

static PyObject *call_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"id", "number", "within", "path_id", "path", NULL};
    unsigned int id, number, within, path_id;
    PyObject *path;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "IIIIU", names, &id, &number, &within, &path_id, &path)) return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    ModuleCall *self = (ModuleCall *)make(type, 0);
    if (!self) return NULL;
    self->id = id;
    self->number = number;
    self->within = within;
    self->path_id = path_id;
    self->path = Py_NewRef(path);
    return (PyObject *)self;
}

static PyMemberDef call_members[] = {
    {"id", T_UINT, offsetof(ModuleCall, id), READONLY, NULL},
    {"number", T_UINT, offsetof(ModuleCall, number), READONLY, NULL},
    {"path_id", T_UINT, offsetof(ModuleCall, path_id), READONLY, NULL},
    {"path", T_OBJECT, offsetof(ModuleCall, path), READONLY, NULL},
    {NULL},
};
static PyType_Slot call_slots[] = {
    {Py_tp_doc, "ModuleCall(id, number, within, path_id, path): one call of a module in a round."},
    {Py_tp_new, call_new}, {Py_tp_dealloc, call_dealloc}, {Py_tp_members, call_members}, {0, NULL},
};
static PyType_Spec call_spec = {
    "tracer.capture._core.ModuleCall", sizeof(ModuleCall), 0, Py_TPFLAGS_DEFAULT, call_slots};

/* A path and class: how often it was called in a round, where gradients are on and where they are off, as
 * an evaluation before a pass is no part of what it leads to; and what stands for each call. */
typedef struct { PyObject_HEAD uint32_t round, counts[2]; PyObject *path, *cls, *calls; } ModulePath;

static int path_clear(ModulePath *self)
{
    Py_CLEAR(self->path);
    Py_CLEAR(self->cls);
    Py_CLEAR(self->calls);
    return 0;
}

static void path_dealloc(PyObject *self) { free_uncollected(self, (inquiry)path_clear); }

static PyObject *path_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path", "cls", NULL};
    PyObject *path, *cls;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UU", names, &path, &cls)) return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    ModulePath *self = (ModulePath *)make(type, 0);
    if (!self) return NULL;
    self->path = Py_NewRef(path);
    self->cls = Py_NewRef(cls);
    self->calls = PyList_New(0);
    if (!self->calls) { Py_DECREF(self); return NULL; }
    return (PyObject *)self;
}

static PyMemberDef path_members[] = {
    {"path", T_OBJECT, offsetof(ModulePath, path), READONLY, NULL},
    {"cls", T_OBJECT, offsetof(ModulePath, cls), READONLY, NULL},
    {"calls", T_OBJECT, offsetof(ModulePath, calls), READONLY, NULL},
    {NULL},
};
static PyType_Slot path_slots[] = {
    {Py_tp_doc, "ModulePath(path, cls): how often modules of one path and class were called, and the calls."},
    {Py_tp_new, path_new}, {Py_tp_dealloc, path_dealloc}, {Py_tp_members, path_members}, {0, NULL},
};
static PyType_Spec path_spec = {
    "tracer.capture._core.ModulePath", sizeof(ModulePath), 0, Py_TPFLAGS_DEFAULT, path_slots};

/* What runs in a thread: the innermost call; the paths below the outermost module; that module and the line
 * it was called at. These are kept when it has returned, as it may be called there again. */
typedef struct { ModuleCall *call; PyObject *below, *root; int64_t site; } Running; /* root: not held */

typedef struct {
    PyObject_HEAD
    Mode *mode;
    PyObject *find;        /* find(module, call or None, below or None, site) -> (ModulePath, below) */
    PyObject *count;       /* count(ModulePath, number, caller or None) -> ModuleCall, which the path has from then on */
    uint32_t round;
    Running running[THREADS];
} ModuleStack;

static int stack_traverse(ModuleStack *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->mode);
    Py_VISIT(self->find);
    Py_VISIT(self->count);
    for (int i = 0; i < THREADS; i++) Py_VISIT(self->running[i].below);
    return 0;
}

static int stack_clear(ModuleStack *self)
{
    Py_CLEAR(self->mode);
    Py_CLEAR(self->find);
    Py_CLEAR(self->count);
    for (int i = 0; i < THREADS; i++) {
        Py_CLEAR(self->running[i].call);
        Py_CLEAR(self->running[i].below);
    }
    return 0;
}

static void stack_dealloc(PyObject *self) { free_object(self, (inquiry)stack_clear); }

static PyObject *stack_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"mode", "find", "count", NULL};
    PyObject *mode, *find, *count;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO", names, &mode, &find, &count)) return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    ModuleStack *self = (ModuleStack *)make(type, 0);
    if (!self) return NULL;
    self->mode = (Mode *)Py_NewRef(mode);
    self->find = Py_NewRef(find);
    self->count = Py_NewRef(count);
    self->round = 1;
    return (PyObject *)self;
}

static void show_call(ModuleStack *self, int thread, ModuleCall *call)
{
    self->mode->now[thread].module = call ? call->id : 0;
    self->mode->now[thread].path = call ? call->path_id : 0;
}

/* The path of a module that was called from here before, borrowed; NULL where it was not. */
static ModulePath *known_path(PyObject *below, PyObject *module)
{
    PyObject *key = PyLong_FromVoidPtr(module);
    PyObject *pair = key ? PyDict_GetItemWithError(below, key) : NULL; /* (weak reference, path) */
    Py_XDECREF(key);
    return pair && PyWeakref_GetObject(PyTuple_GetItem(pair, 0)) == module
               ? (ModulePath *)PyTuple_GetItem(pair, 1) : NULL;
}

/* A new reference to the path of a module that is called. */
static ModulePath *find_path(ModuleStack *self, Running *running, PyObject *module)
{
    int is_inner = running->call != NULL;
    int64_t site = is_inner ? running->site : find_site(self->mode, NULL);
    if (site < 0) return NULL;
    int is_same = running->below && (is_inner || (running->root == module && running->site == site));
    ModulePath *path = is_same ? known_path(running->below, module) : NULL;
    if (path || PyErr_Occurred()) return (ModulePath *)Py_XNewRef((PyObject *)path);
    PyObject *pair = PyObject_CallFunction(self->find, "OOOL", module, is_inner ? (PyObject *)running->call : Py_None,
                                           is_inner ? running->below : Py_None, (long long)site);
    PyObject *below;
    if (!pair || !PyArg_ParseTuple(pair, "OO!", &path, &PyDict_Type, &below)) { Py_XDECREF(pair); return NULL; }
    Py_INCREF((PyObject *)path);
    if (!is_inner) {
        Py_INCREF(below);
        Py_XDECREF(running->below);
        running->below = below;
        running->root = module;
        running->site = site;
    }
    Py_DECREF(pair);
    return path;
}

/* A new reference to what stands for one call more of a path. */
static ModuleCall *next_call(ModuleStack *self, ModulePath *path, ModuleCall *caller)
{
    PyObject *enabled = call(&grad_enabled);
    if (!enabled) return NULL;
    uint32_t *count = &path->counts[enabled != Py_True];
    Py_DECREF(enabled);
    if (path->round != self->round) path->counts[0] = path->counts[1] = 0;
    path->round = self->round;
    ModuleCall *call = NULL;
    if (++*count <= PyList_Size(path->calls)) call = (ModuleCall *)PyList_GetItem(path->calls, *count - 1);
    if (call && call->within == (caller ? caller->id : 0)) return (ModuleCall *)Py_NewRef((PyObject *)call);
    call = (ModuleCall *)PyObject_CallFunction(self->count, "OIO", path, *count, caller ? (PyObject *)caller : Py_None);
    if (call) *count = call->number; /* 1 again, where too many are told apart */
    return call;
}

/* before(args, kwargs): a module is called. What comes back is for `after`: the call that it is within, None
 * where there is none, and False where this one is not followed. */
static PyObject *stack_before(ModuleStack *self, PyObject *const *args, Py_ssize_t count)
{
    int thread = tape_thread(self->mode->tape);
    if (count != 2 || !PyTuple_Check(args[0]) || !PyTuple_Size(args[0]) || self->mode->paused || thread == TOO_MANY)
        Py_RETURN_FALSE;
    Running *running = &self->running[thread];
    ModulePath *path = find_path(self, running, PyTuple_GetItem(args[0], 0));
    ModuleCall *call = path ? next_call(self, path, running->call) : NULL;
    Py_XDECREF((PyObject *)path);
    if (!call) {
        if (hand_over_fault(self->mode->fault) < 0) return NULL;
        Py_RETURN_FALSE;
    }
    ModuleCall *outer = running->call; /* the reference goes to the caller */
    running->call = call;
    show_call(self, thread, call);
    return outer ? (PyObject *)outer : Py_NewRef(Py_None);
}

/* after(outer, result, error): it returned or raised, and the one that called it runs again. */
static PyObject *stack_after(ModuleStack *self, PyObject *const *args, Py_ssize_t count)
{
    int thread = tape_thread(self->mode->tape);
    if (count != 3 || args[0] == Py_False || thread == TOO_MANY) Py_RETURN_NONE;
    Running *running = &self->running[thread];
    ModuleCall *ended = running->call;
    running->call = args[0] == Py_None ? NULL : (ModuleCall *)Py_NewRef(args[0]);
    Py_XDECREF((PyObject *)ended);
    show_call(self, thread, running->call);
    Py_RETURN_NONE;
}

static PyObject *stack_current(ModuleStack *self, PyObject *unused)
{
    ModuleCall *call = self->running[tape_thread(self->mode->tape)].call;
    return Py_NewRef(call ? (PyObject *)call : Py_None);
}

static PyObject *stack_below(ModuleStack *self, PyObject *unused)
{
    Running *running = &self->running[tape_thread(self->mode->tape)];
    return Py_NewRef(running->call ? running->below : Py_None);
}

/* What is called from here on in this thread leads to another pass, unless a module runs. */
static void end_round_of_modules(ModuleStack *self)
{
    if (!self->running[tape_thread(self->mode->tape)].call) self->round++;
}

static PyObject *stack_round_ends(ModuleStack *self, PyObject *unused)
{
    end_round_of_modules(self);
    Py_RETURN_NONE;
}

/* The calling thread has just been started: what an ended one of its number left behind is not its own. */
static PyObject *stack_begin_thread(ModuleStack *self, PyObject *unused)
{
    Running *running = &self->running[tape_thread(self->mode->tape)];
    Py_CLEAR(running->call);
    Py_CLEAR(running->below);
    Py_RETURN_NONE;
}

static PyMethodDef stack_methods[] = {
    {"before", (PyCFunction)(void (*)(void))stack_before, METH_FASTCALL, "before(args, kwargs): a module is called."},
    {"after", (PyCFunction)(void (*)(void))stack_after, METH_FASTCALL, "after(outer, result, error): it has ended."},
    {"current", (PyCFunction)stack_current, METH_NOARGS, "The ModuleCall that runs in this thread, or None."},
    {"below", (PyCFunction)stack_below, METH_NOARGS, "What `find` gave for the outermost module that runs, or None."},
    {"round_ends", (PyCFunction)stack_round_ends, METH_NOARGS, "Calls are counted anew, unless a module runs."},
    {"begin_thread", (PyCFunction)stack_begin_thread, METH_NOARGS, "The calling thread has just been started."},
    {NULL},
};
static PyType_Slot stack_slots[] = {
    {Py_tp_doc, "ModuleStack(mode, find, count): which module runs in each thread."},
    {Py_tp_new, stack_new}, {Py_tp_dealloc, stack_dealloc}, {Py_tp_traverse, stack_traverse},
    {Py_tp_clear, stack_clear}, {Py_tp_methods, stack_methods}, {0, NULL},
};
static PyType_Spec stack_spec = {
    "tracer.capture._core.ModuleStack", sizeof(ModuleStack), 0, COLLECTED, stack_slots};
