/* Which line of the user's code runs, and which operation there made which nodes: the state of a Mode,
 * and its logs. Included by _core.c. */

/* What to do when a function is called: its id, and the callbacks of one that needs them. */
enum { OBSERVE = 0, IGNORE = 1, WRITE = 2, SET_GRAD = 3, GET_GRAD = 4, SET_DATA = 5, CUT_DATA = 6, CUT_DETACH = 7 };

typedef struct { PyObject_HEAD uint32_t id, how; int action, is_native; PyObject *before, *after; } Op;

static int op_traverse(Op *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->before);
    Py_VISIT(self->after);
    return 0;
}

static int op_clear(Op *self)
{
    Py_CLEAR(self->before);
    Py_CLEAR(self->after);
    return 0;
}

static void op_dealloc(PyObject *self) { free_object(self, (inquiry)op_clear); }

static PyObject *op_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"id", "action", "how", "before", "after", NULL};
    unsigned int id, how = 0;
    int action = OBSERVE;
    PyObject *before = Py_None, *after = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "I|iIOO", names, &id, &action, &how, &before, &after))
        return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Op *self = (Op *)make(type, 0);
    if (!self) return NULL;
    self->id = id;
    self->action = action;
    self->how = how;
    self->before = before == Py_None ? NULL : Py_NewRef(before);
    self->after = after == Py_None ? NULL : Py_NewRef(after);
    return (PyObject *)self;
}

static PyMemberDef op_members[] = {
    {"id", T_UINT, offsetof(Op, id), READONLY, NULL},
    {"action", T_INT, offsetof(Op, action), READONLY, NULL},
    {NULL},
};
static PyType_Slot op_slots[] = {
    {Py_tp_doc, "Op(id, action=0, how=0, before=None, after=None): what to do when a function is called."},
    {Py_tp_new, op_new}, {Py_tp_dealloc, op_dealloc}, {Py_tp_traverse, op_traverse},
    {Py_tp_clear, op_clear}, {Py_tp_members, op_members}, {0, NULL},
};
static PyType_Spec op_spec = {"tracer.capture._core.Op", sizeof(Op), 0, COLLECTED, op_slots};

/* Code positions seen: (code, lasti) -> site id and how often it ran; lasti -1 is the code itself,
 * whose value says whether it is the user's. The Python side keeps the code objects alive. */
/* A position in the user's code; `inner` is where in PyTorch's own Python code it had come to, if it
 * was inside such code: a function that runs many operations runs each of them once. */
typedef struct { const void *code, *inner; int32_t lasti, inner_lasti; } At;
typedef struct { At at; uint32_t value, calls, round, most; } Place; /* most: calls ever in a round */
typedef struct { Place *slots; uint32_t room, used; } Places;

static uint32_t hash_at(At at)
{
    return (uint32_t)(((uintptr_t)at.code >> 4) * 2654435761u + (uint32_t)at.lasti * 40503u +
                      ((uintptr_t)at.inner >> 4) * 2246822519u + (uint32_t)at.inner_lasti * 3266489917u);
}

static int is_at(At one, At other)
{
    return one.code == other.code && one.lasti == other.lasti && one.inner == other.inner &&
           one.inner_lasti == other.inner_lasti;
}

/* The place, or the empty one where it belongs: whoever fills that counts it as used. */
static Place *find_place(Places *places, At at)
{
    if (places->used * 2 >= places->room) {
        uint32_t room = places->room ? places->room * 2 : 1024;
        Place *slots = calloc(room, sizeof(Place));
        if (!slots) { PyErr_NoMemory(); return NULL; }
        Place *old = places->slots;
        for (uint32_t i = 0; i < places->room; i++)
            if (old[i].at.code) {
                uint32_t slot = hash_at(old[i].at);
                while (slots[slot & (room - 1)].at.code) slot++;
                slots[slot & (room - 1)] = old[i];
            }
        free(old);
        places->slots = slots;
        places->room = room;
    }
    for (uint32_t slot = hash_at(at);; slot++) {
        Place *place = &places->slots[slot & (places->room - 1)];
        if (!place->at.code || is_at(place->at, at)) return place;
    }
}

/* Which operation made which nodes: `count` sequence numbers from `low` on, in order, the newest MADE_MOST only.
 * `shape` stands for shape and dtype of what it gave, as the last of these nodes did; 0 for not known. */
typedef struct { uint64_t low, seq; uint32_t count, site, op, module, call, shape; } Made;
typedef struct { Made *items; uint32_t room, start, used; } MadeLog;
enum { MADE_MOST = 1 << 18, NESTED_MOST = 16, RAN_MOST = 10000, MOST_OPS = 1 << 16, SHAPES_MOST = 1 << 16 };

/* What was written to in place: where its elements are and which version that made; the newest only. */
typedef struct { uint64_t seq; long long pointer, version; uint32_t how, site; } Written;
enum { WRITTEN_MOST = 1 << 12 };

/* What was numbered of late, where it is found without making an object of it: shapes, and what makes two nodes
 * alike (`shape` is that of the single input). */
enum { RECENT = 256, RECENT_DIMENSIONS = 4 };
typedef struct { int64_t sizes[RECENT_DIMENSIONS]; int32_t code, ndim; uint32_t number; } Shape;
typedef struct { PyObject *type; uint32_t shape, site, op, module, number; } Signature;

typedef struct {
    PyObject_HEAD
    Tape *tape;
    PyObject *ops;         /* dict: function -> Op */
    PyObject *describe;    /* describe(function) -> Op */
    PyObject *is_user;     /* is_user(code) -> bool */
    PyObject *site;        /* site(code, lasti, line) -> id */
    PyObject *severed;     /* dict: tensors without history that an operation had, by identity, or None */
    PyObject *derived;     /* derived(op, args, result): one of those went into an operation */
    PyObject *ran;         /* ran(site, call): a site ran more often in a round than ever, or None */
    PyObject *plain;       /* plain(op id, args, kwargs, result, site, seq, t_ns): made no node */
    PyObject *fault;
    Book *book;
    PyObject *shapes;      /* dict: code and shape, as bytes -> number from 1 */
    Shape recent_shapes[RECENT];
    PyObject *signatures;  /* dict: as the walks have it; how many it held after the last, and its numbers */
    Py_ssize_t n_signatures;
    Signature recent_signatures[RECENT];
    PyObject *metas;       /* dict: metadata of a node's inputs -> the same, as all such nodes have it */
    PyObject *kept;        /* what is known of results that lost their history: KEPT_... */
    uint32_t stepping;     /* while an optimizer steps: its name, as a string id */
    struct {
        uint32_t module;   /* id of the module whose forward is running, 0 for none */
        uint32_t path;     /* and its path, as a string id */
        uint32_t pass;     /* the pass that is running, 0 for none */
    } now[THREADS];        /* by thread */
    uint32_t round;        /* counts of a site start anew when this changes */
    int paused;
    uint64_t evicted;
    Places places;
    MadeLog made[THREADS];
    Written *written;      /* a ring */
    uint64_t n_written;
} Mode;

static int mode_traverse(Mode *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->tape);
    Py_VISIT(self->book);
    Py_VISIT(self->kept);
    Py_VISIT(self->ops);
    Py_VISIT(self->describe);
    Py_VISIT(self->is_user);
    Py_VISIT(self->site);
    Py_VISIT(self->ran);
    Py_VISIT(self->severed);
    Py_VISIT(self->derived);
    Py_VISIT(self->plain);
    Py_VISIT(self->fault);
    Py_VISIT(self->shapes);
    Py_VISIT(self->signatures);
    Py_VISIT(self->metas);
    return 0;
}

static int mode_clear(Mode *self)
{
    Py_CLEAR(self->shapes);
    Py_CLEAR(self->signatures);
    Py_CLEAR(self->metas);
    Py_CLEAR(self->tape);
    Py_CLEAR(self->book);
    Py_CLEAR(self->kept);
    Py_CLEAR(self->ops);
    Py_CLEAR(self->describe);
    Py_CLEAR(self->is_user);
    Py_CLEAR(self->site);
    Py_CLEAR(self->ran);
    Py_CLEAR(self->severed);
    Py_CLEAR(self->derived);
    Py_CLEAR(self->plain);
    Py_CLEAR(self->fault);
    return 0;
}

static void mode_dealloc(Mode *self)
{
    free(self->places.slots);
    free(self->written);
    for (int i = 0; i < THREADS; i++) free(self->made[i].items);
    free_object((PyObject *)self, (inquiry)mode_clear);
}

static PyObject *mode_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"tape", "describe", "is_user", "site", "plain", "fault", NULL};
    PyObject *tape, *describe, *is_user, *site, *plain, *fault;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOO", names, &tape, &describe, &is_user, &site,
                                     &plain, &fault))
        return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Mode *self = (Mode *)make(type, 0);
    if (!self) return NULL;
    self->tape = (Tape *)Py_NewRef(tape);
    self->ops = PyDict_New();
    self->shapes = PyDict_New();
    self->metas = PyDict_New();
    self->describe = Py_NewRef(describe);
    self->is_user = Py_NewRef(is_user);
    self->site = Py_NewRef(site);
    self->plain = Py_NewRef(plain);
    self->fault = Py_NewRef(fault);
    self->round = 1;
    return (PyObject *)self;
}

static uint32_t count_call(Mode *self, Place *place)
{
    if (place->round != self->round) { place->round = self->round; place->calls = 0; }
    return ++place->calls;
}

static int lasti_of(PyObject *frame, int32_t *lasti)
{
    static PyObject *descriptor;
    static descrgetfunc read;
    if (!descriptor) {
        descriptor = PyObject_GetAttr((PyObject *)Py_TYPE(frame), s_f_lasti);
        if (!descriptor) return -1;
        read = (descrgetfunc)PyType_GetSlot(Py_TYPE(descriptor), Py_tp_descr_get);
    }
    long long last = number_in(read(descriptor, frame, (PyObject *)Py_TYPE(frame)));
    *lasti = (int32_t)last;
    return last == -1 && PyErr_Occurred() ? -1 : 0;
}

/* A site runs for the first time as often as this in a round: its loops stand where they first did. */
static int tell_ran(Mode *self, Place *place, uint32_t site, uint32_t call)
{
    if (call <= place->most || call > RAN_MOST || !self->ran || self->ran == Py_None) return 0;
    place->most = call;
    PyObject *done = PyObject_CallFunction(self->ran, "II", site, call);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* The site of the nearest user frame, 0 where there is none; with `call`, count one more call of it. */
static int64_t find_site(Mode *self, uint32_t *call)
{
    PyObject *frame = (PyObject *)PyEval_GetFrame();
    At inner = {NULL, NULL, 0, 0};
    if (call) *call = 0;
    Py_XINCREF(frame);
    while (frame && frame != Py_None) {
        PyCodeObject *code = PyFrame_GetCode((PyFrameObject *)frame);
        At at = {code, NULL, -1, 0};
        Place *place = find_place(&self->places, at);
        if (!place) goto fail;
        if (!place->at.code) {
            PyObject *answer = PyObject_CallFunctionObjArgs(self->is_user, code, NULL);
            if (!answer) goto fail;
            int is_user = PyObject_IsTrue(answer);
            Py_DECREF(answer);
            if (is_user < 0) goto fail;
            place = find_place(&self->places, at);
            if (!place) goto fail;
            *place = (Place){at, is_user, 0, 0};
            self->places.used++;
        }
        if (place->value) {
            if (lasti_of(frame, &at.lasti) < 0) goto fail;
            place = find_place(&self->places, at);
            if (!place) goto fail;
            if (!place->at.code) {
                PyObject *id = PyObject_CallFunction(self->site, "Oii", code, at.lasti,
                                                     PyFrame_GetLineNumber((PyFrameObject *)frame));
                if (!id) goto fail;
                uint32_t value = (uint32_t)PyLong_AsUnsignedLong(id);
                Py_DECREF(id);
                if (PyErr_Occurred()) goto fail;
                place = find_place(&self->places, at);
                if (!place) goto fail;
                *place = (Place){at, value, 0, 0};
                self->places.used++;
            }
            uint32_t value = place->value;
            if (call && inner.code) {
                at.inner = inner.code;
                at.inner_lasti = inner.lasti;
                place = find_place(&self->places, at);
                if (!place) goto fail;
                if (!place->at.code) { *place = (Place){at, value, 0, 0}; self->places.used++; }
            }
            if (call) {
                *call = count_call(self, place);
                if (tell_ran(self, place, value, *call) < 0) goto fail;
            }
            Py_DECREF(code);
            Py_DECREF(frame);
            return value;
        }
        if (call && !inner.code) {
            inner.code = code;
            if (lasti_of(frame, &inner.lasti) < 0) goto fail;
        }
        Py_DECREF(code);
        PyObject *back = PyObject_GetAttr(frame, s_f_back);
        Py_DECREF(frame);
        if (!back) return -1;
        frame = back;
        continue;
    fail:
        Py_DECREF(code);
        Py_DECREF(frame);
        return -1;
    }
    Py_XDECREF(frame);
    return 0;
}

static Made *made_at(MadeLog *log, uint32_t at) { return &log->items[(log->start + at) & (log->room - 1)]; }

static int log_made(Mode *self, int thread, Made made)
{
    MadeLog *log = &self->made[thread];
    if (thread == TOO_MANY) { self->evicted++; return 0; } /* whose counts would get mixed up */
    if (log->used == log->room && log->room < MADE_MOST) {
        uint32_t room = log->room ? log->room * 2 : 256;
        Made *items = realloc(log->items, room * sizeof(Made));
        if (!items) { PyErr_NoMemory(); return -1; }
        log->items = items;
        log->room = room;
    }
    if (log->used < log->room) {
        log->used++;
    } else {
        log->start = (log->start + 1) & (log->room - 1);
        self->evicted++;
    }
    /* a custom Function is logged after what its forward made, though it took its number before */
    uint32_t at = log->used - 1;
    for (; at > 0 && made_at(log, at - 1)->low > made.low; at--) *made_at(log, at) = *made_at(log, at - 1);
    *made_at(log, at) = made;
    return 0;
}

static uint32_t mixed(uint32_t hash, uint64_t value) { return (hash ^ (uint32_t)value ^ (uint32_t)(value >> 32)) * 2654435761u; }

/* Where a shape of few dimensions is, if it was numbered of late, and belongs. */
static Shape *recent_shape(Mode *self, int code, const int64_t *sizes, int ndim)
{
    uint32_t hash = mixed(mixed(17, (uint64_t)code), (uint64_t)ndim);
    for (int d = 0; d < ndim; d++) hash = mixed(hash, (uint64_t)sizes[d]);
    return &self->recent_shapes[(hash >> 16) % RECENT];
}

static int is_shape(const Shape *shape, int code, const int64_t *sizes, int ndim)
{
    int same = shape->number && shape->code == code && shape->ndim == ndim;
    for (int d = 0; same && d < ndim; d++) same = shape->sizes[d] == sizes[d];
    return same;
}

static uint32_t find_shape(Mode *self, int code, int64_t *shape, int ndim)
{
    shape[ndim] = code;
    PyObject *key = PyBytes_FromStringAndSize((const char *)shape, (ndim + 1) * sizeof *shape);
    PyObject *known = key ? Py_XNewRef(PyDict_GetItemWithError(self->shapes, key)) : NULL;
    if (key && !known && !PyErr_Occurred() && PyDict_Size(self->shapes) < SHAPES_MOST) {
        known = PyLong_FromSsize_t(PyDict_Size(self->shapes) + 1);
        if (known && PyDict_SetItem(self->shapes, key, known) < 0) Py_CLEAR(known);
    }
    uint32_t number = known ? (uint32_t)PyLong_AsUnsignedLong(known) : 0;
    Py_XDECREF(key);
    Py_XDECREF(known);
    if (PyErr_Occurred()) PyErr_Clear();
    return number;
}

/* A number for a shape, with room for one size more, and the code of a dtype; 0 where there are too many. */
static uint32_t number_of_shape(Mode *self, int code, int64_t *shape, int ndim)
{
    if (ndim >= MOST_DIMENSIONS) return 0;
    if (ndim > RECENT_DIMENSIONS) return find_shape(self, code, shape, ndim);
    Shape *recent = recent_shape(self, code, shape, ndim);
    if (!is_shape(recent, code, shape, ndim)) {
        memcpy(recent->sizes, shape, ndim * sizeof *shape);
        recent->code = code;
        recent->ndim = ndim;
        recent->number = find_shape(self, code, shape, ndim);
    }
    return recent->number;
}

/* That of a tensor; 0 too where they are not seen at once. */
static uint32_t shape_of(Mode *self, PyObject *tensor)
{
    View view;
    if (!exchange) return 0;
    PyObject *guard = asks_layout || has_refused ? quiet_for_plain() : Py_NewRef(Py_None);
    int is_seen = guard && find_elements(tensor, &view);
    loud(guard);
    if (PyErr_Occurred()) PyErr_Clear();
    return is_seen ? number_of_shape(self, view.code, view.shape, view.ndim) : 0;
}

/* A frame of `forward` after its header, before what tensors it lists: their graph has those of what made nodes. */
#pragma pack(push, 1)
typedef struct { uint32_t op, site, path; uint64_t low, high; uint8_t grad_mode; uint32_t cut; uint16_t inputs, outputs; } Forward;
#pragma pack(pop)

static int log_forward(Mode *self, uint32_t op, long long low, long long high, uint64_t seq, int64_t begin, uint32_t shape)
{
    uint32_t call = 0;
    int64_t site = find_site(self, high > low ? &call : NULL);
    if (site < 0) return -1;
    Tape *tape = self->tape;
    int thread = tape_thread(tape);
    if (high > low && log_made(self, thread, (Made){low, seq, (uint32_t)(high - low), (uint32_t)site, op, self->now[thread].module, call, shape}) < 0) return -1;
    Buffer *out = &tape->frames;
    Forward told = {op, (uint32_t)site, self->now[thread].path, (uint64_t)low, (uint64_t)high, 0, 0, 0, 0};
    if (reserve(out, HEADER + sizeof told) < 0) return -1;
    put_header(out, HEADER + sizeof told, KIND_FORWARD, thread, self->now[thread].pass, seq, begin - tape->origin);
    return put(out, &told, sizeof told);
}

/* An operation that ran inside another one began later: the last to begin is asked first. */
static Made *find_made(MadeLog *log, uint64_t wanted)
{
    uint32_t low = 0, high = log->used;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (made_at(log, middle)->low <= wanted) low = middle + 1; else high = middle;
    }
    for (uint32_t back = 0; back < NESTED_MOST && back < low; back++)
        if (wanted - made_at(log, low - 1 - back)->low < made_at(log, low - 1 - back)->count) return made_at(log, low - 1 - back);
    return NULL;
}

/* Sequence numbers are counted by thread, and a node does not tell its thread: the calling thread is
 * asked first. */
static Made *find_made_anywhere(Mode *self, int own, uint64_t wanted)
{
    Made *made = find_made(&self->made[own], wanted);
    for (int i = 0; !made && i < self->tape->n_threads; i++)
        if (i != own) made = find_made(&self->made[i], wanted);
    return made;
}
