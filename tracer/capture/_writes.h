/* Writes of operations to a leaf's values or its `.grad`, read before and after. Included by _core.c. */

/* Whether a leaf's values are those last observed, as far as its version and address tell. */
static int is_as_observed(Leaf *leaf, PyObject *tensor)
{
    long long version, pointer;
    read_mark(tensor, &version, &pointer);
    return version == leaf->version && pointer == leaf->pointer;
}

/* Whether `x.data = y` leaves shape, dtype and device of `x` as they are, both on the CPU. */
static int is_alike(PyObject *tensor, PyObject *other)
{
    View one, two;
    int alike = find_elements(tensor, &one) && find_elements(other, &two) && one.code == two.code && one.ndim == two.ndim;
    if (PyErr_Occurred()) PyErr_Clear();
    for (int d = 0; alike && d < one.ndim; d++) alike = one.shape[d] == two.shape[d];
    return alike;
}

/* As simple_write, of what gives a leaf of ours another `.grad`, or other data. */
static int simple_set(Mode *self, Op *op, Leaf *leaf, PyObject *args)
{
    if (PyTuple_Size(args) != 2) return 0;
    PyObject *target = PyTuple_GetItem(args, 0), *guard = quiet_for_plain();
    int simple = !guard ? -1
                 : op->action == SET_DATA ? !leaf->meta && leaf->target && is_as_observed(leaf, target) &&
                                                is_alike(target, PyTuple_GetItem(args, 1))
                 : self->now[tape_thread(self->tape)].pass ? 0
                 : ask(target, &t_is_leaf); /* of what is a leaf no more, asking for its `.grad` would warn */
    loud(guard);
    return simple;
}

/* 1 where C can record what a writing function does, with the leaf it writes (NULL: none of ours);
 * 0 where that is for Python; -1 with an exception. */
static int simple_write(Mode *self, Op *op, PyObject *args, PyObject *kwargs, Leaf **leaf)
{
    *leaf = NULL;
    PyObject *target = PyTuple_Size(args) ? PyTuple_GetItem(args, 0) : Py_None;
    if (!self->book || (kwargs && PyDict_GetItemWithError(kwargs, s_out))) return 0;
    if (!is_plain_tensor(target)) return 0;
    *leaf = find_leaf(self->book, target);
    if (op->action != WRITE && *leaf) return simple_set(self, op, *leaf, args);
    if (op->action == SET_DATA) return 0;
    /* a leaf that no pass has met yet may be one from now on */
    if (op->action == SET_GRAD) return PyTuple_Size(args) != 2 || PyTuple_GetItem(args, 1) == Py_None;
    if (*leaf) return is_as_observed(*leaf, target); /* Python tells first of what nobody saw */
    int concerned = may_concern(self->book, target);
    return concerned < 0 ? -1 : !concerned;
}

/* Who writes: the optimizer while it steps, else the operation; 0 with an exception. */
static uint32_t writer_of(Mode *self, uint32_t how)
{
    if (!self->stepping) return how;
    PyObject *enabled = call(&grad_enabled);
    if (!enabled) return 0;
    if (enabled != Py_True) how = self->stepping;
    Py_DECREF(enabled);
    return how;
}

static int keep_note(Mode *self, Written note)
{
    if (!self->written && !(self->written = calloc(WRITTEN_MOST, sizeof *self->written))) { PyErr_NoMemory(); return -1; }
    note.seq = ++self->tape->seq;
    self->written[self->n_written++ & (WRITTEN_MOST - 1)] = note;
    return 0;
}

/* Note that a tensor was written to, for when a node finds what it kept changed. */
static int note_written(Mode *self, PyObject *tensor, uint32_t how)
{
    int64_t site = find_site(self, NULL);
    Written note = {0, 0, 0, writer_of(self, how), (uint32_t)site};
    if (site < 0 || PyErr_Occurred()) return -1;
    read_mark(tensor, &note.version, &note.pointer);
    return keep_note(self, note);
}

static PyObject *mode_note_written(Mode *self, PyObject *args)
{
    PyObject *tensor;
    unsigned int how;
    if (!PyArg_ParseTuple(args, "OI", &tensor, &how) || note_written(self, tensor, how) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *mode_writes(Mode *self, PyObject *args)
{
    unsigned long long since = 0;
    if (!PyArg_ParseTuple(args, "|K", &since)) return NULL;
    uint64_t first = self->n_written > WRITTEN_MOST ? self->n_written - WRITTEN_MOST : 0, last = self->n_written;
    while (last > first && self->written[(last - 1) & (WRITTEN_MOST - 1)].seq > since) last--;
    first = last;
    PyObject *writes = PyList_New(0);
    for (uint64_t i = first; writes && i < self->n_written; i++) {
        Written *note = &self->written[i & (WRITTEN_MOST - 1)];
        PyObject *told = Py_BuildValue("KLLII", (unsigned long long)note->seq, note->pointer, note->version, note->how, note->site);
        if (!told || PyList_Append(writes, told) < 0) Py_CLEAR(writes);
        Py_XDECREF(told);
    }
    return writes;
}

/* The frame of a write to a leaf, and of one in place a note, as note_written's. */
static int write_frame(Mode *self, Op *op, Leaf *leaf, int kind, const Buffer *before, const Buffer *after)
{
    int64_t site = find_site(self, NULL);
    uint32_t how = op->action == SET_DATA ? op->how : writer_of(self, op->how);
    if (site < 0 || PyErr_Occurred()) return -1;
    Tape *tape = self->tape;
    Buffer *out = &tape->frames;
    int thread = tape_thread(tape);
    uint32_t length = (uint32_t)(HEADER + 12 + before->used + after->used), ids[3] = {leaf->id, how, (uint32_t)site};
    if (reserve(out, length) < 0) return -1;
    put_header(out, length, kind, thread, self->now[thread].pass, ++tape->seq, clock_ns() - tape->origin);
    put(out, ids, sizeof ids);
    put(out, before->data, before->used);
    put(out, after->data, after->used);
    Written note = {0, leaf->pointer, leaf->version, how, (uint32_t)site};
    return op->action == WRITE ? keep_note(self, note) : 0;
}

/* The `.grad` of a leaf, and in `guard` what keeps modes and classes from hearing how it is read. */
static PyObject *grad_of(PyObject *tensor, PyObject **guard)
{
    *guard = quiet_for_plain();
    PyObject *grad = *guard ? get(tensor, &t_grad) : NULL;
    loud(*guard);
    *guard = grad ? quiet_for(grad) : NULL;
    if (!*guard) Py_CLEAR(grad);
    return grad;
}

static int read_before(Mode *self, Op *op, Leaf *leaf, PyObject *tensor, Buffer *before)
{
    if (op->action != SET_GRAD) return copy_buffer(before, &leaf->data);
    PyObject *guard, *grad = grad_of(tensor, &guard);
    if (!grad) return -1;
    int failed = put_entry(self->tape, before, grad, leaf->meta) < 0 || compare_grad(self->book, leaf, before) < 0;
    Py_DECREF(grad);
    loud(guard);
    return failed ? -1 : 0;
}

static int enter_data(Mode *self, Op *op, Leaf *leaf, PyObject *tensor, const Buffer *before)
{
    PyObject *guard = quiet_for_plain();
    int failed = !guard || read_again(self->tape, &leaf->data, tensor, leaf->meta) < 0;
    if (!failed) {
        read_mark(tensor, &leaf->version, &leaf->pointer);
        failed = (op->action == SET_DATA && follow_data(self->book, leaf, tensor) < 0) ||
                 write_frame(self, op, leaf, KIND_DATA_WRITE, before, &leaf->data) < 0;
    }
    loud(guard);
    return failed ? -1 : 0;
}

static int enter_grad(Mode *self, Op *op, Leaf *leaf, PyObject *tensor, const Buffer *before)
{
    PyObject *guard, *grad = grad_of(tensor, &guard);
    if (!grad) return -1;
    int failed = read_again(self->tape, &leaf->grad, grad, leaf->meta) < 0 ||
                 (grad != Py_None && follow_grad(self->book, leaf, grad) < 0) ||
                 write_frame(self, op, leaf, KIND_GRAD_WRITE, before, &leaf->grad) < 0;
    Py_DECREF(grad);
    loud(guard);
    return failed ? -1 : 0;
}

/* Call a function that writes to this leaf, and record what the leaf held before and after. */
static PyObject *call_write(Mode *self, Op *op, Leaf *leaf, PyObject *function, PyObject *args, PyObject *kwargs)
{
    PyObject *tensor = PyTuple_GetItem(args, 0), *result = NULL;
    Buffer before = {0};
    Py_INCREF((PyObject *)leaf);
    int failed = read_before(self, op, leaf, tensor, &before) < 0;
    if (failed && hand_over_fault(self->fault) < 0) goto done;
    result = PyObject_Call(function, args, kwargs);
    if (!result || failed || self->paused || result == Py_NotImplemented) goto done;
    failed = (op->action == SET_GRAD ? enter_grad : enter_data)(self, op, leaf, tensor, &before) < 0;
    if (failed && hand_over_fault(self->fault) < 0) Py_CLEAR(result);
done:
    free(before.data);
    Py_DECREF((PyObject *)leaf);
    return result;
}
