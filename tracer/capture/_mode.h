/* The entry point of a TorchFunctionMode, and what Python asks of it. Included by _core.c. */

/* Call an Op's callbacks for a call that is over already. */
static PyObject *tell(PyObject *before, PyObject *after, PyObject *args, PyObject *result)
{
    PyObject *token = PyObject_CallFunctionObjArgs(before, args, Py_None, NULL);
    PyObject *done = token ? PyObject_CallFunctionObjArgs(after, token, result, Py_None, NULL) : NULL;
    Py_XDECREF(token);
    Py_XDECREF(done);
    if (done) return result;
    if (PyErr_ExceptionMatches(PyExc_Exception)) { PyErr_Clear(); return result; }
    Py_DECREF(result);
    return NULL;
}

static int is_tensor(PyObject *object)
{
    if (is_plain_tensor(object)) return 1;
    int answer = PyObject_IsInstance(object, tensor_type);
    if (answer < 0) PyErr_Clear(); /* an object may refuse to tell its class */
    return answer == 1;
}

/* Whether a tensor among these, or in a list or tuple among them, satisfies `test(tensor, with)`; -1 on error. */
static int any_tensor(PyObject *objects, int (*test)(PyObject *, PyObject *), PyObject *with, int depth)
{
    int is_tuple = PyTuple_Check(objects);
    /* a subclass of Tensor runs code of its own, which may shorten the list */
    for (Py_ssize_t i = 0; i < (is_tuple ? PyTuple_Size(objects) : PyList_Size(objects)); i++) {
        PyObject *object = Py_NewRef(is_tuple ? PyTuple_GetItem(objects, i) : PyList_GetItem(objects, i));
        int found = 0;
        if (depth && (PyTuple_Check(object) || PyList_Check(object))) found = any_tensor(object, test, with, 0);
        else if (is_tensor(object)) found = test(object, with);
        Py_DECREF(object);
        if (found) return found;
    }
    return 0;
}

static int is_any(PyObject *tensor, PyObject *unused) { return 1; }

static int is_known(PyObject *tensor, PyObject *known)
{
    PyObject *key = PyLong_FromVoidPtr(tensor);
    int found = key ? PyDict_Contains(known, key) : -1;
    Py_XDECREF(key);
    return found;
}

/* Whether a gradient may flow through a call of these: 1, 0, or -1 where that cannot be told without asking
 * objects of classes that are not PyTorch's. */
static int flows_from(PyObject *objects, int depth)
{
    int is_tuple = PyTuple_Check(objects);
    Py_ssize_t size = is_tuple ? PyTuple_Size(objects) : PyList_Size(objects);
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *object = is_tuple ? PyTuple_GetItem(objects, i) : PyList_GetItem(objects, i);
        int flows = 0;
        if (is_plain_tensor(object)) flows = ask(object, &t_requires_grad);
        else if (PyTuple_CheckExact(object) || PyList_CheckExact(object)) flows = depth ? flows_from(object, depth - 1) : -1;
        else if (object != Py_None && !PyLong_Check(object) && !PyFloat_Check(object) && is_tensor(object)) flows = -1;
        if (flows) return flows;
    }
    return 0;
}

/* What may come of a call before it is made: nodes, none as nothing that it is given requires a gradient, or
 * none as gradients are off. Of functions in Python nothing is known. */
enum { MAY_MAKE = 1, NOTHING_FLOWS = 0, GRADIENTS_OFF = 2 };

static int are_gradients_on(void)
{
    PyObject *enabled = call(&grad_enabled);
    Py_XDECREF(enabled);
    return enabled ? enabled == Py_True : -1;
}

static int foresee(Op *op, PyObject *args, PyObject *kwargs)
{
    if (op->action >= SET_GRAD) return NOTHING_FLOWS;
    if (!op->is_native) return MAY_MAKE;
    int on = are_gradients_on();
    if (on < 1) return on < 0 ? -1 : GRADIENTS_OFF;
    int flows = flows_from(args, 1);
    PyObject *values = !flows && kwargs ? PyDict_Values(kwargs) : NULL;
    if (values) flows = flows_from(values, 1);
    Py_XDECREF(values);
    return PyErr_Occurred() ? -1 : flows ? MAY_MAKE : NOTHING_FLOWS;
}

/* Whether a tensor that requires a gradient is among these, whatever their classes; -1 on error. */
static int carries(PyObject *args, PyObject *kwargs)
{
    int found = any_tensor(args, requires_grad, NULL, 1);
    PyObject *values = !found && kwargs ? PyDict_Values(kwargs) : NULL;
    if (values) found = any_tensor(values, requires_grad, NULL, 1);
    Py_XDECREF(values);
    return PyErr_Occurred() ? -1 : found;
}

/* What an operation that made no node is to us: 0 nothing, 1 an event that names it, 2 for Python to
 * look into (it may have cut history, made a leaf, or ran where gradients are off), -1 on error. */
static int weigh_plain(Mode *self, int foreseen, PyObject *args, PyObject *kwargs, PyObject *result)
{
    int on = foreseen == MAY_MAKE ? are_gradients_on() : foreseen == NOTHING_FLOWS;
    if (on < 1) return on < 0 ? -1 : self->stepping ? 0 : 2;
    int flows = foreseen == MAY_MAKE ? carries(args, kwargs) : 0;
    if (flows) return flows < 0 ? -1 : 2;
    if (PyTuple_Check(result) || PyList_Check(result)) return any_tensor(result, is_any, NULL, 0);
    if (!is_tensor(result)) return 0;
    int is_leaf = requires_grad(result, NULL); /* a new one */
    return is_leaf < 0 ? -1 : 1 + is_leaf;
}

static int call_plain(Mode *self, Op *op, PyObject *args, PyObject *kwargs, PyObject *result, int64_t begin)
{
    int64_t site = find_site(self, NULL);
    if (site < 0) return -1;
    PyObject *done = PyObject_CallFunction(self->plain, "IOOOIKL", op->id, args, kwargs ? kwargs : Py_None, result,
                                           (unsigned int)site, (unsigned long long)++self->tape->seq,
                                           (long long)(begin - self->tape->origin));
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* Tell when a tensor that had lost its history goes into an operation: what comes of it has none either. */
static int tell_derived(Mode *self, Op *op, PyObject *args, PyObject *result)
{
    if (!self->severed || !PyDict_Check(self->severed) || !PyDict_Size(self->severed)) return 0;
    int found = any_tensor(args, is_known, self->severed, 1);
    if (found <= 0) return found;
    int done = op->action == OBSERVE ? pass_loss_on(self, op, args, result) : 0;
    if (done) return done < 0 ? -1 : 0;
    PyObject *told = PyObject_CallFunction(self->derived, "IOO", op->id, args, result);
    Py_XDECREF(told);
    return told ? 0 : -1;
}

/* What to do when this function is called: a new reference, or NULL with an exception. */
static Op *find_op(Mode *self, PyObject *function)
{
    PyObject *op = PyDict_GetItemWithError(self->ops, function);
    if (op) return (Op *)Py_NewRef(op);
    int has_hash = !PyErr_Occurred();
    if (!has_hash && !PyErr_ExceptionMatches(PyExc_Exception)) return NULL;
    PyErr_Clear();
    op = PyObject_CallFunctionObjArgs(self->describe, function, NULL);
    if (op) ((Op *)op)->is_native = PyCFunction_Check(function) || Py_TYPE(function) == &PyMethodDescr_Type ||
                                      Py_TYPE(function) == &PyWrapperDescr_Type;
    /* functions made anew for each call must not pile up */
    if (op && has_hash && PyDict_Size(self->ops) < MOST_OPS && PyDict_SetItem(self->ops, function, op) < 0)
        Py_CLEAR(op);
    return (Op *)op;
}

/* A `.grad` that is None was read: of a tensor that is no leaf, tell of that. Takes and returns the result. */
static PyObject *tell_of_none(Mode *self, PyObject *getter, PyObject *tensor, PyObject *result)
{
    if (!self->book || find_leaf(self->book, tensor)) return result;
    Op *op = find_op(self, getter);
    if (!op) {
        if (hand_over_fault(self->fault) < 0) Py_CLEAR(result);
        return result;
    }
    PyObject *args = PyTuple_Pack(1, tensor);
    if (args && op->before) result = tell(op->before, op->after, args, result);
    if (!args) PyErr_Clear();
    Py_XDECREF(args);
    Py_DECREF((PyObject *)op);
    return result;
}

static PyObject *run_recorded(Mode *self, Op *op, PyObject *function, PyObject *args, PyObject *kwargs)
{
    int64_t begin = clock_ns();
    int foreseen = foresee(op, args, kwargs);
    if (foreseen < 0) { PyErr_Clear(); foreseen = MAY_MAKE; }
    long long low = foreseen == MAY_MAKE ? number_in(call(&sequence_nr)) : 0;
    if (low < 0) PyErr_Clear();
    Leaf *leaf = NULL;
    int is_cut = op->action >= CUT_DATA, simple = 0;
    if (is_cut) leaf = simple_cut(self, args, kwargs);
    else if (op->action == WRITE || op->action == SET_GRAD || op->action == SET_DATA)
        simple = simple_write(self, op, args, kwargs, &leaf);
    if (simple < 0) PyErr_Clear();
    PyObject *result = is_cut && leaf ? call_cut(self, op, leaf, function, args)
                       : simple == 1 && leaf ? call_write(self, op, leaf, function, args, kwargs)
                       : op->before && simple != 1 ? call_around(function, op->before, op->after, args, kwargs)
                                                   : PyObject_Call(function, args, kwargs);
    if (!result || self->paused || result == Py_NotImplemented) return result;
    long long high = foreseen == MAY_MAKE ? number_in(call(&sequence_nr)) : 0;
    int failed = high < 0;
    if (simple == 1 && op->action == WRITE && !leaf) { /* call_write notes that of a leaf */
        PyObject *guard = quiet_for_plain();
        failed |= !guard || note_written(self, PyTuple_GetItem(args, 0), op->how) < 0;
        loud(guard);
    }
    if (high > low) {
        failed |= log_forward(self, op->id, low, high, ++self->tape->seq, begin, shape_of(self, result)) < 0;
    } else if (!failed && ((op->action == OBSERVE && !op->before) || (op->action == WRITE && simple == 1 && !leaf))) {
        PyObject *guard = foreseen == MAY_MAKE ? quiet() : quiet_for_plain();
        PyObject *gives = op->action == WRITE ? PyTuple_GetItem(args, 0) : result;
        int weight = guard ? weigh_plain(self, foreseen, args, kwargs, gives) : -1;
        if (weight == 1) failed = log_forward(self, op->id, 0, 0, ++self->tape->seq, begin, 0) < 0;
        if (weight == 0 || weight == 1) failed |= tell_derived(self, op, args, gives) < 0;
        if (weight == 2) failed = call_plain(self, op, args, kwargs, gives, begin) < 0;
        loud(guard);
        if (weight < 0) failed = 1;
    }
    if ((failed && hand_over_fault(self->fault) < 0) || spill(self->tape) < 0) Py_CLEAR(result);
    return result;
}

/* Call a function as our mode does: with the modes below ours alone, and record what it was, which is
 * `known_as`. */
static PyObject *mode_run(Mode *self, PyObject *known_as, PyObject *function, PyObject *args, PyObject *kwargs)
{
    if (self->paused) return PyObject_Call(function, args, kwargs);
    PyObject *out = kwargs ? PyDict_GetItemWithError(kwargs, s_out) : NULL;
    Op *op;
    if (out && out != Py_None) { /* it writes there, which it does not when called without */
        PyObject *pair = Py_BuildValue("(OO)", known_as, Py_True);
        op = pair ? find_op(self, pair) : NULL;
        Py_XDECREF(pair);
    } else {
        op = find_op(self, known_as);
    }
    if (!op) return hand_over_fault(self->fault) == 0 ? PyObject_Call(function, args, kwargs) : NULL;
    int is_unseen = op->action == IGNORE || op->action == GET_GRAD;
    PyObject *result = is_unseen ? PyObject_Call(function, args, kwargs) : run_recorded(self, op, function, args, kwargs);
    if (op->action == GET_GRAD && result == Py_None && PyTuple_Size(args))
        result = tell_of_none(self, known_as, PyTuple_GetItem(args, 0), result);
    Py_DECREF((PyObject *)op);
    return result;
}

/* What PyTorch calls as the mode's `__torch_function__`: (func, types, args=(), kwargs=None). */
static PyObject *mode_call(Mode *self, PyObject *all, PyObject *named)
{
    static char *names[] = {"func", "types", "args", "kwargs", NULL};
    PyObject *function, *types, *args = NULL, *kwargs = NULL;
    Py_ssize_t given = PyTuple_Size(all);
    if (given >= 3 && given <= 4 && !named) {
        function = PyTuple_GetItem(all, 0);
        args = PyTuple_GetItem(all, 2);
        if (given == 4) kwargs = PyTuple_GetItem(all, 3);
    } else if (!PyArg_ParseTupleAndKeywords(all, named, "OO|OO", names, &function, &types, &args, &kwargs)) {
        return NULL;
    }
    PyObject *own_args = !args ? PyTuple_New(0) : PyTuple_Check(args) ? Py_NewRef(args) : PySequence_Tuple(args);
    PyObject *result = own_args ? mode_run(self, function, function, own_args, kwargs == Py_None ? NULL : kwargs) : NULL;
    Py_XDECREF(own_args);
    return result;
}

/* For each call PyTorch asks the mode twice for its `__torch_function__`, and that for its `__self__`, by
 * names that it makes anew, which Python looks for in dict after dict. The mode answers at once: it is both. */
static PyObject *mode_getattr(PyObject *self, PyObject *name)
{
    if (PyUnicode_CompareWithASCIIString(name, "__torch_function__") == 0 ||
        PyUnicode_CompareWithASCIIString(name, "__self__") == 0)
        return Py_NewRef(self);
    return PyObject_GenericGetAttr(self, name);
}

static PyObject *mode_made_by(Mode *self, PyObject *number)
{
    uint64_t wanted = PyLong_AsUnsignedLongLong(number);
    if (wanted == (uint64_t)-1) { PyErr_Clear(); Py_RETURN_NONE; }
    Made *made = find_made_anywhere(self, tape_thread(self->tape), wanted);
    if (!made) Py_RETURN_NONE;
    return Py_BuildValue("IIIIK", made->site, made->op, made->module, made->call, (unsigned long long)made->seq);
}

/* The system gives a new thread the identity of one that ended, and torch counts its nodes from 0: what
 * the old one made keeps its own place. */
static PyObject *mode_begin_thread(Mode *self, PyObject *unused)
{
    Tape *tape = self->tape;
    unsigned long ident = PyThread_get_thread_ident();
    for (int i = 0; i < tape->n_threads; i++)
        if (tape->threads[i] == ident) tape->threads[i] = 0;
    int thread = tape_thread(tape);
    self->made[thread].used = self->made[thread].start = 0;
    memset(&self->now[thread], 0, sizeof self->now[thread]);
    Py_RETURN_NONE;
}

static PyObject *mode_set_module(Mode *self, PyObject *args)
{
    int thread = tape_thread(self->tape);
    if (!PyArg_ParseTuple(args, "II", &self->now[thread].module, &self->now[thread].path)) return NULL;
    Py_RETURN_NONE;
}

static PyObject *mode_set_pass(Mode *self, PyObject *args)
{
    if (!PyArg_ParseTuple(args, "I", &self->now[tape_thread(self->tape)].pass)) return NULL;
    Py_RETURN_NONE;
}

static PyObject *mode_here(Mode *self, PyObject *unused)
{
    int64_t site = find_site(self, NULL);
    return site < 0 ? NULL : PyLong_FromLongLong(site);
}

static PyObject *mode_enter_made(Mode *self, PyObject *args)
{
    unsigned int op;
    long long low, high, begin;
    unsigned long long seq;
    if (!PyArg_ParseTuple(args, "ILLKL", &op, &low, &high, &seq, &begin)) return NULL;
    if (log_forward(self, op, low, high, seq, begin + self->tape->origin, 0) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *mode_log_made(Mode *self, PyObject *args)
{
    unsigned long long low, high;
    unsigned int site, op, module, call;
    if (!PyArg_ParseTuple(args, "KKIIII", &low, &high, &site, &op, &module, &call)) return NULL;
    if (log_made(self, tape_thread(self->tape), (Made){low, 0, (uint32_t)(high - low), site, op, module, call, 0}) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef mode_methods[] = {
    {"made_by", (PyCFunction)mode_made_by, METH_O,
     "made_by(sequence_nr): (site, op, module, call, seq) of the operation that made a node, or None."},
    {"begin_thread", (PyCFunction)mode_begin_thread, METH_NOARGS, "The calling thread has just been started."},
    {"set_module", (PyCFunction)mode_set_module, METH_VARARGS, "set_module(id, path): what runs in this thread."},
    {"set_pass", (PyCFunction)mode_set_pass, METH_VARARGS, "set_pass(id): what runs in this thread, 0 for none."},
    {"log_forward", (PyCFunction)mode_enter_made, METH_VARARGS,
     "log_forward(op, low, high, seq, t_ns): record an operation that was seen another way."},
    {"log_made", (PyCFunction)mode_log_made, METH_VARARGS,
     "log_made(low, high, site, op, module, call): say what made nodes that no operation did."},
    {"note_written", (PyCFunction)mode_note_written, METH_VARARGS, "note_written(tensor, how): it was written to in place."},
    {"writes", (PyCFunction)mode_writes, METH_VARARGS,
     "writes(since=0): [(seq, address, version, how, site)] of the newest writes after that order number, in order."},
    {"here", (PyCFunction)mode_here, METH_NOARGS, "The id of the site of the nearest user frame, 0 for none."},
    {NULL},
};
static PyMemberDef mode_members[] = {
    {"book", T_OBJECT, offsetof(Mode, book), 0, NULL},
    {"severed", T_OBJECT, offsetof(Mode, severed), 0, NULL},
    {"derived", T_OBJECT, offsetof(Mode, derived), 0, NULL},
    {"kept", T_OBJECT, offsetof(Mode, kept), 0, NULL},
    {"ran", T_OBJECT, offsetof(Mode, ran), 0, NULL},
    {"stepping", T_UINT, offsetof(Mode, stepping), 0, NULL},
    {"round", T_UINT, offsetof(Mode, round), 0, NULL},
    {"paused", T_INT, offsetof(Mode, paused), 0, NULL},
    {"evicted", T_ULONGLONG, offsetof(Mode, evicted), READONLY, NULL},
    {NULL},
};
static PyType_Slot mode_slots[] = {
    {Py_tp_doc, "The __torch_function__ of a TorchFunctionMode, in C."},
    {Py_tp_new, mode_new}, {Py_tp_dealloc, mode_dealloc}, {Py_tp_traverse, mode_traverse},
    {Py_tp_clear, mode_clear}, {Py_tp_call, mode_call}, {Py_tp_getattro, mode_getattr},
    {Py_tp_methods, mode_methods}, {Py_tp_members, mode_members}, {0, NULL},
};
static PyType_Spec mode_spec = {
    "tracer.capture._core.ModeCore", sizeof(Mode), 0, COLLECTED | Py_TPFLAGS_BASETYPE, mode_slots};
