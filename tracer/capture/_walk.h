/* Walking a graph before a pass, and putting a probe on every node of it. Included by _core.c. */

static PyObject *s_next_functions, *s_sequence_nr, *s_input_metadata, *s_variable,
    *s_register_prehook, *s_register_hook;

static PyObject *register_theirs;
static uint64_t registered; /* how often a hook of the user's was */

/* Nothing in it is for the collector to see until a hook of the user's is, when Python tracks it by
 * itself; from 3.14 on Python no longer does that. */
static PyObject *new_hook_dict(void)
{
    static int tracked = -1;
    if (tracked < 0) {
        PyObject *empty = PyDict_New();
        if (!empty) return NULL;
        tracked = PyObject_GC_IsTracked(empty);
        Py_DECREF(empty);
    }
    static PyObject *nothing;
    if (!nothing && !(nothing = PyTuple_New(0))) return NULL;
    newfunc make = (newfunc)PyType_GetSlot((PyTypeObject *)hook_dict, Py_tp_new); /* there is nothing to initialise */
    PyObject *hooks = make((PyTypeObject *)hook_dict, nothing, NULL);
    if (hooks && !tracked) PyObject_GC_UnTrack(hooks);
    return hooks;
}

/* Stands in for `torch.autograd.function._HookMixin._register_hook`, which is asked for the dict that a
 * hook goes to and for what `register_hook` returns: for our probes the dict itself. Torch numbers its
 * keys, so a string is no one's, and no number is taken from the user's hooks. */
static PyObject *register_hook(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2) { PyErr_SetString(PyExc_TypeError, "_register_hook(backward_hooks, hook)"); return NULL; }
    PyObject *hooks = args[0], *hook = args[1], *type = (PyObject *)Py_TYPE(hook), *key;
    if (type == node_probe_type) key = ((NodeProbe *)hook)->state->key;
    else if (type == leaf_probe_type) key = ((LeafProbe *)hook)->state->key;
    else {
        registered++;
        return PyObject_CallFunctionObjArgs(register_theirs, hooks, hook, NULL);
    }
    hooks = hooks == Py_None ? new_hook_dict() : Py_NewRef(hooks);
    if (!hooks || PyObject_SetItem(hooks, key, hook) < 0) { Py_XDECREF(hooks); return NULL; }
    PyObject *pair = PyTuple_Pack(2, hooks, hooks);
    Py_DECREF(hooks);
    return pair;
}

/* ---------------------------------------------------------------- out of the collector's sight */

/* While a pass lasts it holds a Python object for every node, which PyTorch makes for it: none for the
 * collector to look through. One whose class is Python code (a custom Function's) may be in cycles. */
static void hide_node(PyObject *fn)
{
    if (!(PyType_GetFlags(Py_TYPE(fn)) & Py_TPFLAGS_HEAPTYPE) && PyObject_GC_IsTracked(fn)) PyObject_GC_UnTrack(fn);
}

/* Let go of the nodes of a walk. Those that a user holds beyond the pass are shown again; the others end
 * here. */
static void let_go(PyObject *fns)
{
    for (Py_ssize_t i = 0; i < PyList_Size(fns); i++) {
        PyObject *fn = PyList_GetItem(fns, i);
        int is_collected = (PyType_GetFlags(Py_TYPE(fn)) & Py_TPFLAGS_HAVE_GC) != 0;
        if (Py_REFCNT(fn) > 1 && is_collected && !PyObject_GC_IsTracked(fn)) PyObject_GC_Track(fn);
    }
    if (PyList_SetSlice(fns, 0, PyList_Size(fns), NULL) < 0) PyErr_Clear();
}

/* ---------------------------------------------------------------- kinds of nodes */

/* How nodes of a type are asked; what is the user's own Python code, and may change, is not among these. */
typedef struct { PyTypeObject *type; PyObject *next_functions; PyCFunction sequence_nr, prehook, posthook; } Kind;
enum { KINDS = 256 };
static Kind kinds[KINDS];

/* NULL where it is to be asked by names. */
static const Kind *kind_of(PyObject *fn)
{
    PyTypeObject *type = Py_TYPE(fn);
    Kind *kind = &kinds[((uintptr_t)type >> 6) % KINDS];
    if (kind->type == type) return kind;
    if (PyType_GetFlags(type) & Py_TPFLAGS_HEAPTYPE) return NULL;
    PyObject *next = PyObject_GetAttr((PyObject *)type, s_next_functions);
    if (!next) { PyErr_Clear(); return NULL; }
    Kind found = {type, next, code_of_method(PyObject_GetAttr(fn, s_sequence_nr), METH_NOARGS),
                  code_of_method(PyObject_GetAttr(fn, s_register_prehook), METH_O),
                  code_of_method(PyObject_GetAttr(fn, s_register_hook), METH_O)};
    if (Py_TYPE(next) != &PyGetSetDescr_Type || !found.sequence_nr || !found.prehook || !found.posthook) {
        Py_XDECREF(next);
        return NULL;
    }
    *kind = found; /* the types, and what is held of one that stood here, live as long as the process */
    return kind;
}

static PyObject *next_functions_of(PyObject *fn)
{
    const Kind *kind = kind_of(fn);
    return kind ? read_attribute(kind->next_functions, fn, (PyObject *)kind->type) : PyObject_GetAttr(fn, s_next_functions);
}

static PyObject *sequence_nr_of(PyObject *fn)
{
    const Kind *kind = kind_of(fn);
    return kind ? kind->sequence_nr(fn, NULL) : PyObject_CallMethodObjArgs(fn, s_sequence_nr, NULL);
}

/* ---------------------------------------------------------------- walk */

/* (shape, dtype, device) of each of a node's inputs, as the engine will check them; a flat tuple. */
static PyObject *read_metas(PyObject *fn, Py_ssize_t *count)
{
    *count = 0;
    PyObject *metas = PyObject_GetAttr(fn, s_input_metadata);
    if (!metas) { PyErr_Clear(); return PyTuple_New(0); }
    *count = PyTuple_Check(metas) ? PyTuple_Size(metas) : 0;
    PyObject *flat = PyTuple_New(3 * *count);
    for (Py_ssize_t i = 0; flat && i < *count; i++) {
        PyObject *meta = PyTuple_GetItem(metas, i);
        PyObject *shape = PyObject_GetAttr(meta, s_shape);
        PyObject *seen[] = {shape ? PySequence_Tuple(shape) : NULL, NULL, NULL};
        if (seen[0]) seen[1] = PyObject_GetAttr(meta, s_dtype);
        if (seen[1]) seen[2] = PyObject_GetAttr(meta, s_device);
        int is_seen = seen[2] != NULL; /* which what is nested, or undefined, is not */
        if (!is_seen) PyErr_Clear();
        for (int k = 0; k < 3; k++) {
            PyTuple_SetItem(flat, 3 * i + k, Py_NewRef(is_seen ? seen[k] : Py_None));
            Py_XDECREF(seen[k]);
        }
        Py_XDECREF(shape);
    }
    Py_DECREF(metas);
    return flat;
}

/* The same metadata as other nodes have, if any have it; takes the reference. */
static PyObject *shared_metas(Mode *mode, PyObject *metas)
{
    PyObject *shared = metas ? Py_XNewRef(PyDict_GetItemWithError(mode->metas, metas)) : NULL;
    if (!shared && metas && !PyErr_Occurred()) {
        if (PyDict_Size(mode->metas) >= SHAPES_MOST) PyDict_Clear(mode->metas);
        if (PyDict_SetItem(mode->metas, metas, metas) == 0) shared = Py_NewRef(metas);
    }
    Py_XDECREF(metas);
    return shared;
}

/* Where a node is numbered: a table by identity, as long as the list of nodes holds them. */
typedef struct { PyObject *fn; int32_t number; } Numbered;

enum { FEW = 64 }; /* what is done with so many nodes or edges without asking for memory, which costs more */

typedef struct {
    PyObject *fns;               /* list of nodes */
    Numbered *index, few[FEW];
    uint32_t room;
    int hides;
    Buffer links;                /* per node: count u32, then target i32 and input_nr u32 of each edge */
} Walking;

static Numbered *slot_of(Numbered *index, uint32_t room, PyObject *fn)
{
    uint32_t slot = (uint32_t)(((uintptr_t)fn >> 4) * 2654435761u);
    while (index[slot & (room - 1)].fn && index[slot & (room - 1)].fn != fn) slot++;
    return &index[slot & (room - 1)];
}

static int grow_index(Walking *w)
{
    uint32_t room = 4 * w->room;
    Numbered *index = calloc(room, sizeof *index);
    if (!index) { PyErr_NoMemory(); return -1; }
    for (uint32_t i = 0; i < w->room; i++)
        if (w->index[i].fn) *slot_of(index, room, w->index[i].fn) = w->index[i];
    if (w->index != w->few) free(w->index);
    w->index = index;
    w->room = room;
    return 0;
}

static long number_of(Walking *w, PyObject *fn)
{
    Py_ssize_t number = PyList_Size(w->fns);
    if (2 * (number + 1) > w->room && grow_index(w) < 0) return -1;
    Numbered *found = slot_of(w->index, w->room, fn);
    if (found->fn) return found->number;
    if (PyList_Append(w->fns, fn) < 0) return -1;
    *found = (Numbered){fn, (int32_t)number};
    if (w->hides) hide_node(fn);
    return (long)number;
}

static int walk_node(Walking *w, PyObject *fn)
{
    PyObject *next = next_functions_of(fn);
    if (!next) return -1;
    Py_ssize_t count = PyTuple_Size(next);
    int failed = 0;
    uint32_t edges = (uint32_t)count;
    failed = put(&w->links, &edges, sizeof edges) < 0;
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        PyObject *pair = PyTuple_GetItem(next, i);
        PyObject *target = PyTuple_GetItem(pair, 0);
        int32_t link[2] = {-1, (int32_t)PyLong_AsLong(PyTuple_GetItem(pair, 1))};
        if (target != Py_None) {
            long number = number_of(w, target);
            if (number < 0) { failed = 1; break; }
            link[0] = (int32_t)number;
        }
        failed = put(&w->links, link, sizeof link) < 0;
    }
    Py_DECREF(next);
    return failed ? -1 : 0;
}

/* The number that stands for a key, the same in every pass; takes the reference. */
static PyObject *number_for(PyObject *signatures, PyObject *key)
{
    PyObject *known = key ? Py_XNewRef(PyDict_GetItemWithError(signatures, key)) : NULL;
    if (!known && !PyErr_Occurred()) {
        known = PyLong_FromSsize_t(PyDict_Size(signatures));
        if (known && PyDict_SetItem(signatures, key, known) < 0) Py_CLEAR(known);
    }
    Py_XDECREF(key);
    return known;
}

/* Whether metadata is that of a single input on the CPU, of this shape and dtype. */
static int is_of_shape(Mode *mode, PyObject *metas, uint32_t shape)
{
    int64_t sizes[MOST_DIMENSIONS];
    if (PyTuple_Size(metas) != 3 || PyTuple_GetItem(metas, 0) == Py_None) return 0;
    int ndim = numbers_of(Py_NewRef(PyTuple_GetItem(metas, 0)), sizes);
    int is_on_cpu = ndim >= 0 && PyObject_RichCompareBool(PyTuple_GetItem(metas, 2), cpu, Py_EQ) == 1;
    for (int i = 0; is_on_cpu && i < n_dtypes; i++)
        if (dtypes[i].dtype == PyTuple_GetItem(metas, 1)) return number_of_shape(mode, dtypes[i].code, sizes, ndim) == shape;
    if (PyErr_Occurred()) PyErr_Clear();
    return 0;
}

/* Where a signature is, if it was numbered of late, and belongs. */
static Signature *recent_signature(Mode *mode, PyObject *type, uint32_t shape, const Made *made)
{
    uint32_t hash = mixed(mixed((uint32_t)((uintptr_t)type >> 6), shape), (uint64_t)made->site << 32 | made->op);
    return &mode->recent_signatures[(hash >> 16) % RECENT];
}

static int is_signature(const Signature *one, PyObject *type, uint32_t shape, const Made *made)
{
    return one->type == type && one->shape == shape && one->site == made->site && one->op == made->op &&
           one->module == made->module;
}

/* What makes two nodes alike: type, metadata, and the site, operation and module that made it. Of the last node
 * that an operation made, if it has a single input, what the operation gave tells the metadata: to ask for that
 * takes a third of the walk. */
static PyObject *signature_of(Mode *mode, PyObject *signatures, PyObject *fn, Made *made, int is_last, Py_ssize_t *inputs,
                              int *is_brief)
{
    PyObject *type = (PyObject *)Py_TYPE(fn), *brief = NULL;
    if (is_last && made->shape) {
        brief = Py_BuildValue("OIIII", type, made->shape, made->site, made->op, made->module);
        PyObject *known = brief ? PyDict_GetItemWithError(signatures, brief) : NULL;
        if (known || PyErr_Occurred()) { Py_XDECREF(brief); *inputs = *is_brief = 1; return Py_XNewRef(known); }
    }
    PyObject *metas = shared_metas(mode, read_metas(fn, inputs)), *key = NULL;
    *is_brief = metas && brief && is_of_shape(mode, metas, made->shape);
    if (*is_brief) key = Py_NewRef(brief);
    else if (metas && made) key = Py_BuildValue("OOIII", type, metas, made->site, made->op, made->module);
    else if (metas) key = Py_BuildValue("OO", type, metas);
    Py_XDECREF(metas);
    Py_XDECREF(brief);
    return number_for(signatures, key);
}

/* As signature_of, of the node of a leaf, whose shape and dtype cost less to see. */
static PyObject *signature_of_leaf(PyObject *signatures, const View *view)
{
    PyObject *shape = PyBytes_FromStringAndSize((const char *)view->shape, view->ndim * sizeof *view->shape);
    return number_for(signatures, shape ? Py_BuildValue("iN", view->code, shape) : NULL);
}

/* The number of what makes two nodes alike; -1 with an exception. `variable` is NULL where it is no leaf's. */
static long long number_of_signature(Mode *mode, PyObject *signatures, PyObject *fn, PyObject *variable, Made *made,
                                     int is_last, Py_ssize_t *inputs)
{
    static const Made of_leaf = {.site = UINT32_MAX};
    View view;
    int is_brief = variable && exchange && find_elements(variable, &view);
    PyErr_Clear();
    uint32_t shape = is_brief ? number_of_shape(mode, view.code, view.shape, view.ndim) : is_last ? made->shape : 0;
    const Made *by = is_brief ? &of_leaf : made;
    PyObject *type = (PyObject *)Py_TYPE(fn);
    Signature *recent = shape ? recent_signature(mode, type, shape, by) : NULL;
    if (recent && is_signature(recent, type, shape, by)) return recent->number;
    PyObject *signature = is_brief ? signature_of_leaf(signatures, &view)
                                   : signature_of(mode, signatures, fn, made, is_last, inputs, &is_brief);
    long long number = number_in(signature);
    if (recent && number >= 0 && is_brief) *recent = (Signature){type, shape, by->site, by->op, by->module, (uint32_t)number};
    return number;
}

/* Numbers of signatures found of late are good for as long as they stand: numbered anew there are fewer. */
static void keep_to_signatures(Mode *mode, PyObject *signatures)
{
    if (mode->signatures == signatures && PyDict_Size(signatures) >= mode->n_signatures) return;
    memset(mode->recent_signatures, 0, sizeof mode->recent_signatures);
    Py_XDECREF(mode->signatures);
    mode->signatures = Py_NewRef(signatures);
}

/* A node's inputs among those of all nodes. What was not made in sight may have hooks that nobody saw being
 * registered. */
typedef struct { uint32_t first, count; int is_in_sight; } Inputs;

/* Per node, bytes with a 1 for each input that receives just what one edge sends: one with two edges, or that
 * a root's gradient goes to, receives a sum. Those of a single input are Python's own, which all share. */
static PyObject *same_flags(const Inputs *inputs, Py_ssize_t size, uint32_t total, const Buffer *links, const Buffer *rooted)
{
    unsigned char few[FEW] = {0}, *edges_into = total < FEW ? few : calloc((size_t)total + 1, 1); /* 2 for two and more */
    PyObject *same = edges_into ? PyList_New(size) : PyErr_NoMemory();
    const char *at = links->data, *end = at + links->used;
    while (same && at < end) {
        uint32_t edges;
        memcpy(&edges, at, sizeof edges);
        at += sizeof edges;
        for (uint32_t k = 0; k < edges; k++, at += 8) {
            int32_t link[2];
            memcpy(link, at, sizeof link);
            if (link[0] < 0 || (uint32_t)link[1] >= inputs[link[0]].count) continue;
            unsigned char *into = &edges_into[inputs[link[0]].first + link[1]];
            *into += *into < 2;
        }
    }
    for (Py_ssize_t i = 0; same && i + 8 <= rooted->used; i += 8) {
        int32_t root[2];
        memcpy(root, rooted->data + i, sizeof root);
        if ((uint32_t)root[1] < inputs[root[0]].count) edges_into[inputs[root[0]].first + root[1]] = 2;
    }
    for (Py_ssize_t i = 0; same && i < size; i++) {
        unsigned char *flags = edges_into + inputs[i].first;
        for (uint32_t k = 0; k < inputs[i].count; k++) flags[k] = inputs[i].is_in_sight && flags[k] == 1;
        PyObject *bytes = PyBytes_FromStringAndSize((char *)flags, inputs[i].count);
        if (!bytes || PyList_SetItem(same, i, bytes) < 0) Py_CLEAR(same);
    }
    if (edges_into != few) free(edges_into);
    return same;
}

static int append_leaf(PyObject *leaves, Py_ssize_t number, PyObject *variable)
{
    PyObject *pair = Py_BuildValue("nO", number, variable);
    if (pair) PyObject_GC_UnTrack(pair); /* ours alone, and in no cycle */
    int failed = !pair || PyList_Append(leaves, pair) < 0;
    Py_XDECREF(pair);
    return failed ? -1 : 0;
}

/* walk(mode, roots, signatures, hides=False): roots is a list of (node, input_nr); with `hides` the collector
 * does not see the nodes until `let_go` or `detach` lets go of them. Returns
 * (nodes, roots as bytes, links as bytes, signatures as bytes, sequence numbers as a list,
 *  [(number, variable)] of the AccumulateGrads, same: per node, bytes that say for each input whether
 *  it receives just what one edge sends).
 */
static PyObject *walk_graph(PyObject *module, PyObject *args)
{
    Mode *mode;
    PyObject *roots, *signatures;
    int hides = 0;
    if (!PyArg_ParseTuple(args, "OO!O!|p", &mode, &PyList_Type, &roots, &PyDict_Type, &signatures, &hides)) return NULL;
    Walking w = {.fns = PyList_New(0), .room = FEW, .hides = hides};
    w.index = w.few;
    PyObject *leaves = PyList_New(0), *numbers = PyList_New(0), *same = NULL, *result = NULL;
    Buffer rooted = {0}, signed_by = {0}, inputs_of = {0};
    for (Py_ssize_t i = 0; i < PyList_Size(roots); i++) {
        PyObject *pair = PyList_GetItem(roots, i);
        long number = number_of(&w, PyTuple_GetItem(pair, 0));
        int32_t root[2] = {(int32_t)number, (int32_t)PyLong_AsLong(PyTuple_GetItem(pair, 1))};
        if (number < 0 || put(&rooted, root, sizeof root) < 0) goto done;
    }
    int own = tape_thread(mode->tape);
    uint32_t total = 0;
    keep_to_signatures(mode, signatures);
    for (Py_ssize_t i = 0; i < PyList_Size(w.fns); i++) { /* grows as it is walked */
        PyObject *fn = PyList_GetItem(w.fns, i);
        if (walk_node(&w, fn) < 0) goto done;
        PyObject *number = sequence_nr_of(fn);
        if (!number || PyList_Append(numbers, number) < 0) { Py_XDECREF(number); goto done; }
        uint64_t sequence_nr = PyLong_AsUnsignedLongLong(number);
        Py_DECREF(number);
        Made *made = sequence_nr == UINT64_MAX ? NULL : find_made_anywhere(mode, own, sequence_nr);
        Py_ssize_t inputs = 1;
        PyObject *variable = sequence_nr == UINT64_MAX ? PyObject_GetAttr(fn, s_variable) : NULL;
        if (!variable) PyErr_Clear();
        int is_last = made && sequence_nr == made->low + made->count - 1;
        long long signature = number_of_signature(mode, signatures, fn, variable, made, is_last, &inputs);
        if (signature < 0 || (variable && append_leaf(leaves, i, variable) < 0)) { Py_XDECREF(variable); goto done; }
        Py_XDECREF(variable);
        uint32_t id = (uint32_t)signature;
        if (put(&signed_by, &id, sizeof id) < 0) goto done;
        Inputs seen = {total, (uint32_t)inputs, made || sequence_nr == UINT64_MAX};
        if (put(&inputs_of, &seen, sizeof seen) < 0) goto done;
        total += (uint32_t)inputs;
    }
    same = same_flags((Inputs *)inputs_of.data, PyList_Size(w.fns), total, &w.links, &rooted);
    if (!same) goto done;
    result = Py_BuildValue("Oy#y#y#OOO", w.fns, rooted.data ? rooted.data : "", rooted.used, w.links.data,
                           w.links.used, signed_by.data, signed_by.used, numbers, leaves, same);
done:
    mode->n_signatures = PyDict_Size(signatures);
    if (w.index != w.few) free(w.index);
    if (!result && w.fns) {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        let_go(w.fns);
        PyErr_Restore(type, value, trace);
    }
    Py_XDECREF(w.fns);
    Py_XDECREF(leaves);
    Py_XDECREF(numbers);
    Py_XDECREF(same);
    free(w.links.data);
    free(rooted.data);
    free(signed_by.data);
    free(inputs_of.data);
    return result;
}

/* ---------------------------------------------------------------- attach */

/* Take the probes of one pass out of these dicts. */
static void take_out(PyObject *held, PyObject *key)
{
    for (Py_ssize_t i = 0; i < PyList_Size(held); i++)
        if (PyObject_DelItem(PyList_GetItem(held, i), key) < 0) PyErr_Clear();
}

/* Register a probe before or after a node; the dict it landed in, borrowed from `held`. */
static PyObject *put_probe(PyObject *fn, int before, PyObject *probe, PyObject *held)
{
    const Kind *kind = kind_of(fn);
    PyObject *hooks = kind ? (before ? kind->prehook : kind->posthook)(fn, probe)
                           : PyObject_CallMethodObjArgs(fn, before ? s_register_prehook : s_register_hook, probe, NULL);
    if (!hooks) return NULL;
    int failed = PyList_Append(held, hooks) < 0;
    Py_DECREF(hooks);
    return failed ? NULL : hooks;
}

/* What attach is given, and what it finds. */
typedef struct {
    PassState *state;
    PyObject *book, *fns, *same, *leaves, *begun, *ended;
    const char *links, *natures, *wanted;
    Py_ssize_t links_size, natures_size, wanted_size;
    PyObject *held, *crowded, *probes; /* new references */
} Attaching;

static PyObject *probe_for(Attaching *a, Py_ssize_t i, PyObject *flags, PyObject *leaf)
{
    if (leaf) {
        int one = PyBytes_Size(flags) > 0 && PyBytes_AsString(flags)[0];
        return make_leaf_probe((PyTypeObject *)leaf_probe_type, (PyObject *)a->state, a->book, (uint32_t)i,
                               PyTuple_GetItem(leaf, 0), PyTuple_GetItem(leaf, 1), one);
    }
    int nature = i < a->natures_size ? a->natures[i] : 0, runs_user_code = nature == USER_CODE;
    PyObject *probe = make_probe((PyTypeObject *)node_probe_type, (PyObject *)a->state, (uint32_t)i, flags,
                                 !runs_user_code, runs_user_code ? a->begun : NULL, runs_user_code ? a->ended : NULL);
    if (probe && nature == REARRANGES && !(((NodeProbe *)probe)->sent = make_sent())) Py_CLEAR(probe);
    return probe;
}

/* Put a probe's two hooks on its node; whether there are hooks of the user's, or -1. */
static int put_hooks(Attaching *a, PyObject *fn, PyObject *probe, Leaf *leaf)
{
    PyObject *hooks = put_probe(fn, 1, probe, a->held);
    if (!hooks) return -1;
    int is_crowded = PyObject_Size(hooks) > 1;
    if (leaf && leaf->unhooked == registered + 1) return is_crowded;
    if (!(hooks = put_probe(fn, 0, probe, a->held))) return -1;
    if (PyObject_Size(hooks) > 1) return 1;
    if (leaf) { /* no posthook of the user's: it need not be called */
        Py_ssize_t last = PyList_Size(a->held) - 1;
        if (PyObject_DelItem(hooks, a->state->key) < 0 || PyList_SetSlice(a->held, last, last + 1, NULL) < 0) return -1;
        leaf->unhooked = registered + 1;
    }
    return is_crowded;
}

/* Who takes the entry of what is sent there as its own reading: a leaf, and a node that only rearranges. */
static Sent *wanted_by(PyObject *probe)
{
    if ((PyObject *)Py_TYPE(probe) == node_probe_type) return ((NodeProbe *)probe)->sent;
    if ((PyObject *)Py_TYPE(probe) != leaf_probe_type || !((LeafProbe *)probe)->same) return NULL;
    LeafProbe *leaf = (LeafProbe *)probe;
    return leaf->sent ? leaf->sent : (leaf->sent = make_sent());
}

static int add_sink(NodeProbe *probe, uint32_t slot, Sent *sent)
{
    uint32_t count = probe->sinks ? probe->sinks->count : 0;
    Sinks *sinks = realloc(probe->sinks, sizeof *sinks + (count + 1) * sizeof *sinks->each);
    if (!sinks) { PyErr_NoMemory(); return -1; }
    probe->sinks = sinks;
    sinks->each[count] = (Sink){slot, hold_sent(sent)};
    sinks->count = count + 1;
    return 0;
}

/* What a node returns to such a one is what arrives there: it need not be read again. */
static int link_probes(Attaching *a)
{
    const char *at = a->links, *end = at + a->links_size;
    for (Py_ssize_t i = 0; i < PyList_Size(a->fns) && at < end; i++) {
        uint32_t edges;
        memcpy(&edges, at, sizeof edges);
        at += sizeof edges;
        NodeProbe *probe = (NodeProbe *)PyList_GetItem(a->probes, i);
        int is_node = (PyObject *)Py_TYPE(probe) == node_probe_type;
        for (uint32_t k = 0; k < edges; k++, at += 8) {
            int32_t link[2];
            memcpy(link, at, sizeof link);
            if (link[0] < 0 && k < 64 && is_node) probe->loose |= (uint64_t)1 << k;
            Sent *sent = is_node && link[0] >= 0 ? wanted_by(PyList_GetItem(a->probes, link[0])) : NULL;
            if (PyErr_Occurred() || (sent && add_sink(probe, k, sent) < 0)) return -1;
        }
    }
    return 0;
}

static int attach_each(Attaching *a)
{
    for (Py_ssize_t i = 0; i < PyList_Size(a->fns); i++) {
        if (i < a->wanted_size && !a->wanted[i]) {
            PyList_SetItem(a->probes, i, Py_NewRef(Py_None));
            continue;
        }
        PyObject *number = PyLong_FromSsize_t(i);
        PyObject *leaf = number ? PyDict_GetItemWithError(a->leaves, number) : NULL;
        PyObject *probe = PyErr_Occurred() ? NULL : probe_for(a, i, PyList_GetItem(a->same, i), leaf);
        if (probe) PyList_SetItem(a->probes, i, probe);
        int is_crowded = probe ? put_hooks(a, PyList_GetItem(a->fns, i), probe, leaf ? (Leaf *)PyTuple_GetItem(leaf, 1) : NULL) : -1;
        if (is_crowded == 1 && PyList_Append(a->crowded, number) < 0) is_crowded = -1;
        Py_XDECREF(number);
        if (is_crowded < 0) return -1;
    }
    return link_probes(a);
}

/* Put a probe on every node, or leave nothing behind: -1 then, with an exception. */
static int attach_all(Attaching *a)
{
    int was_on = PyGC_Disable();
    a->held = PyList_New(0);
    a->crowded = PyList_New(0);
    a->probes = PyList_New(PyList_Size(a->fns));
    int failed = !a->held || !a->crowded || !a->probes || attach_each(a) < 0;
    if (failed && a->held) {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        take_out(a->held, a->state->key);
        PyErr_Restore(type, value, trace);
    }
    if (failed) {
        Py_CLEAR(a->held);
        Py_CLEAR(a->crowded);
        Py_CLEAR(a->probes);
    }
    if (was_on) PyGC_Enable();
    return failed ? -1 : 0;
}

/* attach(state, book, fns, same, links, natures, leaves, begun, ended, wanted=b""): put a probe on every
 * node, or on those where `wanted` has a 1 (the others' is None). `natures` has for each node 1 where it runs
 * user code, 2 where it only rearranges its gradient; `leaves` maps a number to (tensor, Leaf).
 * Returns (dicts that hold a probe under the state's key, numbers of nodes with hooks of the user's, probes).
 */
static PyObject *core_attach(PyObject *module, PyObject *args)
{
    Attaching a = {0};
    if (!PyArg_ParseTuple(args, "OOO!O!y#y#O!OO|y#", &a.state, &a.book, &PyList_Type, &a.fns, &PyList_Type, &a.same,
                          &a.links, &a.links_size, &a.natures, &a.natures_size, &PyDict_Type, &a.leaves, &a.begun,
                          &a.ended, &a.wanted, &a.wanted_size))
        return NULL;
    if (a.begun == Py_None) a.begun = NULL;
    if (a.ended == Py_None) a.ended = NULL;
    return attach_all(&a) < 0 ? NULL : Py_BuildValue("NNN", a.held, a.crowded, a.probes);
}

/* Take the probes of a pass out of the dicts that hold them, and let go of its nodes. */
static void detach_all(PassState *state, PyObject *held, PyObject *fns)
{
    int was_on = PyGC_Disable();
    take_out(held, state->key);
    let_go(fns);
    if (was_on) PyGC_Enable();
}

/* detach(state, dicts, fns) */
static PyObject *core_detach(PyObject *module, PyObject *args)
{
    PassState *state;
    PyObject *held, *fns;
    if (!PyArg_ParseTuple(args, "OO!O!", &state, &PyList_Type, &held, &PyList_Type, &fns)) return NULL;
    detach_all(state, held, fns);
    Py_RETURN_NONE;
}

/* let_go(fns): let go of the nodes of a walk that leads to no pass. */
static PyObject *let_go_of(PyObject *module, PyObject *args)
{
    PyObject *fns;
    if (!PyArg_ParseTuple(args, "O!", &PyList_Type, &fns)) return NULL;
    let_go(fns);
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- without the collector */

/* A pass makes tens of thousands of objects at once and frees them together. The collector would look
 * through the young ones thirty times meanwhile, and find no garbage among them. */
static PyObject *uncollected(PyCFunction function, PyObject *module, PyObject *args)
{
    int was_on = PyGC_Disable();
    PyObject *result = function(module, args);
    if (was_on) PyGC_Enable();
    return result;
}

static PyObject *core_walk(PyObject *module, PyObject *args) { return uncollected(walk_graph, module, args); }
static PyObject *core_let_go(PyObject *module, PyObject *args) { return uncollected(let_go_of, module, args); }
