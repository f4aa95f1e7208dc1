/* What takes the history of a named leaf away, `x.data` and `x.detach()`, told without Python where nothing
 * is to be looked up. Included by _core.c. */

enum { SEVERED_MOST = 4096, MADE_BY_MOST = 8192, HANDLES_MOST = 4096 };

/* What Python keeps of such results, in Mode.kept, and what it keeps it in. */
enum { KEPT_MADE = 0, KEPT_ARRAYS = 1, KEPT_HANDLES = 2, KEPT_REF = 3, KEPT_LOSS = 4 };

static PyObject *kept(Mode *self, int which) { return PyTuple_GetItem(self->kept, which); }

/* The leaf whose history a call takes away, borrowed, where C can tell all of it; NULL where that is for
 * Python, as while an optimizer steps. */
static Leaf *simple_cut(Mode *self, PyObject *args, PyObject *kwargs)
{
    if (!self->book || !self->kept || self->stepping || PyTuple_Size(args) != 1) return NULL;
    if (kwargs && PyDict_Size(kwargs)) return NULL;
    PyObject *source = PyTuple_GetItem(args, 0);
    if (!is_plain_tensor(source)) return NULL;
    Leaf *leaf = find_leaf(self->book, source);
    if (!leaf || !leaf->name_id || !leaf->meta_id || leaf->meta) return NULL;
    if (!self->severed || !PyDict_Check(self->severed)) return NULL;
    if (PyDict_Size(kept(self, KEPT_MADE)) > MADE_BY_MOST || PyDict_Size(self->severed) > SEVERED_MOST)
        return NULL; /* Python drops what is gone */
    PyObject *guard = quiet_for_plain();
    int required = guard ? requires_grad(source, NULL) : -1;
    loud(guard);
    if (required < 0) PyErr_Clear();
    return required == 1 ? leaf : NULL;
}

/* Know that what is written through `x.data` counts as no version of `x`. */
static int note_handle(Mode *self, PyObject *data)
{
    PyObject *handles = kept(self, KEPT_HANDLES), *address = get(data, &t_data_ptr), *oldest, *value;
    int there = address ? PyObject_IsTrue(address) : -1;
    int known = there > 0 ? PyDict_Contains(handles, address) : there;
    Py_ssize_t at = 0;
    int failed = known < 0;
    if (there > 0 && !known) {
        if (PyDict_Size(handles) >= HANDLES_MOST && PyDict_Next(handles, &at, &oldest, &value)) {
            Py_INCREF(oldest);
            failed = PyDict_DelItem(handles, oldest) < 0;
            Py_DECREF(oldest);
        }
        if (!failed) failed = PyDict_SetItem(handles, address, Py_None) < 0;
    }
    Py_XDECREF(address);
    return failed ? -1 : 0;
}

/* The order number of the operation that made a tensor, where no node tells it; 0 where none is known. */
static uint64_t made_by_plain(Mode *self, PyObject *tensor)
{
    PyObject *key = PyLong_FromVoidPtr(tensor);
    PyObject *held = key ? PyDict_GetItemWithError(kept(self, KEPT_MADE), key) : NULL;
    Py_XDECREF(key);
    if (!held || PyWeakref_GetObject(PyTuple_GetItem(held, 0)) != tensor) return 0;
    return PyLong_AsUnsignedLongLong(PyTuple_GetItem(held, 1));
}

/* Where the history of a leaf was lost, as Python knows it; the same object for the same place. */
static PyObject *loss_of(Mode *self, Leaf *leaf, uint32_t site)
{
    if (!leaf->loss || leaf->loss_site != site) {
        PyObject *loss = PyObject_CallFunction(kept(self, KEPT_LOSS), "OI", leaf->names, site);
        if (!loss) return NULL;
        Py_XDECREF(leaf->loss);
        leaf->loss = loss;
        leaf->loss_site = site;
    }
    return leaf->loss;
}

/* Know of a tensor that it has no history, and why. */
static int lose(Mode *self, PyObject *tensor, PyObject *ref, PyObject *loss)
{
    PyObject *key = PyLong_FromVoidPtr(tensor), *held = key && loss ? PyTuple_Pack(2, ref, loss) : NULL;
    int failed = !held || PyDict_SetItem(self->severed, key, held) < 0;
    Py_XDECREF(key);
    Py_XDECREF(held);
    return failed ? -1 : 0;
}

/* Know a result again: becoming a leaf is worth telling then, and what is made of it says so. */
static int keep_result(Mode *self, Leaf *leaf, PyObject *result, uint32_t site, uint64_t seq)
{
    PyObject *key = PyLong_FromVoidPtr(result);
    PyObject *ref = key ? PyObject_CallFunctionObjArgs(kept(self, KEPT_REF), result, NULL) : NULL;
    PyObject *made = ref ? Py_BuildValue("OK", ref, (unsigned long long)seq) : NULL;
    int failed = !made || PyDict_SetItem(kept(self, KEPT_MADE), key, made) < 0 ||
                 lose(self, result, ref, loss_of(self, leaf, site)) < 0;
    Py_XDECREF(key);
    Py_XDECREF(ref);
    Py_XDECREF(made);
    return failed ? -1 : 0;
}

/* What an operation computed from a tensor without history has none either: 1 where that is known now, 0
 * where it is for Python, -1 with an exception. */
static int pass_loss_on(Mode *self, Op *op, PyObject *args, PyObject *result)
{
    if (!self->kept || PyDict_Size(kept(self, KEPT_ARRAYS)) || PyDict_Size(self->severed) > SEVERED_MOST) return 0;
    if ((PyObject *)Py_TYPE(result) != tensor_type) return 0;
    if (op->how) return 1; /* it took no more of it than its shape */
    for (Py_ssize_t i = 0; i < PyTuple_Size(args); i++) {
        PyObject *tensor = PyTuple_GetItem(args, i);
        if (PyTuple_Check(tensor) || PyList_Check(tensor)) return 0;
        PyObject *key = PyLong_FromVoidPtr(tensor);
        PyObject *held = key ? PyDict_GetItemWithError(self->severed, key) : NULL;
        Py_XDECREF(key);
        if (!held && PyErr_Occurred()) return -1;
        if (!held || PyWeakref_GetObject(PyTuple_GetItem(held, 0)) != tensor) continue;
        PyObject *loss = Py_NewRef(PyTuple_GetItem(held, 1));
        PyObject *ref = PyObject_CallFunctionObjArgs(kept(self, KEPT_REF), result, NULL);
        int failed = !ref || lose(self, result, ref, loss) < 0;
        Py_XDECREF(ref);
        Py_DECREF(loss);
        return failed ? -1 : 1;
    }
    return 1;
}

/* 0 grad, 1 no_grad, 2 inference, as GRAD_MODES has them; -1 with an exception. */
static int grad_mode(void)
{
    PyObject *inference = call(&inference_enabled), *enabled = call(&grad_enabled);
    int mode = !inference || !enabled ? -1 : inference == Py_True ? 2 : enabled != Py_True;
    Py_XDECREF(inference);
    Py_XDECREF(enabled);
    return mode;
}

/* A frame of `forward` after its header, of what cuts one tensor and gives another: of each of the two its metadata,
 * what made it, which leaf it is and its name. */
#pragma pack(push, 1)
typedef struct { uint32_t meta; uint64_t made_by; int64_t leaf; uint32_t name; } Listed;
typedef struct {
    uint32_t op, site, path;
    uint64_t low, high;
    uint8_t grad_mode;
    uint32_t cut, region;
    uint16_t names;
    uint32_t name;
    uint16_t inputs, outputs;
    Listed input, output;
} Cut;
#pragma pack(pop)

static int write_cut(Mode *self, Op *op, Leaf *leaf, PyObject *source, PyObject *result)
{
    int64_t site = find_site(self, NULL);
    int mode = grad_mode(), thread = tape_thread(self->tape);
    uint64_t made_by = made_by_plain(self, source), seq = self->tape->seq + 1;
    if (site < 0 || mode < 0 || PyErr_Occurred() || keep_result(self, leaf, result, (uint32_t)site, seq) < 0) return -1;
    Cut told = {op->id, (uint32_t)site, self->now[thread].path, 0, 0, (uint8_t)mode, op->how, 0, 1, leaf->name_id, 1, 1,
                {leaf->meta_id, made_by, leaf->id, leaf->name_id}, {leaf->meta_id, seq, -1, 0}};
    Buffer *out = &self->tape->frames;
    if (reserve(out, HEADER + sizeof told) < 0) return -1;
    self->tape->seq = seq;
    put_header(out, HEADER + sizeof told, KIND_FORWARD, thread, self->now[thread].pass, seq, clock_ns() - self->tape->origin);
    return put(out, &told, sizeof told);
}

/* Call `x.data` or `x.detach()` of a leaf, and enter that it cuts. */
static PyObject *call_cut(Mode *self, Op *op, Leaf *leaf, PyObject *function, PyObject *args)
{
    Py_INCREF((PyObject *)leaf);
    PyObject *result = PyObject_Call(function, args, NULL);
    if (result && !self->paused && (PyObject *)Py_TYPE(result) == tensor_type) {
        PyObject *guard = quiet_for_plain();
        int failed = !guard || (op->action == CUT_DATA && note_handle(self, result) < 0) ||
                     write_cut(self, op, leaf, PyTuple_GetItem(args, 0), result) < 0;
        loud(guard);
        if (failed && hand_over_fault(self->fault) < 0) Py_CLEAR(result);
    }
    Py_DECREF((PyObject *)leaf);
    return result;
}
