/* Leaves: what the engine adds to `.grad`, and what user code writes to it and to the data.
 * Included by _core.c. */

typedef struct {
    PyObject_HEAD
    uint32_t id;
    PyObject *ref;             /* weak reference to the tensor */
    uint32_t meta;             /* of both, 0 while it is what the trace says of the leaf */
    uint32_t meta_id, name_id; /* of what the trace says, and of its name; 0 where it has none yet */
    PyObject *names;           /* its name, in a tuple */
    PyObject *target;          /* what is written to where its elements are */
    PyObject *loss;            /* where its history was lost last, and the site of that */
    uint32_t loss_site;
    Buffer grad, data;         /* entries: what each held when last observed */
    long long version;         /* of the data, when last observed */
    long long pointer;
    uint64_t unhooked;         /* 1 and how many hooks on nodes the user had registered when its node had no posthook */
} Leaf;

static int leaf_traverse(Leaf *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->ref);
    Py_VISIT(self->names);
    Py_VISIT(self->target);
    Py_VISIT(self->loss);
    return 0;
}

static int leaf_clear(Leaf *self)
{
    Py_CLEAR(self->ref);
    Py_CLEAR(self->names);
    Py_CLEAR(self->target);
    Py_CLEAR(self->loss);
    return 0;
}

static void leaf_dealloc(Leaf *self)
{
    free(self->grad.data);
    free(self->data.data);
    free_object((PyObject *)self, (inquiry)leaf_clear);
}

static int set_bytes(Buffer *buffer, PyObject *bytes)
{
    char *data;
    Py_ssize_t count;
    if (PyBytes_AsStringAndSize(bytes, &data, &count) < 0) return -1;
    buffer->used = 0;
    return put(buffer, data, count);
}

static int copy_buffer(Buffer *to, const Buffer *from)
{
    to->used = 0;
    return put(to, from->data, from->used);
}

/* Read a tensor anew. What stands there stays until all is read, as other threads may look meanwhile. */
static int read_again(Tape *tape, Buffer *entry, PyObject *tensor, uint32_t meta)
{
    Buffer fresh = {0};
    if (put_entry(tape, &fresh, tensor, meta) < 0) { free(fresh.data); return -1; }
    free(entry->data);
    *entry = fresh;
    return 0;
}

static PyObject *leaf_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"id", "ref", "grad", "data", "mark", NULL};
    unsigned int id;
    long long version, pointer;
    PyObject *ref, *grad, *data;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "IOSS(LL)", names, &id, &ref, &grad, &data, &version, &pointer))
        return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Leaf *self = (Leaf *)make(type, 0);
    if (!self) return NULL;
    self->id = id;
    self->ref = Py_NewRef(ref);
    self->version = version;
    self->pointer = pointer;
    if (set_bytes(&self->grad, grad) < 0 || set_bytes(&self->data, data) < 0) { Py_DECREF(self); return NULL; }
    return (PyObject *)self;
}

static PyObject *leaf_get_grad(Leaf *self, void *unused) { return PyBytes_FromStringAndSize(self->grad.data, self->grad.used); }
static PyObject *leaf_get_data(Leaf *self, void *unused) { return PyBytes_FromStringAndSize(self->data.data, self->data.used); }
static int leaf_set_grad(Leaf *self, PyObject *value, void *unused) { return set_bytes(&self->grad, value); }
static int leaf_set_data(Leaf *self, PyObject *value, void *unused) { return set_bytes(&self->data, value); }
static PyObject *leaf_get_mark(Leaf *self, void *unused) { return Py_BuildValue("LL", self->version, self->pointer); }
static int leaf_set_mark(Leaf *self, PyObject *value, void *unused)
{
    return PyArg_ParseTuple(value, "LL", &self->version, &self->pointer) ? 0 : -1;
}

static PyGetSetDef leaf_getset[] = {
    {"grad", (getter)leaf_get_grad, (setter)leaf_set_grad, "Entry of `.grad` when last observed.", NULL},
    {"data", (getter)leaf_get_data, (setter)leaf_set_data, "Entry of the values when last observed.", NULL},
    {"mark", (getter)leaf_get_mark, (setter)leaf_set_mark, "Version and address of the values then.", NULL},
    {NULL},
};
static PyMemberDef leaf_members[] = {
    {"id", T_UINT, offsetof(Leaf, id), READONLY, NULL},
    {"ref", T_OBJECT, offsetof(Leaf, ref), READONLY, NULL},
    {"meta", T_UINT, offsetof(Leaf, meta), 0, NULL},
    {"meta_id", T_UINT, offsetof(Leaf, meta_id), 0, NULL},
    {"name_id", T_UINT, offsetof(Leaf, name_id), 0, NULL},
    {"names", T_OBJECT, offsetof(Leaf, names), 0, NULL},
    {"target", T_OBJECT, offsetof(Leaf, target), 0, NULL},
    {NULL},
};
static PyType_Slot leaf_slots[] = {
    {Py_tp_doc, "Leaf(id, ref, grad, data, mark): what was last observed of one leaf."},
    {Py_tp_new, leaf_new}, {Py_tp_dealloc, leaf_dealloc}, {Py_tp_traverse, leaf_traverse},
    {Py_tp_clear, leaf_clear}, {Py_tp_getset, leaf_getset}, {Py_tp_members, leaf_members}, {0, NULL},
};
static PyType_Spec leaf_spec = {
    "tracer.capture._core.Leaf", sizeof(Leaf), 0, COLLECTED | Py_TPFLAGS_BASETYPE, leaf_slots};

/* ---------------------------------------------------------------- Book: the leaves by identity */

typedef struct {
    PyObject_HEAD
    PyObject *leaves;          /* dict: id(tensor) -> Leaf */
    PyObject *grads;           /* dict: address of a `.grad` -> Leaf */
    PyObject *aliases;         /* dict: address of elements -> the leaf, or its `.grad`, that has them */
    PyObject *unseen;          /* unseen(Leaf, entry before, entry found): a write nobody saw */
} Book;

static int book_traverse(Book *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->leaves);
    Py_VISIT(self->grads);
    Py_VISIT(self->aliases);
    Py_VISIT(self->unseen);
    return 0;
}

static int book_clear(Book *self)
{
    Py_CLEAR(self->leaves);
    Py_CLEAR(self->grads);
    Py_CLEAR(self->aliases);
    Py_CLEAR(self->unseen);
    return 0;
}

static void book_dealloc(PyObject *self) { free_object(self, (inquiry)book_clear); }

static PyObject *book_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"unseen", NULL};
    PyObject *unseen;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", names, &unseen)) return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Book *self = (Book *)make(type, 0);
    if (!self) return NULL;
    self->leaves = PyDict_New();
    self->grads = PyDict_New();
    self->aliases = PyDict_New();
    self->unseen = Py_NewRef(unseen);
    return (PyObject *)self;
}

/* The leaf that this tensor is, borrowed; NULL where it is none. */
static Leaf *find_leaf(Book *book, PyObject *tensor)
{
    PyObject *key = PyLong_FromVoidPtr(tensor);
    if (!key) { PyErr_Clear(); return NULL; }
    Leaf *leaf = (Leaf *)PyDict_GetItemWithError(book->leaves, key);
    Py_DECREF(key);
    return leaf && PyWeakref_GetObject(leaf->ref) == tensor ? leaf : NULL;
}

static PyObject *book_find(Book *self, PyObject *tensor)
{
    Leaf *leaf = find_leaf(self, tensor);
    if (!leaf) Py_RETURN_NONE;
    return Py_NewRef((PyObject *)leaf);
}

/* Remember whose `.grad` this tensor is, so that an in-place write to it is known for what it is. */
static int follow_grad(Book *book, Leaf *leaf, PyObject *grad)
{
    PyObject *key = get(grad, &t_cdata);
    if (!key) return -1;
    int failed = PyDict_SetItem(book->grads, key, (PyObject *)leaf);
    Py_DECREF(key);
    return failed;
}

/* follow_grads(): forget the gradients that leaves no longer have. */
static PyObject *book_follow_grads(Book *self, PyObject *unused)
{
    PyObject *leaves = PyDict_Values(self->leaves);
    PyDict_Clear(self->grads);
    for (Py_ssize_t i = 0; leaves && i < PyList_Size(leaves); i++) {
        Leaf *leaf = (Leaf *)PyList_GetItem(leaves, i);
        PyObject *tensor = Py_XNewRef(PyWeakref_GetObject(leaf->ref)), *grad = NULL;
        /* of what is a leaf no more PyTorch warns to ask, unless it keeps its gradient all the same */
        int has_grad = tensor && tensor != Py_None ? ask(tensor, &t_is_leaf) : 0;
        if (has_grad < 0) { PyErr_Clear(); has_grad = 0; }
        if (!has_grad && tensor && tensor != Py_None) has_grad = ask(tensor, &t_retains_grad);
        if (has_grad == 1 && !(grad = get(tensor, &t_grad))) has_grad = -1;
        if (has_grad < 0 || (grad && grad != Py_None && follow_grad(self, leaf, grad) < 0)) Py_CLEAR(leaves);
        Py_XDECREF(grad);
        Py_XDECREF(tensor);
    }
    if (!leaves) return NULL;
    Py_DECREF(leaves);
    Py_RETURN_NONE;
}

/* Whether asking a tensor for its address runs code of its class, or warns, as of a fake one; -1: error. */
static int runs_own_code(PyObject *tensor)
{
    if (is_plain_tensor(tensor)) return 0;
    PyObject *type = (PyObject *)Py_TYPE(tensor);
    PyObject *usual = PyObject_GetAttrString(tensor_type, "__torch_dispatch__");
    PyObject *own = usual ? PyObject_GetAttrString(type, "__torch_dispatch__") : NULL;
    int differs = own ? own != usual : -1;
    Py_XDECREF(usual);
    Py_XDECREF(own);
    return differs;
}

/* Whether writing to a tensor that is no leaf may write to a leaf or its `.grad` all the same. */
static int may_concern(Book *book, PyObject *tensor)
{
    int found = ask(tensor, &t_is_view);
    if (found) return found;
    PyObject *key;
    found = runs_own_code(tensor);
    if (found < 0) return -1;
    if (!found) {
        key = get(tensor, &t_data_ptr);
        if (!key) return -1;
        found = PyDict_Contains(book->aliases, key);
        Py_DECREF(key);
        if (found) return found;
    }
    key = get(tensor, &t_cdata);
    if (!key) return -1;
    found = PyDict_Contains(book->grads, key);
    Py_DECREF(key);
    return found;
}

/* Remember that the elements of a leaf are where it was last observed to have them. */
static int follow_data(Book *book, Leaf *leaf, PyObject *tensor)
{
    PyObject *key = leaf->pointer ? PyLong_FromLongLong(leaf->pointer) : get(tensor, &t_data_ptr); /* one without version has no mark */
    int is_there = key ? PyObject_IsTrue(key) : -1;
    if (is_there > 0) is_there = PyDict_SetItem(book->aliases, key, leaf->target);
    Py_XDECREF(key);
    return is_there;
}

/* Version and address, as LeafState's mark; zeros where a tensor has none. */
static void read_mark(PyObject *tensor, long long *version, long long *pointer)
{
    *version = *pointer = 0;
    PyObject *number = get(tensor, &t_version);
    if (number) *version = PyLong_AsLongLong(number);
    Py_XDECREF(number);
    if (!PyErr_Occurred() && !runs_own_code(tensor)) *pointer = number_in(get(tensor, &t_data_ptr));
    if (PyErr_Occurred()) { PyErr_Clear(); *version = *pointer = 0; }
}

/* Whether two entries tell of the same tensor. Norm and mean may differ in their last digits, as a
 * clone can lie in memory in another order; minimum, maximum and the counts may not. */
static int same_entry(const Buffer *a, const Buffer *b)
{
    if (a->used != b->used) return 0;
    if (!a->used || memcmp(a->data, b->data, a->used) == 0) return 1;
    int at = a->data[0] == ENTRY_STATS ? 5 : a->data[0] == ENTRY_PARTIAL ? 7 : 0;
    if (!at || a->data[0] != b->data[0]) return 0;
    double x[7], y[7];
    memcpy(x, a->data + at, sizeof x);
    memcpy(y, b->data + at, sizeof y);
    if (memcmp(x + 1, y + 1, 2 * sizeof *x) || memcmp(x + 4, y + 4, 3 * sizeof *x)) return 0;
    return fabs(x[0] - y[0]) <= 1e-5 * fabs(x[0]) && fabs(x[3] - y[3]) <= 1e-5 * fabs(x[0]);
}

/* Tell of a `.grad` that is not what was last observed, and take it for known. */
static int compare_grad(Book *book, Leaf *leaf, const Buffer *found)
{
    if (same_entry(found, &leaf->grad)) return 0;
    PyObject *done = PyObject_CallFunction(book->unseen, "Oy#y#", leaf, leaf->grad.data, leaf->grad.used,
                                           found->data, found->used);
    Py_XDECREF(done);
    return done ? copy_buffer(&leaf->grad, found) : -1;
}

/* states(variables, make): {number: (tensor, Leaf)} of [(number, tensor)]; make(tensor) gives the Leaf of
 * one that is not among ours. One that is a leaf no more, or may not be asked, is left out. The pairs are
 * ours alone and hold no cycle: not for the collector. */
static PyObject *book_states(Book *self, PyObject *args)
{
    PyObject *variables, *make, *states = PyDict_New();
    if (!PyArg_ParseTuple(args, "O!O", &PyList_Type, &variables, &make)) Py_CLEAR(states);
    for (Py_ssize_t i = 0; states && i < PyList_Size(variables); i++) {
        PyObject *pair = PyList_GetItem(variables, i), *tensor = PyTuple_GetItem(pair, 1);
        int is_leaf = ask(tensor, &t_is_leaf);
        if (is_leaf < 1) { PyErr_Clear(); continue; }
        PyObject *leaf = Py_XNewRef((PyObject *)find_leaf(self, tensor));
        if (!leaf && !PyErr_Occurred()) leaf = PyObject_CallFunctionObjArgs(make, tensor, NULL);
        PyObject *known = leaf ? PyTuple_Pack(2, tensor, leaf) : NULL;
        if (known) PyObject_GC_UnTrack(known);
        if (!known || PyDict_SetItem(states, PyTuple_GetItem(pair, 0), known) < 0) Py_CLEAR(states);
        Py_XDECREF(known);
        Py_XDECREF(leaf);
    }
    return states;
}

static int append_found(PyObject *changed, PyObject *number, const Buffer *found)
{
    PyObject *pair = Py_BuildValue("Oy#", number, found->data, found->used);
    int failed = !pair || PyList_Append(changed, pair) < 0;
    Py_XDECREF(pair);
    return failed ? -1 : 0;
}

/* changed(tape, leaves, first, count): of {number: (tensor, Leaf)} those that hold something else than what
 * was last observed, as [(number, what was found)]. A write that counted as a version shows at once; of `count` leaves from
 * the `first` on, every element is read, as not every write counts. */
static PyObject *book_changed(Book *self, PyObject *args)
{
    Tape *tape;
    PyObject *leaves, *number, *pair;
    Py_ssize_t first, count, at = 0;
    if (!PyArg_ParseTuple(args, "OO!nn", &tape, &PyDict_Type, &leaves, &first, &count)) return NULL;
    PyObject *changed = PyList_New(0);
    for (Py_ssize_t i = 0; changed && PyDict_Next(leaves, &at, &number, &pair); i++) {
        PyObject *tensor = PyTuple_GetItem(pair, 0);
        Leaf *leaf = (Leaf *)PyTuple_GetItem(pair, 1);
        if (leaf->data.used == 1) continue; /* one that is not watched */
        long long version, pointer;
        read_mark(tensor, &version, &pointer);
        if ((i < first || i >= first + count) && version == leaf->version && pointer == leaf->pointer) continue;
        Buffer found = {0};
        int failed = put_entry(tape, &found, tensor, leaf->meta) < 0;
        int is_same = !failed && found.used == leaf->data.used && !memcmp(found.data, leaf->data.data, found.used);
        if (is_same) { leaf->version = version; leaf->pointer = pointer; }
        else if (!failed) failed = append_found(changed, number, &found) < 0;
        free(found.data);
        if (failed) Py_CLEAR(changed);
    }
    return changed;
}

static PyMemberDef book_members[] = {
    {"leaves", T_OBJECT, offsetof(Book, leaves), READONLY, NULL},
    {"grads", T_OBJECT, offsetof(Book, grads), READONLY, NULL},
    {"aliases", T_OBJECT, offsetof(Book, aliases), READONLY, NULL},
    {NULL},
};
static PyMethodDef book_methods[] = {
    {"find", (PyCFunction)book_find, METH_O, "find(tensor): the Leaf that a tensor is, or None."},
    {"follow_grads", (PyCFunction)book_follow_grads, METH_NOARGS, "Forget the gradients that leaves no longer have."},
    {"states", (PyCFunction)book_states, METH_VARARGS, "states(variables, make): {number: (tensor, Leaf)}."},
    {"changed", (PyCFunction)book_changed, METH_VARARGS, "changed(tape, leaves, first, count): [(number, entry found)] of those that hold something else."},
    {NULL},
};
static PyType_Slot book_slots[] = {
    {Py_tp_doc, "Book(unseen): the leaves by identity, the gradients and aliases that are theirs."},
    {Py_tp_new, book_new}, {Py_tp_dealloc, book_dealloc}, {Py_tp_traverse, book_traverse},
    {Py_tp_clear, book_clear}, {Py_tp_members, book_members}, {Py_tp_methods, book_methods}, {0, NULL},
};
static PyType_Spec book_spec = {"tracer.capture._core.Book", sizeof(Book), 0, COLLECTED, book_slots};

/* ---------------------------------------------------------------- LeafProbe */

typedef struct {
    PyObject_HEAD
    PassState *state;
    Book *book;
    Leaf *leaf;
    PyObject *tensor;
    uint32_t node;
    int same;                  /* receives just what one edge sent */
    Sent *sent;                /* and what that edge sent; NULL where nobody hands it on */
    /* once it has run */
    uint64_t seq;
    int64_t begin;
    uint32_t order;
    Buffer before, incoming;
} LeafProbe;

static int leaf_probe_clear(LeafProbe *self)
{
    Py_CLEAR(self->state);
    Py_CLEAR(self->book);
    Py_CLEAR(self->leaf);
    Py_CLEAR(self->tensor);
    return 0;
}

static void leaf_probe_dealloc(LeafProbe *self)
{
    let_go_of_sent(self->sent);
    free(self->before.data);
    free(self->incoming.data);
    free_uncollected((PyObject *)self, (inquiry)leaf_probe_clear);
}

static PyObject *make_leaf_probe(PyTypeObject *type, PyObject *state, PyObject *book, uint32_t node,
                                 PyObject *tensor, PyObject *leaf, int same)
{
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    LeafProbe *self = (LeafProbe *)make(type, 0);
    if (!self) return NULL;
    self->state = (PassState *)Py_NewRef(state);
    self->book = (Book *)Py_NewRef(book);
    self->tensor = Py_NewRef(tensor);
    self->leaf = (Leaf *)Py_NewRef(leaf);
    self->node = node;
    self->same = same;
    return (PyObject *)self;
}

static PyObject *leaf_probe_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"state", "book", "node", "tensor", "leaf", "same", NULL};
    PyObject *state, *book, *tensor, *leaf;
    unsigned int node;
    int same;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOIOOp", names, &state, &book, &node, &tensor, &leaf, &same))
        return NULL;
    return make_leaf_probe(type, state, book, node, tensor, leaf, same);
}

static int leaf_probe_settle(LeafProbe *self);

static int leaf_probe_begin(LeafProbe *self, PyObject *gradient)
{
    PassState *state = self->state;
    Tape *tape = state->tape;
    if (!gradient || (self->seq && leaf_probe_settle(self) < 0)) return -1;
    PyObject *grad = get(self->tensor, &t_grad);
    if (!grad) return -1;
    int failed = read_again(tape, &self->before, grad, self->leaf->meta) < 0;
    Py_DECREF(grad);
    if (failed || compare_grad(self->book, self->leaf, &self->before) < 0) return -1;
    if (self->same && gradient != Py_None) {
        self->incoming.used = 0;
        PUT(&self->incoming, uint8_t, ENTRY_SAME);
    } else if (read_again(tape, &self->incoming, gradient, self->leaf->meta) < 0) {
        return -1;
    }
    self->seq = ++tape->seq;
    self->order = ++state->order;
    state->node_count++;
    state->leaf_count++;
    self->begin = clock_ns();
    return PyList_Append(state->unsettled, (PyObject *)self);
}

/* Write what the engine added: known now, or for good when `.grad` was None, as it is the incoming then. */
static int leaf_probe_settle(LeafProbe *self)
{
    if (!self->seq) return 0;
    Tape *tape = self->state->tape;
    uint64_t seq = self->seq;
    self->seq = 0;
    PyObject *grad = get(self->tensor, &t_grad);
    if (!grad) return -1;
    int was_none = self->before.data[0] == ENTRY_NONE;
    int is_none = grad == Py_None; /* the gradient was undefined, the leaf frozen, or a hook further on raised */
    Buffer after = {0};
    int failed = !is_none && follow_grad(self->book, self->leaf, grad) < 0;
    if (!failed && was_none && !is_none && self->incoming.data[0] == ENTRY_SAME && self->sent &&
        self->sent->entry.used && !self->leaf->meta) {
        failed = copy_buffer(&self->leaf->grad, &self->sent->entry) < 0 || put(&after, self->incoming.data, 1) < 0;
    } else if (!failed) {
        failed = put_entry(tape, &after, grad, self->leaf->meta) < 0 || copy_buffer(&self->leaf->grad, &after) < 0;
    }
    Py_DECREF(grad);
    Buffer *out = &tape->frames;
    uint32_t length = (uint32_t)(HEADER + 20 + self->before.used + self->incoming.used + after.used);
    if (!failed) failed = reserve(out, length) < 0;
    if (!failed) {
        put_header(out, length, KIND_ACCUMULATE, tape_thread(tape), self->state->id, seq, self->begin - tape->origin);
        uint32_t ids[3] = {self->leaf->id, self->node, self->order};
        int64_t end = -1;
        put(out, ids, sizeof ids);
        put(out, &end, sizeof end);
        put(out, self->before.data, self->before.used);
        put(out, self->incoming.data, self->incoming.used);
        put(out, after.data, after.used);
    }
    free(after.data);
    return failed ? -1 : 0;
}

static PyObject *leaf_probe_call(LeafProbe *self, PyObject *args, PyObject *kwargs)
{
    PyObject *guard = NULL;
    if (PyTuple_Size(args) != 1) Py_RETURN_NONE; /* among the posthooks it only marks the dict */
    int ours = is_ours(self->state);
    if (ours == 1 && self->state->guarded && !(guard = quiet())) ours = -1;
    PyObject *gradients = PyTuple_GetItem(args, 0);
    if (ours == 1 && leaf_probe_begin(self, PyTuple_GetItem(gradients, 0)) < 0) ours = -1;
    int stop = ours < 0 && hand_over_fault(self->state->fault) < 0;
    loud(guard);
    if (stop || spill(self->state->tape) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *leaf_probe_settle_py(LeafProbe *self, PyObject *unused)
{
    if (leaf_probe_settle(self) < 0) return NULL;
    Py_RETURN_NONE;
}

static int leaf_probe_set_same(LeafProbe *self, PyObject *value, void *unused)
{
    self->same = PyObject_IsTrue(value) == 1;
    return 0;
}

static PyObject *leaf_probe_get_same(LeafProbe *self, void *unused) { return PyBool_FromLong(self->same); }

static PyMethodDef leaf_probe_methods[] = {
    {"settle", (PyCFunction)leaf_probe_settle_py, METH_NOARGS, "Write what the engine added, now that it can be read."},
    {NULL},
};
static PyGetSetDef leaf_probe_getset[] = {
    {"same", (getter)leaf_probe_get_same, (setter)leaf_probe_set_same, "Receives just what one edge sent.", NULL},
    {NULL},
};
static PyMemberDef leaf_probe_members[] = {
    {"node", T_UINT, offsetof(LeafProbe, node), READONLY, NULL},
    {"tensor", T_OBJECT, offsetof(LeafProbe, tensor), READONLY, NULL},
    {"leaf", T_OBJECT, offsetof(LeafProbe, leaf), READONLY, NULL},
    {NULL},
};
static PyType_Slot leaf_probe_slots[] = {
    {Py_tp_doc, "LeafProbe(state, book, node, tensor, leaf, same): the prehook of one AccumulateGrad."},
    {Py_tp_new, leaf_probe_new}, {Py_tp_dealloc, leaf_probe_dealloc},
    {Py_tp_call, leaf_probe_call},
    {Py_tp_methods, leaf_probe_methods}, {Py_tp_getset, leaf_probe_getset},
    {Py_tp_members, leaf_probe_members}, {0, NULL},
};
static PyType_Spec leaf_probe_spec = {
    "tracer.capture._core.LeafProbe", sizeof(LeafProbe), 0, Py_TPFLAGS_DEFAULT, leaf_probe_slots};
