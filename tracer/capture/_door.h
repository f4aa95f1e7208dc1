/* RunBackward: the engine's run_backward, and the recording of a run around it. Included by _core.c.
 *
 * A training loop runs the same graph again and again. Where nothing of Python's has to be asked, because the
 * structure is known, its leaves have names, and there are no hooks of the user's, a pass begins and ends here
 * and leaves one tuple behind. Every other run goes through Engine.before and Engine.after. Should Python ask
 * for a pass while it runs here, Engine.take_over makes of it what Engine.before would have. */

enum { PASS_BEGIN = 5, PASS_END = 6 }; /* kinds of frames */
enum { LOOK_PASSES = 256, LOOK_NS = 50000000 };
enum { LEAVES_READ = 64 };
enum { AWAY = 0, CHANGING = 1, RUNNING = 2 };

typedef struct {
    PyObject_HEAD
    PyObject *function;
    PyObject *engine;      /* Engine: before, after, claim, take_over, could_not_record, inputs_text, look */
    Mode *mode;
    PyObject *graphs;      /* dict: structure -> Graph, the one used longest ago first */
    PyObject *plain;       /* dict: structure -> (Graph, its number, what the writer has of its roots, natures of its nodes,
                              whether all are on the CPU), of those without user code */
    PyObject *signatures;  /* dict of walks */
    PyObject *running;     /* dict of the passes that run the other way */
    PyObject *tasks;       /* dict: the engine's number for a run -> the pass, of these */
    RunCount *counter;
    Function acquire, release; /* of the recorder's lock */
    PyObject *hooked;      /* tuple of dicts: what is known of hooks of tensors; all empty where there are none */
    PyObject *entry;       /* the code of the function through which PyTorch enters the engine */
    ModuleStack *stack;
    PyObject *meanwhile;   /* dict: what leaves were called before the pass that ends */
    uint64_t first_nr;     /* the first node made since the recording began */
    long pid;
    int is_open;           /* whether a pass may run here at all */
    int is_compiling;      /* whether Dynamo may be looking at frames */
    uint32_t count;        /* passes so far */
    Py_ssize_t look_bytes; /* when to see whether a flush is due: so many wait, or after LOOK_PASSES or LOOK_NS */
    int64_t next_look;
    PyObject *last, *found; /* the structure of the last pass, if that ran here, and what `plain` has of it */
    PyObject *ran, *had;   /* list of the tuples of passes that ended here, and of the graphs that they had */
    PyObject *walked;      /* what the walk found that a pass of this thread begins with the other way, or NULL */
    unsigned long walker;
    /* the pass that runs here */
    int stage;
    unsigned long ident;
    int thread, retain;
    uint32_t site;
    int64_t begin;
    PyObject *kind;        /* borrowed */
    PassState *state;
    PyObject *graph, *natures, *walk, *leaves, *held, *probes, *seeds, *inputs;
    PyObject *live;        /* the LivePass it was made into, or NULL */
} RunBackward;

static PyObject *pass_state_type;
static PyObject *s_look, *s_take_over, *s_accumulate_grad, *s_backward, *s_grad, *s_inputs_text;

static int door_traverse(RunBackward *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->function);
    Py_VISIT(self->engine);
    Py_VISIT((PyObject *)self->mode);
    Py_VISIT(self->graphs);
    Py_VISIT(self->plain);
    Py_VISIT(self->signatures);
    Py_VISIT(self->running);
    Py_VISIT(self->tasks);
    Py_VISIT(self->acquire.object);
    Py_VISIT(self->release.object);
    Py_VISIT(self->hooked);
    Py_VISIT((PyObject *)self->stack);
    Py_VISIT(self->meanwhile);
    Py_VISIT(self->last);
    Py_VISIT(self->found);
    Py_VISIT(self->ran);
    Py_VISIT(self->had);
    Py_VISIT(self->walked);
    Py_VISIT((PyObject *)self->state);
    Py_VISIT(self->graph);
    Py_VISIT(self->walk);
    Py_VISIT(self->leaves);
    Py_VISIT(self->held);
    Py_VISIT(self->probes);
    Py_VISIT(self->live);
    return 0;
}

/* Let go of the pass that ran here. */
static void forget_pass(RunBackward *self)
{
    Py_CLEAR(self->state);
    Py_CLEAR(self->graph);
    Py_CLEAR(self->natures);
    Py_CLEAR(self->walk);
    Py_CLEAR(self->leaves);
    Py_CLEAR(self->held);
    Py_CLEAR(self->probes);
    Py_CLEAR(self->seeds);
    Py_CLEAR(self->inputs);
    Py_CLEAR(self->live);
    self->stage = AWAY;
}

static int door_clear(RunBackward *self)
{
    forget_pass(self);
    Py_CLEAR(self->function);
    Py_CLEAR(self->engine);
    Py_CLEAR(self->mode);
    Py_CLEAR(self->graphs);
    Py_CLEAR(self->plain);
    Py_CLEAR(self->signatures);
    Py_CLEAR(self->running);
    Py_CLEAR(self->tasks);
    Py_CLEAR(self->counter);
    Py_CLEAR(self->acquire.object);
    Py_CLEAR(self->release.object);
    Py_CLEAR(self->hooked);
    Py_CLEAR(self->entry);
    Py_CLEAR(self->stack);
    Py_CLEAR(self->meanwhile);
    Py_CLEAR(self->last);
    Py_CLEAR(self->found);
    Py_CLEAR(self->ran);
    Py_CLEAR(self->had);
    Py_CLEAR(self->walked);
    return 0;
}

static void door_dealloc(PyObject *self) { free_object(self, (inquiry)door_clear); }

static PyObject *door_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"function", "engine", "mode", "graphs", "plain", "signatures", "running", "tasks", "counter", "lock", "hooked",
                            "entry", "stack", "meanwhile", "first_nr", "pid", "is_open", "look_bytes", NULL};
    PyObject *function, *engine, *mode, *graphs, *plain, *signatures, *running, *tasks, *counter, *lock, *hooked, *entry,
        *stack, *meanwhile;
    unsigned long long first_nr;
    long pid;
    int is_open;
    Py_ssize_t look_bytes;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO!O!O!O!O!OOO!OOO!Klpn", names, &function, &engine, &mode, &PyDict_Type,
                                     &graphs, &PyDict_Type, &plain, &PyDict_Type, &signatures, &PyDict_Type, &running,
                                     &PyDict_Type, &tasks, &counter, &lock, &PyTuple_Type, &hooked, &entry, &stack, &PyDict_Type, &meanwhile,
                                     &first_nr, &pid, &is_open, &look_bytes))
        return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    RunBackward *self = (RunBackward *)make(type, 0);
    if (!self) return NULL;
    self->function = Py_NewRef(function);
    self->engine = Py_NewRef(engine);
    self->mode = (Mode *)Py_NewRef(mode);
    self->graphs = Py_NewRef(graphs);
    self->plain = Py_NewRef(plain);
    self->signatures = Py_NewRef(signatures);
    self->running = Py_NewRef(running);
    self->tasks = Py_NewRef(tasks);
    self->counter = (RunCount *)Py_NewRef(counter);
    know_function(&self->acquire, PyObject_GetAttrString(lock, "acquire"));
    know_function(&self->release, PyObject_GetAttrString(lock, "release"));
    self->hooked = Py_NewRef(hooked);
    self->entry = Py_NewRef(entry);
    self->stack = (ModuleStack *)Py_NewRef(stack);
    self->meanwhile = Py_NewRef(meanwhile);
    self->first_nr = first_nr;
    self->pid = pid;
    self->is_open = is_open;
    self->look_bytes = look_bytes;
    in_thread.pass = 0; /* of a process that this one was forked from */
    self->ran = PyList_New(0);
    self->had = PyList_New(0);
    if (!self->ran || !self->had || !self->acquire.object || !self->release.object) Py_CLEAR(self);
    return (PyObject *)self;
}

static int call_method(PyObject *object, PyObject *name)
{
    PyObject *done = PyObject_CallMethodObjArgs(object, name, NULL);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* ---------------------------------------------------------------- what is asked of the engine */

typedef struct { PyObject *outputs, *seeds, *inputs; int retain, create, accumulates; } Asked;

/* Read the arguments as PyTorch passes them; 0 for others. */
static int read_asked(PyObject *args, PyObject *kwargs, Asked *asked)
{
    Py_ssize_t given = PyTuple_Size(args), named = kwargs ? PyDict_Size(kwargs) : 0;
    PyObject *accumulates = kwargs ? PyDict_GetItemWithError(kwargs, s_accumulate_grad) : NULL;
    if (!accumulates || given < 5 || given > 6 || given + named != 7) return 0;
    asked->outputs = PyTuple_GetItem(args, 0);
    asked->seeds = PyTuple_GetItem(args, 1);
    asked->retain = PyObject_IsTrue(PyTuple_GetItem(args, 2));
    asked->create = PyObject_IsTrue(PyTuple_GetItem(args, 3));
    asked->inputs = PyTuple_GetItem(args, 4);
    asked->accumulates = PyObject_IsTrue(accumulates);
    if (PyErr_Occurred()) { PyErr_Clear(); return 0; }
    return PyTuple_Check(asked->outputs) && PyTuple_Check(asked->seeds) && PyTuple_Check(asked->inputs) &&
           PyTuple_Size(asked->outputs) == PyTuple_Size(asked->seeds);
}

/* [(node, output number)] of the outputs, as structure.root_edges has it; NULL where that is for Python. */
static PyObject *roots_of(PyObject *outputs)
{
    PyObject *roots = PyList_New(0);
    for (Py_ssize_t i = 0; roots && i < PyTuple_Size(outputs); i++) {
        PyObject *output = PyTuple_GetItem(outputs, i);
        PyObject *fn = is_plain_tensor(output) ? get(output, &t_grad_fn) : NULL;
        PyObject *nr = fn && fn != Py_None ? get(output, &t_output_nr) : NULL;
        PyObject *root = nr ? PyTuple_Pack(2, fn, nr) : NULL;
        if (!root || PyList_Append(roots, root) < 0) Py_CLEAR(roots);
        Py_XDECREF(fn);
        Py_XDECREF(nr);
        Py_XDECREF(root);
    }
    if (roots && !PyList_Size(roots)) Py_CLEAR(roots);
    if (!roots) PyErr_Clear();
    return roots;
}

/* The names of the tensors given as `inputs=`: None for none, NULL where that is for Python. */
static PyObject *names_of_inputs(Book *book, PyObject *inputs)
{
    Py_ssize_t size = PyTuple_Size(inputs);
    PyObject *names = size ? PyTuple_New(size) : Py_NewRef(Py_None);
    for (Py_ssize_t i = 0; names && i < size; i++) {
        PyObject *input = PyTuple_GetItem(inputs, i);
        Leaf *leaf = is_plain_tensor(input) ? find_leaf(book, input) : NULL;
        if (!leaf || !leaf->names) Py_CLEAR(names);
        else PyTuple_SetItem(names, i, Py_NewRef(PyTuple_GetItem(leaf->names, 0)));
    }
    return names;
}

/* ---------------------------------------------------------------- whether Python has to be asked */

/* Whether a leaf is as the ledger knows it, and no hook of the user's is on it; -1 with an exception. */
static int is_plain_leaf(Tape *tape, PyObject *tensor, Leaf *leaf, int read)
{
    if (!is_plain_tensor(tensor) || !leaf->names || leaf->data.used <= 1) return 0;
    int is_leaf = ask(tensor, &t_is_leaf);
    if (is_leaf == 1) is_leaf = ask(tensor, &t_is_cpu); /* another device would have to answer first */
    if (is_leaf < 1) return is_leaf;
    int hooked = ask(tensor, &t_backward_hooks);
    if (!hooked) hooked = ask(tensor, &t_accumulate_hooks);
    if (hooked) return hooked < 0 ? -1 : 0;
    if (!read) return is_as_observed(leaf, tensor);
    Buffer found = {0};
    int failed = put_entry(tape, &found, tensor, leaf->meta) < 0;
    int same = !failed && found.used == leaf->data.used && !memcmp(found.data, leaf->data.data, found.used);
    free(found.data);
    if (same) read_mark(tensor, &leaf->version, &leaf->pointer);
    return failed ? -1 : same;
}

/* {number: (tensor, Leaf)} of a walk's leaves, with their names in `names`; NULL where that is for Python. */
static PyObject *plain_leaves(RunBackward *self, PyObject *variables, PyObject **names)
{
    Book *book = self->mode->book;
    Py_ssize_t size = PyList_Size(variables);
    PyObject *leaves = PyDict_New();
    *names = leaves ? PyTuple_New(size) : NULL;
    if (!*names) Py_CLEAR(leaves);
    for (Py_ssize_t i = 0; leaves && i < size; i++) {
        PyObject *pair = PyList_GetItem(variables, i), *tensor = PyTuple_GetItem(pair, 1);
        Leaf *leaf = find_leaf(book, tensor);
        int plain = leaf ? is_plain_leaf(self->mode->tape, tensor, leaf, size <= LEAVES_READ) : 0;
        PyObject *known = plain == 1 ? PyTuple_Pack(2, tensor, leaf) : NULL;
        if (known) {
            PyObject_GC_UnTrack(known);
            PyTuple_SetItem(*names, i, Py_NewRef(PyTuple_GetItem(leaf->names, 0)));
        }
        if (!known || PyDict_SetItem(leaves, PyTuple_GetItem(pair, 0), known) < 0) Py_CLEAR(leaves);
        Py_XDECREF(known);
    }
    return leaves;
}

static int are_equal_bytes(PyObject *one, PyObject *other)
{
    Py_ssize_t size = PyBytes_Size(one);
    return size == PyBytes_Size(other) && !memcmp(PyBytes_AsString(one), PyBytes_AsString(other), size);
}

/* Whether a walk and the names of its leaves are those of the last pass, which ran here. */
static int is_last(RunBackward *self, PyObject *names)
{
    PyObject *last = self->last, *last_names = last ? PyTuple_GetItem(last, 3) : NULL;
    int same = last && PyTuple_Size(names) == PyTuple_Size(last_names);
    for (int i = 0; same && i < 3; i++) same = are_equal_bytes(PyTuple_GetItem(self->walk, 3 - i), PyTuple_GetItem(last, i));
    for (Py_ssize_t i = 0; same && i < PyTuple_Size(names); i++) same = PyTuple_GetItem(names, i) == PyTuple_GetItem(last_names, i);
    return same;
}

/* Look up the graph of a walk, and have it be the one used last. */
static int look_up(RunBackward *self, PyObject *names)
{
    PyObject *key = PyTuple_Pack(4, PyTuple_GetItem(self->walk, 3), PyTuple_GetItem(self->walk, 2),
                                 PyTuple_GetItem(self->walk, 1), names);
    PyObject *found = key ? Py_XNewRef(PyDict_GetItemWithError(self->plain, key)) : NULL;
    int is_there = found && PyDict_DelItem(self->graphs, key) == 0 &&
                   PyDict_SetItem(self->graphs, key, PyTuple_GetItem(found, 0)) == 0;
    Py_CLEAR(self->last);
    Py_CLEAR(self->found);
    if (is_there) {
        self->last = Py_NewRef(key);
        self->found = Py_NewRef(found);
    }
    Py_XDECREF(key);
    Py_XDECREF(found);
    return is_there;
}

/* Find the graph of a walk, where its passes need nothing of Python's. */
static int find_plain_graph(RunBackward *self, PyObject *names)
{
    if (!is_last(self, names) && !look_up(self, names)) return 0;
    self->graph = Py_NewRef(PyTuple_GetItem(self->found, 0));
    self->natures = Py_NewRef(PyTuple_GetItem(self->found, 3));
    return 1;
}

/* Whether all nodes were made since the recording began, so that no hook can be where nobody looks; and the
 * order number of the operation that made the first of them in `since`. */
static int is_recent(RunBackward *self, uint64_t *since)
{
    PyObject *numbers = PyTuple_GetItem(self->walk, 4);
    uint64_t least = UINT64_MAX;
    for (Py_ssize_t i = 0; i < PyList_Size(numbers); i++) {
        uint64_t number = PyLong_AsUnsignedLongLong(PyList_GetItem(numbers, i));
        if (number < least) least = number;
    }
    Made *made = find_made_anywhere(self->mode, tape_thread(self->mode->tape), least);
    *since = made ? made->seq : 0;
    return least >= self->first_nr;
}

/* Whether something was written through a `.data` since nodes may have kept what is there. */
static int wrote_to_handle(Mode *mode, uint64_t since)
{
    if (!mode->kept) return 1;
    PyObject *handles = kept(mode, KEPT_HANDLES);
    if (!PyDict_Size(handles)) return 0;
    uint64_t first = mode->n_written > WRITTEN_MOST ? mode->n_written - WRITTEN_MOST : 0;
    for (uint64_t i = mode->n_written; i > first; i--) {
        Written *note = &mode->written[(i - 1) & (WRITTEN_MOST - 1)];
        if (note->seq <= since) return 0;
        PyObject *address = PyLong_FromLongLong(note->pointer);
        int found = address ? PyDict_Contains(handles, address) : -1;
        Py_XDECREF(address);
        if (found) return found;
    }
    return mode->n_written - first == WRITTEN_MOST && since; /* the log was too short, which Python says */
}

static int has_hooks(RunBackward *self)
{
    for (Py_ssize_t i = 0; i < PyTuple_Size(self->hooked); i++)
        if (PyDict_Size(PyTuple_GetItem(self->hooked, i))) return 1;
    return 0;
}

/* Whether modes of the user's would see what we ask of tensors, or Dynamo our callbacks. */
static int is_watched(RunBackward *self)
{
    if (number_in(call(&count_modes)) || number_in(call(&count_dispatch_modes))) return 1;
    PyObject *callback = self->is_compiling ? call(&frame_callback) : Py_NewRef(Py_None);
    Py_XDECREF(callback);
    return callback != Py_None;
}

/* Whether a pass can run here, as far as can be said before the graph is walked. */
static int may_run_here(RunBackward *self)
{
    if (!self->is_open || self->stage != AWAY || self->mode->paused || !self->mode->book) return 0;
    if (!self->mode->tape->most || PyDict_Size(self->running) || has_hooks(self) || own_pid() != self->pid) return 0;
    PyFrameObject *frame = PyEval_GetFrame();
    PyCodeObject *code = frame ? PyFrame_GetCode(frame) : NULL;
    int through_python = (PyObject *)code == self->entry;
    Py_XDECREF(code);
    return through_python && !is_watched(self);
}

/* ---------------------------------------------------------------- begin */

/* Let go of what was found for a pass that never began with it. */
static void drop_walk(RunBackward *self)
{
    if (self->walked) let_go(PyTuple_GetItem(self->walked, 0));
    Py_CLEAR(self->walked);
}

/* Whether an engine run is the pass of this state, as Engine.claim has it; -1 with an exception. */
static int claims_run(void *door, void *state, PyObject *task)
{
    RunBackward *self = door;
    if (self->state != state || self->live) return truth_of(PyObject_CallMethod(self->engine, "claim", "OO", state, task));
    int known = PyDict_Contains(self->tasks, task);
    if (known) return known < 0 ? -1 : 0;
    int here = is_pass_here(self->state->id);
    if (here == 1) run_began(self->counter, PyLong_AsLongLong(task));
    return PyErr_Occurred() ? -1 : here;
}

/* Put the probes of the pass on its nodes; 0 where there are hooks of the user's on nodes. */
static int attach_here(RunBackward *self)
{
    PyObject *links = PyTuple_GetItem(self->walk, 2);
    self->state = make_state((PyTypeObject *)pass_state_type, (PyObject *)self->mode->tape, self->count + 1, s_tracer_pass, NULL,
                             self->mode->fault);
    if (!self->state) return -1;
    self->state->claims = claims_run;
    self->state->door = self; /* which outlives what may ask: a state is closed before */
    Attaching attaching = {
        .state = self->state, .book = (PyObject *)self->mode->book, .fns = PyTuple_GetItem(self->walk, 0),
        .same = PyTuple_GetItem(self->walk, 6), .leaves = self->leaves, .links = PyBytes_AsString(links),
        .links_size = PyBytes_Size(links), .natures = PyBytes_AsString(self->natures),
        .natures_size = PyBytes_Size(self->natures),
    };
    if (attach_all(&attaching) < 0) return -1;
    self->held = attaching.held;
    self->probes = attaching.probes;
    int is_crowded = PyList_Size(attaching.crowded) > 0;
    Py_DECREF(attaching.crowded);
    return !is_crowded;
}

static void detach_here(RunBackward *self)
{
    self->state->closed = 1;
    if (self->held) detach_all(self->state, self->held, PyTuple_GetItem(self->walk, 0));
}

static int leave_pass(void)
{
    if (!runs_here()) return enter_pass(0);
    in_thread.pass = 0;
    return 0;
}

/* Leave nothing of a pass that we failed to record. The exception that is set stays. */
static void drop_pass(RunBackward *self)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (self->state) detach_here(self);
    self->mode->now[self->thread].pass = 0;
    if (leave_pass() < 0) PyErr_Clear();
    forget_pass(self);
    PyErr_Restore(type, value, trace);
}

/* What the seeds hold, as a tuple of entries; NULL too where a device would have to answer first. */
static PyObject *entries_of(Tape *tape, PyObject *tensors)
{
    PyObject *entries = PyTuple_New(PyTuple_Size(tensors));
    for (Py_ssize_t i = 0; entries && i < PyTuple_Size(tensors); i++) {
        PyObject *tensor = PyTuple_GetItem(tensors, i), *entry = NULL;
        Buffer out = {0};
        if (tensor == Py_None || (is_plain_tensor(tensor) && ask(tensor, &t_is_cpu) == 1))
            entry = put_entry(tape, &out, tensor, 0) < 0 ? NULL : PyBytes_FromStringAndSize(out.data, out.used);
        free(out.data);
        if (entry) PyTuple_SetItem(entries, i, entry); else Py_CLEAR(entries);
    }
    return entries;
}

static int put_bare(Tape *tape, int kind, uint32_t pass)
{
    if (reserve(&tape->frames, HEADER) < 0) return -1;
    return put_header(&tape->frames, HEADER, kind, tape_thread(tape), pass, ++tape->seq, clock_ns() - tape->origin);
}

/* Let go of a fault of ours, if one is set: it will come again where Python begins the pass, and be told there.
 * -1 where it is the user's Ctrl-C, which would not. */
static int forget_fault(void)
{
    if (!PyErr_Occurred()) return 0;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    PyErr_Clear();
    return 0;
}

/* Find out whether the pass can run here, and if so make it ready: 1, else 0, with nothing left of it but what
 * the walk found; -1 where the user interrupts. */
static int prepare_here(RunBackward *self, Asked *asked)
{
    Mode *mode = self->mode;
    PyObject *roots = roots_of(asked->outputs), *names = NULL;
    PyObject *args = roots ? PyTuple_Pack(4, mode, roots, self->signatures, Py_True) : NULL;
    uint64_t since;
    drop_walk(self);
    self->walk = args ? core_walk(NULL, args) : NULL;
    self->walked = Py_XNewRef(self->walk);
    self->walker = PyThread_get_thread_ident();
    int can = self->walk && (self->inputs = names_of_inputs(mode->book, asked->inputs)) && is_recent(self, &since) &&
              !wrote_to_handle(mode, since) && (self->leaves = plain_leaves(self, PyTuple_GetItem(self->walk, 5), &names)) &&
              find_plain_graph(self, names) && attach_here(self) == 1 &&
              (self->seeds = entries_of(mode->tape, asked->seeds)) && !PyErr_Occurred();
    Py_XDECREF(names);
    Py_XDECREF(args);
    Py_XDECREF(roots);
    if (can) return 1;
    int interrupted = forget_fault();
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (self->state) { /* which lets go of the nodes */
        detach_here(self);
        Py_CLEAR(self->walked);
    } else if (interrupted) {
        drop_walk(self);
    }
    forget_pass(self);
    PyErr_Restore(type, value, trace);
    return interrupted;
}

static int begin_here(RunBackward *self, Asked *asked)
{
    Mode *mode = self->mode;
    int64_t site = find_site(mode, NULL);
    if (site < 0) return forget_fault();
    int ready = prepare_here(self, asked);
    if (ready < 1) return ready;
    Py_CLEAR(self->walked);
    self->count++;
    self->site = (uint32_t)site;
    self->retain = asked->retain;
    self->kind = asked->accumulates ? s_backward : s_grad;
    self->ident = PyThread_get_thread_ident();
    self->thread = tape_thread(mode->tape);
    mode->now[self->thread].pass = self->state->id;
    self->begin = clock_ns() - mode->tape->origin;
    if (PyTuple_Size(asked->seeds) == 1) {
        self->state->seed = PyTuple_GetItem(asked->seeds, 0);
        self->state->seed_entry = Py_NewRef(PyTuple_GetItem(self->seeds, 0));
    }
    int is_alone = PyTuple_GetItem(self->found, 4) == Py_True; /* no thread of a device's runs any of it */
    if (is_alone) {
        in_thread.thread = self->ident;
        in_thread.pass = self->state->id;
    }
    if (put_bare(mode->tape, PASS_BEGIN, self->state->id) == 0 && (is_alone || enter_pass(self->state->id) == 0)) {
        run_enters(self->counter);
        return 1;
    }
    drop_pass(self);
    return -1;
}

/* ---------------------------------------------------------------- end */

/* The seeds as the writer takes them: it has bytes looked at for an adapter. */
static PyObject *seeds_together(PyObject *seeds)
{
    if (PyTuple_Size(seeds) == 1) return PyByteArray_FromObject(PyTuple_GetItem(seeds, 0));
    PyObject *empty = PyByteArray_FromStringAndSize(NULL, 0);
    PyObject *joined = empty ? PyObject_CallMethod(empty, "join", "(O)", seeds) : NULL;
    Py_XDECREF(empty);
    return joined;
}

/* The pass that ran here, as the writer takes it: see Ran in tracer/store/rows.py. */
static PyObject *told_of(RunBackward *self, int64_t end)
{
    PassState *state = self->state;
    PyObject *inputs = self->inputs == Py_None
                           ? PyUnicode_FromStringAndSize("", 0)
                           : PyObject_CallMethodObjArgs(self->engine, s_inputs_text, self->inputs, NULL);
    PyObject *fields[] = {
        PyLong_FromUnsignedLong(state->id), Py_NewRef(PyTuple_GetItem(self->found, 1)), Py_NewRef(self->kind),
        PyLong_FromUnsignedLong(self->site), Py_NewRef(PyTuple_GetItem(self->found, 2)), seeds_together(self->seeds),
        PyLong_FromLong(self->retain), inputs, PyLong_FromLong(self->thread), PyLong_FromLongLong(self->begin),
        PyLong_FromLongLong(end), PyLong_FromUnsignedLong(state->node_count), PyLong_FromUnsignedLong(state->leaf_count)};
    enum { FIELDS = sizeof fields / sizeof *fields };
    PyObject *told = PyTuple_New(FIELDS);
    for (int i = 0; i < FIELDS; i++) {
        int failed = !fields[i];
        if (told) PyTuple_SetItem(told, i, fields[i]); else Py_XDECREF(fields[i]);
        if (failed) Py_CLEAR(told);
    }
    return told;
}

/* Have the pass that ran here told when what waits is written. */
static int keep_told(RunBackward *self, int64_t end)
{
    PyObject *told = told_of(self, end);
    Py_ssize_t had = PyList_Size(self->had);
    int is_new = !had || PyList_GetItem(self->had, had - 1) != self->graph;
    int failed = !told || PyList_Append(self->ran, told) < 0 || (is_new && PyList_Append(self->had, self->graph) < 0);
    Py_XDECREF(told);
    return failed ? -1 : 0;
}

static int settle_all(PassState *state)
{
    for (Py_ssize_t i = 0; i < PyList_Size(state->unsettled); i++)
        if (leaf_probe_settle((LeafProbe *)PyList_GetItem(state->unsettled, i)) < 0) return -1;
    return 0;
}

/* As Session.round_ends has it. */
static void round_ends(RunBackward *self)
{
    self->mode->round++;
    end_round_of_modules(self->stack);
    PyDict_Clear(self->meanwhile);
}

static int end_here(RunBackward *self)
{
    Mode *mode = self->mode;
    Tape *tape = mode->tape;
    int64_t end = clock_ns() - tape->origin;
    int failed = settle_all(self->state) < 0;
    detach_here(self);
    if (PyList_SetSlice(self->state->unsettled, 0, PyList_Size(self->state->unsettled), NULL) < 0) failed = 1;
    mode->now[self->thread].pass = 0;
    failed = failed || put_bare(tape, PASS_END, self->state->id) < 0 || keep_told(self, end) < 0;
    forget_pass(self);
    if (!failed) round_ends(self);
    if (failed || (tape->frames.used < self->look_bytes && PyList_Size(self->ran) < LOOK_PASSES && end < self->next_look))
        return failed ? -1 : 0;
    self->next_look = end + LOOK_NS;
    return call_method(self->engine, s_look);
}

/* ---------------------------------------------------------------- the door */

/* A fault of our own, which is set, is told; -1 where it is the user's Ctrl-C. */
static int tell_fault(RunBackward *self)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    PyObject *done = PyObject_CallMethod(self->engine, "could_not_record", "O", value ? value : Py_None);
    Py_XDECREF(done);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    if (!done && !PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    PyErr_Clear();
    return 0;
}

/* Let the next thread begin or end a pass. The exception that is set, if any, stays. */
static void release_lock(RunBackward *self)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (call_only(&self->release) < 0) PyErr_Clear();
    PyErr_Restore(type, value, trace);
}

/* 1: the pass runs here; 0: it is for Python; -1: ours has failed, and it runs unrecorded; -2: interrupted. */
static int try_here(RunBackward *self, PyObject *args, PyObject *kwargs)
{
    Asked asked;
    if (!may_run_here(self) || !read_asked(args, kwargs, &asked) || asked.create || is_capturing())
        return forget_fault() < 0 ? -2 : 0;
    if (call_only(&self->acquire) < 0) return -2;
    int here = 0;
    if (may_run_here(self)) { /* while it waited for the lock, another may have begun */
        self->stage = CHANGING;
        here = begin_here(self, &asked);
        self->stage = here == 1 ? RUNNING : AWAY;
    }
    if (here < 0 && tell_fault(self) < 0) here = -2;
    release_lock(self);
    return here;
}

/* End the pass that ran here, or the LivePass that it was made into; -1 only for the user's Ctrl-C. */
static int finish_here(RunBackward *self, PyObject *result, PyObject *error)
{
    if (call_only(&self->acquire) < 0) return -1;
    int is_plain = !self->live && !error && !self->mode->paused && !self->state->open && !is_watched(self);
    int failed = 0;
    if (is_plain) {
        self->stage = CHANGING;
        self->counter->inside--;
        failed = leave_pass() < 0 || end_here(self) < 0;
        if (failed) drop_pass(self);
    } else {
        failed = !self->live && call_method(self->engine, s_take_over) < 0;
        PyObject *live = failed ? NULL : Py_NewRef(self->live);
        if (failed) drop_pass(self); else forget_pass(self);
        PyObject *done = live ? PyObject_CallMethod(self->engine, "after", "OOO", live, result, error ? error : Py_None) : NULL;
        failed |= !done;
        Py_XDECREF(live);
        Py_XDECREF(done);
    }
    int interrupted = failed && tell_fault(self) < 0;
    release_lock(self);
    return interrupted ? -1 : 0;
}

static PyObject *run_here(RunBackward *self, PyObject *args, PyObject *kwargs)
{
    PyObject *result = PyObject_Call(self->function, args, kwargs), *type = NULL, *value = NULL, *trace = NULL;
    if (!result) {
        PyErr_Fetch(&type, &value, &trace);
        PyErr_NormalizeException(&type, &value, &trace);
    }
    int interrupted = finish_here(self, result ? result : Py_None, value) < 0;
    if (!result) {
        PyErr_Clear();
        PyErr_Restore(type, value, trace);
    } else if (interrupted) {
        Py_CLEAR(result);
    }
    return result;
}

/* A run of which we failed to make a pass: it was entered all the same. */
static PyObject *run_unrecorded(RunBackward *self, PyObject *args, PyObject *kwargs)
{
    run_enters(self->counter);
    PyObject *result = PyObject_Call(self->function, args, kwargs);
    self->counter->inside--;
    return result;
}

static PyObject *door_call(RunBackward *self, PyObject *args, PyObject *kwargs)
{
    int here = try_here(self, args, kwargs);
    if (here == -2) return NULL;
    if (here == -1) return run_unrecorded(self, args, kwargs);
    if (here) return run_here(self, args, kwargs);
    PyObject *before = PyObject_GetAttrString(self->engine, "before");
    PyObject *after = before ? PyObject_GetAttrString(self->engine, "after") : NULL;
    PyObject *result = after ? call_around(self->function, before, after, args, kwargs) : NULL;
    Py_XDECREF(before);
    Py_XDECREF(after);
    if (self->walker == PyThread_get_thread_ident()) drop_walk(self);
    return result;
}

/* ---------------------------------------------------------------- what Python asks */

static PyObject *door_begun(RunBackward *self, PyObject *unused)
{
    if (self->stage != RUNNING || self->live) Py_RETURN_NONE;
    return Py_BuildValue("(OOOOOOOIOiOikL)", self->state, self->graph, self->walk, self->leaves, self->held, self->probes,
                         self->kind, self->site, self->seeds, self->retain, self->inputs, self->thread, self->ident,
                         (long long)self->begin);
}

static PyObject *door_becomes(RunBackward *self, PyObject *live)
{
    Py_XDECREF(self->live);
    self->live = Py_NewRef(live);
    Py_RETURN_NONE;
}

static PyObject *door_next_id(RunBackward *self, PyObject *unused)
{
    Py_CLEAR(self->last); /* another graph will be the one used last, others forgotten, and signatures numbered anew */
    drop_walk(self);
    return PyLong_FromUnsignedLong(++self->count);
}

static PyObject *door_take_walk(RunBackward *self, PyObject *unused)
{
    PyObject *found = self->walked;
    if (!found || self->walker != PyThread_get_thread_ident()) Py_RETURN_NONE;
    self->walked = NULL;
    return found;
}

static PyObject *door_take_ran(RunBackward *self, PyObject *unused)
{
    PyObject *ran = PyList_New(0), *had = PyList_New(0), *taken = ran && had ? PyTuple_Pack(2, self->ran, self->had) : NULL;
    if (!taken) { Py_XDECREF(ran); Py_XDECREF(had); return NULL; }
    Py_DECREF(self->ran);
    Py_DECREF(self->had);
    self->ran = ran;
    self->had = had;
    return taken;
}

static PyObject *door_compiles(RunBackward *self, PyObject *unused)
{
    self->is_compiling = 1;
    if (!frame_callback.object) self->is_open = 0;
    Py_RETURN_NONE;
}

static PyObject *door_is_idle(RunBackward *self, void *unused) { return PyBool_FromLong(self->stage == AWAY); }
static PyObject *door_runs(RunBackward *self, void *unused) { return PyBool_FromLong(self->stage == RUNNING && !self->live); }

static PyMethodDef door_methods[] = {
    {"begun", (PyCFunction)door_begun, METH_NOARGS, "All of the pass that runs here, or None."},
    {"becomes", (PyCFunction)door_becomes, METH_O, "becomes(live): what the pass that runs here is from now on."},
    {"next_id", (PyCFunction)door_next_id, METH_NOARGS, "The number of the pass that begins."},
    {"take_walk", (PyCFunction)door_take_walk, METH_NOARGS, "What was found of the graph of the pass that begins, or None."},
    {"take_ran", (PyCFunction)door_take_ran, METH_NOARGS, "(The passes that ran here and have not been taken yet, the graphs that they had)."},
    {"compiles", (PyCFunction)door_compiles, METH_NOARGS, "Code may be compiled from now on."},
    {NULL},
};
static PyGetSetDef door_getset[] = {
    {"is_idle", (getter)door_is_idle, NULL, "Whether no pass runs here.", NULL},
    {"runs", (getter)door_runs, NULL, "Whether a pass runs here of which Python knows nothing.", NULL},
    {NULL},
};
static PyType_Slot door_slots[] = {
    {Py_tp_doc, "RunBackward(function, engine, ...): the engine's run_backward, recorded."},
    {Py_tp_new, door_new}, {Py_tp_dealloc, door_dealloc}, {Py_tp_traverse, door_traverse},
    {Py_tp_clear, door_clear}, {Py_tp_call, door_call}, {Py_tp_methods, door_methods}, {Py_tp_getset, door_getset},
    {0, NULL},
};
static PyType_Spec door_spec = {"tracer.capture._core.RunBackward", sizeof(RunBackward), 0, COLLECTED, door_slots};
