/* What we know of torch, and how it is called. Included by _core.c.
 *
 * What is asked for every operation and every node is asked of PyTorch's own C functions, which Python hands out
 * (PyCFunction_GetFunction): to look a name up and to make a call of it takes longer than what most of them do. */

static PyObject *tensor_type, *parameter_type;
static PyObject *cuda, *cpu, *disable_torch_function, *strided, *hook_dict;
static struct { PyObject *dtype; int code; } dtypes[16];
static int n_dtypes;

/* A reference to what a dotted path leads to from torch, for as long as the process lives; NULL, and no
 * exception, where this torch has no such thing. */
static PyObject *in_torch(const char *path)
{
    PyObject *found = PyImport_ImportModule("torch");
    while (found && *path) {
        char name[64];
        size_t length = strcspn(path, ".");
        PyOS_snprintf(name, sizeof name, "%.*s", (int)length, path);
        PyObject *next = PyObject_GetAttrString(found, name);
        Py_DECREF(found);
        found = next;
        path += length + (path[length] == '.');
    }
    if (!found) PyErr_Clear();
    return found;
}

static int is_plain_tensor(PyObject *object)
{
    PyObject *type = (PyObject *)Py_TYPE(object);
    return type == tensor_type || type == parameter_type;
}

/* An answer's truth: 1, 0, or -1 with an exception. Takes the reference. */
static int truth_of(PyObject *answer)
{
    int truth = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return truth;
}

/* -1 with an exception. Takes the reference. */
static long long number_in(PyObject *answer)
{
    long long number = answer ? PyLong_AsLongLong(answer) : -1;
    Py_XDECREF(answer);
    return number;
}

/* ---------------------------------------------------------------- functions */

/* A function of torch's: `call` is what its C code is called by, where `flags` is a way that we know. */
typedef struct { const char *path; PyObject *object, *self; PyCFunction call; int flags; } Function;
typedef PyObject *(*FastFunction)(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);

static Function
    task_id = {NULL}, sequence_nr = {NULL}, grad_enabled = {NULL}, /* as core_setup is given them */
    inference_enabled = {"is_inference_mode_enabled"},
    count_modes = {"_C._len_torch_function_stack"},
    count_dispatch_modes = {"_C._len_torch_dispatch_stack"},
    pop_mode = {"_C._pop_torch_function_stack"},
    push_mode = {"_C._push_on_torch_function_stack"},
    mode_enabled = {"_C._is_torch_function_mode_enabled"},
    stash = {"_C._stash_obj_in_tls"}, /* what goes along into the engine's threads */
    stashed = {"_C._get_obj_in_tls"},
    is_stashed = {"_C._is_key_in_tls"},
    is_capturing_stream = {"cuda.is_current_stream_capturing"},
    frame_callback = {"_C._dynamo.eval_frame.get_eval_frame_callback"}, /* this and the next need not be there */
    is_wrapped = {"_C._functorch.is_functorch_wrapped_tensor"};

static void know_function(Function *function, PyObject *object)
{
    *function = (Function){function->path, object, NULL, NULL, -1};
    if (!object || !PyCFunction_CheckExact(object)) return;
    function->flags = PyCFunction_GetFlags(object);
    function->self = PyCFunction_GetSelf(object);
    function->call = PyCFunction_GetFunction(object);
}

static PyObject *call_with(const Function *function, PyObject *const *args, Py_ssize_t count)
{
    if (function->flags == METH_NOARGS && count == 0) return function->call(function->self, NULL);
    if (function->flags == METH_O && count == 1) return function->call(function->self, args[0]);
    if (function->flags == (METH_FASTCALL | METH_KEYWORDS))
        return ((FastFunction)(void (*)(void))function->call)(function->self, args, count, NULL);
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple && i < count; i++) PyTuple_SetItem(tuple, i, Py_NewRef(args[i]));
    PyObject *result = !tuple ? NULL
                       : function->flags == (METH_VARARGS | METH_KEYWORDS)
                           ? ((PyCFunctionWithKeywords)(void (*)(void))function->call)(function->self, tuple, NULL)
                           : PyObject_Call(function->object, tuple, NULL);
    Py_XDECREF(tuple);
    return result;
}

static PyObject *call(const Function *function)
{
    PyObject *none[1] = {NULL};
    return call_with(function, none, 0);
}

/* For what it does alone. */
static int call_only(const Function *function)
{
    PyObject *done = call(function);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static PyObject *call1(const Function *function, PyObject *arg) { return call_with(function, &arg, 1); }

/* ---------------------------------------------------------------- attributes and methods of tensors */

/* A tensor's: `descriptor` is PyTorch's own, and `call` the C code of a method that takes nothing. */
typedef struct { const char *name; int is_method; PyObject *key, *descriptor; PyCFunction call; } Member;

static Member
    t_layout = {"layout"}, t_requires_grad = {"requires_grad"}, t_retains_grad = {"retains_grad"}, t_grad = {"grad"},
    t_version = {"_version"}, t_is_leaf = {"is_leaf"}, t_cdata = {"_cdata"}, t_is_cpu = {"is_cpu"},
    t_is_nested = {"is_nested"}, t_grad_fn = {"grad_fn"}, t_output_nr = {"output_nr"},
    t_backward_hooks = {"_backward_hooks"}, t_accumulate_hooks = {"_post_accumulate_grad_hooks"},
    t_data_ptr = {"data_ptr", 1}, t_is_neg = {"is_neg", 1}, t_is_conj = {"is_conj", 1}, t_is_view = {"_is_view", 1};
static descrgetfunc read_attribute, bind_method;

static void know_member(Member *member)
{
    char path[64];
    PyOS_snprintf(path, sizeof path, "_C.TensorBase.%s", member->name);
    PyObject *found = in_torch(path);
    PyTypeObject *wanted = member->is_method ? &PyMethodDescr_Type : &PyGetSetDescr_Type;
    member->key = PyUnicode_InternFromString(member->name);
    member->descriptor = found && Py_TYPE(found) == wanted ? found : NULL;
}

/* The C code of a bound method that is called this way; NULL, and no exception, for others. Takes the reference. */
static PyCFunction code_of_method(PyObject *bound, int flags)
{
    int is_known = bound && PyCFunction_CheckExact(bound) && PyCFunction_GetFlags(bound) == flags;
    PyCFunction code = is_known ? PyCFunction_GetFunction(bound) : NULL;
    Py_XDECREF(bound);
    if (PyErr_Occurred()) PyErr_Clear();
    return code;
}

/* What a tensor's attribute holds, or its method gives. */
static PyObject *get(PyObject *tensor, Member *member)
{
    int is_plain = is_plain_tensor(tensor) && member->descriptor;
    if (!member->is_method)
        return is_plain ? read_attribute(member->descriptor, tensor, (PyObject *)Py_TYPE(tensor))
                        : PyObject_GetAttr(tensor, member->key);
    if (is_plain && !member->call) member->call = code_of_method(bind_method(member->descriptor, tensor, (PyObject *)Py_TYPE(tensor)), METH_NOARGS);
    return is_plain && member->call ? member->call(tensor, NULL) : PyObject_CallMethodObjArgs(tensor, member->key, NULL);
}

static int ask(PyObject *tensor, Member *member) { return truth_of(get(tensor, member)); }

static int requires_grad(PyObject *tensor, PyObject *unused) { return ask(tensor, &t_requires_grad); }

/* ---------------------------------------------------------------- at the beginning */

static int find_in_torch(void)
{
    Function *needed[] = {&inference_enabled, &count_modes, &count_dispatch_modes, &pop_mode, &push_mode,
                          &mode_enabled, &stash, &stashed, &is_stashed, &is_capturing_stream};
    Member *members[] = {&t_layout, &t_requires_grad, &t_retains_grad, &t_grad, &t_version, &t_is_leaf, &t_cdata,
                         &t_is_cpu, &t_is_nested, &t_grad_fn, &t_output_nr, &t_backward_hooks, &t_accumulate_hooks,
                         &t_data_ptr, &t_is_neg, &t_is_conj, &t_is_view};
    PyObject *device = in_torch("device");
    int missing = !(cuda = in_torch("cuda")) || !device || !(cpu = PyObject_CallFunction(device, "s", "cpu"));
    Py_XDECREF(device);
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        know_function(needed[i], in_torch(needed[i]->path));
        missing |= !needed[i]->object;
    }
    know_function(&frame_callback, in_torch(frame_callback.path));
    know_function(&is_wrapped, in_torch(is_wrapped.path));
    read_attribute = (descrgetfunc)PyType_GetSlot(&PyGetSetDescr_Type, Py_tp_descr_get);
    bind_method = (descrgetfunc)PyType_GetSlot(&PyMethodDescr_Type, Py_tp_descr_get);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) know_member(members[i]);
    if (missing) PyErr_SetString(PyExc_ImportError, "this torch lacks what the compiled core asks of it");
    return missing ? -1 : 0;
}
