/* Where a tensor's elements lie, asked of PyTorch without its headers. Included by _core.c. */

/* What the struct of torch's DLPack table and the tensor it fills in look like (dlpack.h, version 1). */
typedef struct {
    void *data;
    int32_t device, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} Borrowed;
typedef struct {
    uint32_t major, minor;
    void *older, *allocate, *lend_for_long, *take_over;
    int (*borrow)(void *tensor, Borrowed *out);
} Exchange;
static const Exchange *exchange;

static int code_of(const Borrowed *borrowed)
{
    if (borrowed->lanes != 1) return 0;
    switch (borrowed->code << 8 | borrowed->bits) {
    case 0x220: return FLOAT32;
    case 0x240: return FLOAT64;
    case 0x210: return FLOAT16;
    case 0x410: return BFLOAT16;
    case 0x540: return COMPLEX64;
    case 0x580: return COMPLEX128;
    case 0x040: return INT64;
    case 0x020: return INT32;
    case 0x010: return INT16;
    case 0x008: return INT8;
    case 0x108: return UINT8;
    case 0x608: return BOOL;
    case 0xa08: return FLOAT8_E4M3FN;
    case 0xc08: return FLOAT8_E5M2;
    default: return 0;
    }
}

static int is_strided(PyObject *tensor)
{
    PyObject *layout = get(tensor, &t_layout);
    Py_XDECREF(layout);
    return layout == strided;
}

/* Whether torch has ever refused to lend a tensor. That costs a millisecond: from then on is asked first what it
 * refuses, tensors without strides (sparse), and those of no memory (meta), nested ones, and those that stand for
 * others within `torch.func`. */
static int asks_layout, has_refused;
static void note_refusal(PyObject *tensor);

static int would_refuse(PyObject *tensor)
{
    if (asks_layout && !is_strided(tensor)) return 1;
    if (!has_refused) return 0;
    if (ask(tensor, &t_is_cpu) != 1 || ask(tensor, &t_is_nested)) return 1;
    PyObject *answer = is_wrapped.object ? call1(&is_wrapped, tensor) : Py_NewRef(Py_False);
    Py_XDECREF(answer);
    return answer != Py_False;
}

/* One call that allocates nothing; torch has it from 2.10 on. */
static int view_by_exchange(PyObject *tensor, View *view)
{
    Borrowed borrowed;
    if (would_refuse(tensor)) return 0;
    if (exchange->borrow(tensor, &borrowed) != 0) { PyErr_Clear(); note_refusal(tensor); return 0; }
    if (borrowed.device != 1) return 0;
    if (borrowed.ndim > MOST_DIMENSIONS) return 0;
    view->code = code_of(&borrowed);
    view->data = (const char *)borrowed.data + borrowed.byte_offset;
    view->ndim = borrowed.ndim;
    for (int d = 0; d < borrowed.ndim; d++) {
        view->shape[d] = borrowed.shape[d];
        view->strides[d] = borrowed.strides[d];
    }
    return 1;
}

/* The numbers of a tuple; how many, or -1. Takes the reference. */
static int numbers_of(PyObject *tuple, int64_t *numbers)
{
    Py_ssize_t count = tuple && PyTuple_Check(tuple) ? PyTuple_Size(tuple) : -1;
    if (count > MOST_DIMENSIONS) count = -1;
    for (Py_ssize_t i = 0; i < count; i++) numbers[i] = PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
    Py_XDECREF(tuple);
    return PyErr_Occurred() ? -1 : (int)count;
}

static int view_by_methods(PyObject *tensor, View *view)
{
    PyObject *dtype = PyObject_GetAttr(tensor, s_dtype);
    view->code = 0;
    for (int i = 0; dtype && i < n_dtypes; i++)
        if (dtypes[i].dtype == dtype) view->code = dtypes[i].code;
    Py_XDECREF(dtype);
    if (!view->code || ask(tensor, &t_is_cpu) != 1 || ask(tensor, &t_is_nested) != 0) return 0;
    view->ndim = numbers_of(PyObject_GetAttr(tensor, s_shape), view->shape);
    if (view->ndim < 0 || numbers_of(PyObject_CallMethodObjArgs(tensor, s_stride, NULL), view->strides) != view->ndim) return 0;
    view->data = (const char *)(uintptr_t)number_in(get(tensor, &t_data_ptr));
    return !PyErr_Occurred();
}

/* Where they lie. */
static int find_elements(PyObject *tensor, View *view)
{
    if (!is_plain_tensor(tensor)) return 0;
    return (exchange ? view_by_exchange(tensor, view) : is_strided(tensor) && view_by_methods(tensor, view)) && view->code;
}

/* Whether the elements can be read from memory. */
static int find_view(PyObject *tensor, View *view)
{
    if (!find_elements(tensor, view) || ask(tensor, &t_is_neg) != 0) return 0;
    if ((view->code == COMPLEX64 || view->code == COMPLEX128) && ask(tensor, &t_is_conj) != 0) return 0;
    view->count = 1;
    for (int d = 0; d < view->ndim; d++) view->count *= view->shape[d];
    return view->data || !view->count;
}
