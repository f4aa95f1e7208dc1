/* Writes of operations to a leaf's values or its `.grad`, read before and after. Included by _core.c. */

/* 1 where C can record what a writing function does, with the leaf it writes (NULL: none of ours);
 * 0 where that is for Python; -1 with an exception. */
static int simple_write(Mode *self, Op *op, PyObject *args, PyObject *kwargs, Leaf **leaf)
{
    *leaf = NULL;
    PyObject *target = PyTuple_Size(args) ? PyTuple_GetItem(args, 0) : Py_None;
    PyObject *type = (PyObject *)Py_TYPE(target);
    if (!self->book || (kwargs && PyDict_GetItemString(kwargs, "out"))) return 0;
    if (type != tensor_type && type != parameter_type) return 0;
    *leaf = find_leaf(self->book, target);
    if (op->action == SET_GRAD) {
        int gives = PyTuple_Size(args) == 2 && PyTuple_GetItem(args, 1) != Py_None;
        if (!*leaf) return !gives; /* a leaf that no pass has met yet may be one from now on */
        if (ask(target, s_is_leaf, 0) != 1) return 0; /* no more: asking for its `.grad` would warn */
        return PyTuple_Size(args) == 2 && PyTuple_GetItem(args, 1) == Py_None &&
               !self->now[tape_thread(self->tape)].pass;
    }
    if (*leaf) { /* one that changed while nobody looked is for Python, which tells of that first */
        long long version, pointer;
        read_mark(target, &version, &pointer);
        return version == (*leaf)->version && pointer == (*leaf)->pointer;
    }
    int concerned = may_concern(self->book, target);
    return concerned < 0 ? -1 : !concerned;
}

/* Who writes: the optimizer while it steps, else the operation; 0 with an exception. */
static uint32_t writer_of(Mode *self, uint32_t how)
{
    if (!self->stepping) return how;
    PyObject *enabled = PyObject_CallNoArgs(grad_enabled_fn);
    if (!enabled) return 0;
    if (enabled != Py_True) how = self->stepping;
    Py_DECREF(enabled);
    return how;
}

/* Note that a tensor was written to, for when a node finds what it kept changed. */
static int note_written(Mode *self, PyObject *tensor, uint32_t how)
{
    int64_t site = find_site(self, NULL);
    how = writer_of(self, how);
    if (site < 0 || PyErr_Occurred()) return -1;
    if (!self->written && !(self->written = calloc(WRITTEN_MOST, sizeof *self->written))) { PyErr_NoMemory(); return -1; }
    Written note = {++self->tape->seq, 0, 0, how, (uint32_t)site};
    read_mark(tensor, &note.version, &note.pointer);
    self->written[self->n_written++ & (WRITTEN_MOST - 1)] = note;
    return 0;
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

static int write_frame(Mode *self, Op *op, Leaf *leaf, int kind, const Buffer *before, const Buffer *after)
{
    int64_t site = find_site(self, NULL);
    uint32_t how = writer_of(self, op->how);
    if (site < 0 || PyErr_Occurred()) return -1;
    Tape *tape = self->tape;
    Buffer *out = &tape->frames;
    int thread = tape_thread(tape);
    uint32_t length = (uint32_t)(HEADER + 12 + before->used + after->used), ids[3] = {leaf->id, how, (uint32_t)site};
    if (reserve(out, length) < 0) return -1;
    put_header(out, length, kind, thread, self->now[thread].pass, ++tape->seq, clock_ns() - tape->origin);
    put(out, ids, sizeof ids);
    put(out, before->data, before->used);
    return put(out, after->data, after->used);
}

static int read_before(Mode *self, Op *op, Leaf *leaf, PyObject *tensor, Buffer *before)
{
    if (op->action == WRITE) return copy_buffer(before, &leaf->data);
    PyObject *grad = PyObject_GetAttr(tensor, s_grad);
    if (!grad) return -1;
    int failed = put_entry(self->tape, before, grad, leaf->meta) < 0;
    Py_DECREF(grad);
    return failed ? -1 : compare_grad(self->book, leaf, before);
}

static int enter_write(Mode *self, Op *op, Leaf *leaf, PyObject *tensor, const Buffer *before)
{
    if (op->action == WRITE) {
        if (read_again(self->tape, &leaf->data, tensor, leaf->meta) < 0) return -1;
        read_mark(tensor, &leaf->version, &leaf->pointer);
        return write_frame(self, op, leaf, KIND_DATA_WRITE, before, &leaf->data);
    }
    uint8_t none = ENTRY_NONE;
    leaf->grad.used = 0;
    if (put(&leaf->grad, &none, 1) < 0) return -1;
    return write_frame(self, op, leaf, KIND_GRAD_WRITE, before, &leaf->grad);
}

/* Call a function that writes to this leaf, and record what the leaf held before and after. */
static PyObject *call_write(Mode *self, Op *op, Leaf *leaf, PyObject *function, PyObject *args, PyObject *kwargs)
{
    PyObject *tensor = PyTuple_GetItem(args, 0), *result = NULL;
    Buffer before = {0};
    Py_INCREF((PyObject *)leaf);
    PyObject *guard = quiet();
    int failed = !guard || read_before(self, op, leaf, tensor, &before) < 0;
    loud(guard);
    if (failed && hand_over_fault(self->fault) < 0) goto done;
    result = PyObject_Call(function, args, kwargs);
    if (!result || failed || self->paused) goto done;
    guard = quiet();
    failed = !guard || enter_write(self, op, leaf, tensor, &before) < 0;
    loud(guard);
    if (failed && hand_over_fault(self->fault) < 0) Py_CLEAR(result);
done:
    free(before.data);
    Py_DECREF((PyObject *)leaf);
    return result;
}
