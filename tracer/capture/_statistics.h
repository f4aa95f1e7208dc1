/* What a tensor's memory holds, read once: its few values, or norm, extremes, mean and counts.
 *
 * The numbers do not depend on the machine: every element is taken as a double, sums are kept in
 * 16 lanes for a block of 4,096 elements, then added up in order, and nothing is contracted to a
 * fused operation. core_in_python/statistics.py adds in the same order and gets the same bits. Elements are
 * read in the order of memory, those that an expanded tensor shows several times once.
 *
 * Relative error of the norm, and of the mean to the mean of the absolute values: under 1e-12.
 */
#ifndef TRACER_STATISTICS_H
#define TRACER_STATISTICS_H
#include <stdint.h>
#include <string.h>
#include <math.h>
#include <stdlib.h>
#ifndef _WIN32
#include <pthread.h>
#include <signal.h>
#endif

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("O3", "fp-contract=off")
#endif
#if defined(__GNUC__) && defined(__x86_64__)
#define CHOOSES_PROCESSOR
#include <immintrin.h>
#endif

enum {
    FLOAT32 = 1, FLOAT64, FLOAT16, BFLOAT16, COMPLEX64, COMPLEX128, INT64, INT32, INT16, INT8, UINT8,
    BOOL, FLOAT8_E4M3FN, FLOAT8_E5M2
};
static const int8_t ELEMENT_SIZE[] = {0, 4, 8, 2, 2, 8, 16, 8, 4, 2, 1, 1, 1, 1, 1};

/* whether statistics are made here; the others' come from torch operations */
static int has_statistics(int code) { return code >= FLOAT32 && code <= BOOL && code != COMPLEX128; }

enum { MOST_DIMENSIONS = 64 };

/* A strided tensor in memory; strides are in elements. */
typedef struct {
    const char *data;
    int code, ndim;
    int64_t count;
    int64_t shape[MOST_DIMENSIONS], strides[MOST_DIMENSIONS];
} View;

typedef struct { double norm, min, max, mean; uint64_t zeros, nans, infs; } Stats;
enum { STATS_SIZE = 5 + sizeof(Stats) }; /* of an entry: state and metadata before */
typedef struct { double squares, sum, low, high; uint64_t zeros, nans, infs; } Sums;

#define LANES 16
#define BLOCK 4096

/* ---------------------------------------------------------------- one block of elements */

static void count_nonfinite(Sums *sums, double value)
{
    sums->nans += isnan(value) != 0;
    sums->infs += isinf(value) != 0;
}

#define ADD_ELEMENT(ELEMENT) \
    { \
        double d = (ELEMENT); \
        squares[l] += d * d; \
        sum[l] += d; \
        low[l] = (ELEMENT) < low[l] ? (ELEMENT) : low[l]; \
        high[l] = (ELEMENT) > high[l] ? (ELEMENT) : high[l]; \
        zeros[l] += (ELEMENT) == 0; \
    }

/* Whole rows of lanes, W of them in a vector of the processor's. Left to itself, gcc takes the lanes one
 * after another, 15 times as slow; that is the same sums in the same order all the same. MIN(v, low) is
 * v < low ? v : low, so that NaN is passed over, and SQUARE(d, sum) is d * d + sum rounded twice, or, of
 * floats, whose squares a double holds, in one operation that rounds once. */
#if defined(__GNUC__)
#define PICK(which, yes, no) ((Values)(((Mask)(yes) & (which)) | ((Mask)(no) & ~(which))))
#define PICK_MIN(v, low) PICK(v < low, v, low)
#define PICK_MAX(v, high) PICK(v > high, v, high)
#define WIDEN(from) __builtin_convertvector(from, Doubles)
#define SQUARE(d, sum) (d * d + sum)
#define ADD_ROWS(T, INTEGER, W, MIN, MAX, WIDEN, SQUARE) \
    { \
        typedef T Values __attribute__((vector_size(W * sizeof(T)))); \
        typedef INTEGER Mask __attribute__((vector_size(W * sizeof(T)))); \
        typedef double Doubles __attribute__((vector_size(W * sizeof(double)))); \
        enum { GROUPS = LANES / W }; \
        Doubles group_squares[GROUPS], group_sums[GROUPS]; \
        Values lows[GROUPS], highs[GROUPS], first; \
        Mask found[GROUPS]; \
        for (int l = 0; l < W; l++) first[l] = x[0]; \
        _Pragma("GCC unroll 8") for (int g = 0; g < GROUPS; g++) { \
            group_squares[g] = group_sums[g] = (Doubles){0}; \
            lows[g] = highs[g] = first; \
            found[g] = (Mask){0}; \
        } \
        for (; i + LANES <= n; i += LANES) \
            _Pragma("GCC unroll 8") for (int g = 0; g < GROUPS; g++) { \
                Values v; \
                memcpy(&v, x + i + g * W, sizeof v); \
                Doubles d = WIDEN(v); \
                group_squares[g] = SQUARE(d, group_squares[g]); \
                group_sums[g] += d; \
                lows[g] = MIN(v, lows[g]); \
                highs[g] = MAX(v, highs[g]); \
                found[g] -= (Mask)(v == 0); \
            } \
        memcpy(squares, group_squares, sizeof squares); \
        memcpy(sum, group_sums, sizeof sum); \
        memcpy(low, lows, sizeof low); \
        memcpy(high, highs, sizeof high); \
        memcpy(zeros, found, sizeof zeros); \
    }
#else
#define ADD_ROWS(T, INTEGER, W, MIN, MAX, WIDEN, SQUARE) \
    for (int l = 0; l < LANES; l++) { squares[l] = sum[l] = 0; zeros[l] = 0; low[l] = high[l] = x[0]; } \
    for (; i + LANES <= n; i += LANES) \
        for (int l = 0; l < LANES; l++) ADD_ELEMENT(x[i + l])
#endif

#define DEFINE_BLOCK(NAME, TARGET, T, INTEGER, W, MIN, MAX, WIDEN, SQUARE) \
    TARGET static void NAME(const T *x, int n, Sums *sums) \
    { \
        double squares[LANES], sum[LANES], block_squares = 0, block_sum = 0; \
        T low[LANES], high[LANES]; \
        INTEGER zeros[LANES]; \
        int i = 0; \
        ADD_ROWS(T, INTEGER, W, MIN, MAX, WIDEN, SQUARE) \
        for (int l = 0; i < n; i++, l++) ADD_ELEMENT(x[i]) \
        for (int l = 0; l < LANES; l++) { \
            block_squares += squares[l]; \
            block_sum += sum[l]; \
            sums->low = low[l] < sums->low ? low[l] : sums->low; \
            sums->high = high[l] > sums->high ? high[l] : sums->high; \
            sums->zeros += (uint64_t)zeros[l]; \
        } \
        if (!isfinite(block_squares)) \
            for (i = 0; i < n; i++) count_nonfinite(sums, x[i]); \
        sums->squares += block_squares; \
        sums->sum += block_sum; \
    }

DEFINE_BLOCK(add_floats_anywhere, , float, int32_t, 4, PICK_MIN, PICK_MAX, WIDEN, SQUARE)
DEFINE_BLOCK(add_doubles_anywhere, , double, int64_t, 2, PICK_MIN, PICK_MAX, WIDEN, SQUARE)
#ifdef CHOOSES_PROCESSOR
#define AVX2 __attribute__((target("avx2,fma")))
#define SQUARE_4(d, sum) _mm256_fmadd_pd(d, d, sum)
DEFINE_BLOCK(add_floats_avx2, AVX2, float, int32_t, 4, _mm_min_ps, _mm_max_ps, _mm256_cvtps_pd, SQUARE_4)
DEFINE_BLOCK(add_doubles_avx2, AVX2, double, int64_t, 4, _mm256_min_pd, _mm256_max_pd, , SQUARE)
#define AVX512 __attribute__((target("avx512f")))
#define SQUARE_8(d, sum) _mm512_fmadd_pd(d, d, sum)
DEFINE_BLOCK(add_floats_avx512, AVX512, float, int32_t, 8, _mm256_min_ps, _mm256_max_ps, _mm512_cvtps_pd,
             SQUARE_8)
DEFINE_BLOCK(add_doubles_avx512, AVX512, double, int64_t, 8, _mm512_min_pd, _mm512_max_pd, , SQUARE)
#endif

/* ---------------------------------------------------------------- elements of any dtype as doubles */

static double float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Scaled by a power of two: a denormal comes out right without a case of its own. */
static double half_of(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, rest = (uint32_t)(bits & 0x7fff) << 13;
    double finite = float_of(sign | rest) * 0x1p112, other = float_of(sign | rest | 0x7f800000);
    return rest >= 0x0f800000 ? other : finite;
}

#if defined(__GNUC__)
#define INLINED static inline __attribute__((always_inline))
#else
#define INLINED static inline
#endif

#define EACH(T, VALUE) \
    for (int i = 0; i < n; i++) { \
        T v; \
        memcpy(&v, from + i * step * (int64_t)sizeof v, sizeof v); \
        to[i] = VALUE; \
    }

/* The n elements that lie `step` apart; of complex ones the absolute value. */
INLINED void load_each(int code, const char *from, int64_t step, int n, double *to)
{
    switch (code) {
    case FLOAT32: EACH(float, v); break;
    case FLOAT64: EACH(double, v); break;
    case FLOAT16: EACH(uint16_t, half_of(v)); break;
    case BFLOAT16: EACH(uint16_t, float_of((uint32_t)v << 16)); break;
    case COMPLEX64:
        for (int i = 0; i < n; i++) {
            float v[2];
            memcpy(&v[0], from + i * step * 8, 4);
            memcpy(&v[1], from + i * step * 8 + 4, 4);
            to[i] = sqrt((double)v[0] * v[0] + (double)v[1] * v[1]);
        }
        break;
    case INT64: EACH(int64_t, (double)v); break;
    case INT32: EACH(int32_t, v); break;
    case INT16: EACH(int16_t, v); break;
    case INT8: EACH(int8_t, v); break;
    default: EACH(uint8_t, v); break;
    }
}

/* Of those that lie next to one another several at once. */
#define DEFINE_LOAD(NAME, TARGET) \
    TARGET static void NAME(int code, const char *from, int64_t step, int n, double *__restrict to) \
    { \
        if (step == 1) \
            load_each(code, from, 1, n, to); \
        else \
            load_each(code, from, step, n, to); \
    }
DEFINE_LOAD(load_anywhere, )
#ifdef CHOOSES_PROCESSOR
DEFINE_LOAD(load_avx2, AVX2)
#endif

static void (*load)(int, const char *, int64_t, int, double *) = load_anywhere;
static void (*add_floats)(const float *, int, Sums *) = add_floats_anywhere;
static void (*add_doubles)(const double *, int, Sums *) = add_doubles_anywhere;

/* One binary serves old and new processors. */
static void choose_blocks(void)
{
#ifdef CHOOSES_PROCESSOR
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
        add_floats = add_floats_avx512;
        add_doubles = add_doubles_avx512;
        load = load_avx2;
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        add_floats = add_floats_avx2;
        add_doubles = add_doubles_avx2;
        load = load_avx2;
    }
#endif
}

/* ---------------------------------------------------------------- a whole tensor */

/* The tensor's dimensions as memory has them: longest stride first, what can be merged merged.
 * Returns how often each element is shown. */
static int64_t compact(const View *view, View *dense)
{
    int64_t repeat = 1;
    dense->data = view->data;
    dense->code = view->code;
    dense->ndim = 0;
    for (int d = 0; d < view->ndim; d++) {
        int64_t size = view->shape[d], stride = view->strides[d];
        if (size == 1) continue;
        if (stride == 0) { repeat *= size; continue; }
        int at = dense->ndim++;
        for (; at > 0 && dense->strides[at - 1] < stride; at--) {
            dense->shape[at] = dense->shape[at - 1];
            dense->strides[at] = dense->strides[at - 1];
        }
        dense->shape[at] = size;
        dense->strides[at] = stride;
    }
    int last = 0;
    for (int d = 1; d < dense->ndim; d++) {
        if (dense->strides[last] == dense->strides[d] * dense->shape[d]) {
            dense->shape[last] *= dense->shape[d];
        } else {
            dense->shape[++last] = dense->shape[d];
        }
        dense->strides[last] = dense->strides[d];
    }
    dense->ndim = dense->ndim ? last + 1 : 0;
    dense->count = view->count / repeat;
    return repeat;
}

/* Elements on their way to `add_doubles`, a block at a time. */
typedef struct { double values[BLOCK]; int used; double factors[2]; Sums *sums; } Stage;

static void stage_flush(Stage *stage)
{
    if (stage->factors[0] != 1 || stage->factors[1] != 1)
        for (int i = 0; i < stage->used; i++)
            stage->values[i] = stage->values[i] * stage->factors[0] * stage->factors[1];
    if (stage->used) add_doubles(stage->values, stage->used, stage->sums);
    stage->used = 0;
}

static void stage_row(Stage *stage, int code, const char *from, int64_t step, int64_t count)
{
    while (count > 0) {
        int n = (int)(count < BLOCK - stage->used ? count : BLOCK - stage->used);
        load(code, from, step, n, stage->values + stage->used);
        stage->used += n;
        if (stage->used == BLOCK) stage_flush(stage);
        from += n * step * ELEMENT_SIZE[code];
        count -= n;
    }
}

/* Read all rows of the last dimension; each element times both factors. */
static void add_rows(const View *dense, double first, double second, Sums *sums)
{
    Stage stage;
    stage.used = 0;
    stage.factors[0] = first;
    stage.factors[1] = second;
    stage.sums = sums;
    int last = dense->ndim - 1;
    int64_t row = last < 0 ? 1 : dense->shape[last], step = last < 0 ? 1 : dense->strides[last];
    int64_t index[MOST_DIMENSIONS] = {0};
    const char *from = dense->data;
    for (;;) {
        stage_row(&stage, dense->code, from, step, row);
        int d = last - 1;
        for (; d >= 0; d--) {
            int64_t stride = dense->strides[d] * ELEMENT_SIZE[dense->code];
            from += stride;
            if (++index[d] < dense->shape[d]) break;
            from -= stride * dense->shape[d];
            index[d] = 0;
        }
        if (d < 0) break;
    }
    stage_flush(&stage);
}

/* One block of a tensor whose elements lie in one piece. */
static void add_block(const View *dense, int64_t block, Sums *sums)
{
    int64_t first = block * BLOCK, left = dense->count - first;
    int n = (int)(left < BLOCK ? left : BLOCK);
    if (dense->code == FLOAT32) {
        add_floats((const float *)dense->data + first, n, sums);
    } else if (dense->code == FLOAT64) {
        add_doubles((const double *)dense->data + first, n, sums);
    } else {
        double values[BLOCK];
        load(dense->code, dense->data + first * ELEMENT_SIZE[dense->code], 1, n, values);
        add_doubles(values, n, sums);
    }
}

/* ---------------------------------------------------------------- large tensors, on several threads */

enum { THREADS_MOST = 16, BLOCKS_A_THREAD = 128, STRETCH = 32 }; /* half a million elements are worth a thread */
static int reading_threads = 1;

#ifdef _WIN32
static int add_up_together(const View *dense, int64_t blocks, Sums *sums) { return 0; }
#else
typedef struct { double squares, sum; } BlockSums;
typedef struct { const View *dense; int64_t *next, end; BlockSums *blocks; Sums rest; } Share;

/* Take stretches of blocks for as long as there are some: a thread that comes late has less to do. */
static void *add_share(void *given)
{
    Share *share = given;
    for (;;) {
        int64_t block = __atomic_fetch_add(share->next, STRETCH, __ATOMIC_RELAXED);
        int64_t until = block + STRETCH < share->end ? block + STRETCH : share->end;
        if (block >= until) return NULL;
        for (; block < until; block++) {
            share->rest.squares = share->rest.sum = 0;
            add_block(share->dense, block, &share->rest);
            share->blocks[block] = (BlockSums){share->rest.squares, share->rest.sum};
        }
    }
}

static void add_shares(Share *shares, int count)
{
    pthread_t threads[THREADS_MOST];
    int begun = 0;
    sigset_t all, before; /* signals are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (begun + 1 < count && !pthread_create(&threads[begun], NULL, add_share, &shares[begun + 1])) begun++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    add_share(&shares[0]); /* all, where there are no threads to be had */
    for (int other = 0; other < begun; other++) pthread_join(threads[other], NULL);
}

/* The same sums in the same order, whatever the number of threads; 0 where there is too little for two. */
static int add_up_together(const View *dense, int64_t blocks, Sums *sums)
{
    int64_t worth = blocks / BLOCKS_A_THREAD;
    int count = worth < reading_threads ? (int)worth : reading_threads;
    BlockSums *each = count > 1 ? malloc((size_t)blocks * sizeof *each) : NULL;
    if (!each) return 0;
    int64_t next = 0;
    Share shares[THREADS_MOST];
    for (int t = 0; t < count; t++) shares[t] = (Share){dense, &next, blocks, each, *sums};
    add_shares(shares, count);
    for (int64_t block = 0; block < blocks; block++) {
        sums->squares += each[block].squares;
        sums->sum += each[block].sum;
    }
    free(each);
    for (int t = 0; t < count; t++) {
        sums->low = shares[t].rest.low < sums->low ? shares[t].rest.low : sums->low;
        sums->high = shares[t].rest.high > sums->high ? shares[t].rest.high : sums->high;
        sums->zeros += shares[t].rest.zeros;
        sums->nans += shares[t].rest.nans;
        sums->infs += shares[t].rest.infs;
    }
    return 1;
}
#endif

static Sums add_up(const View *dense)
{
    Sums sums = {0, 0, INFINITY, -INFINITY, 0, 0, 0};
    if (dense->ndim > 1 || (dense->ndim == 1 && dense->strides[0] != 1)) {
        add_rows(dense, 1, 1, &sums);
        return sums;
    }
    int64_t blocks = (dense->count + BLOCK - 1) / BLOCK;
    if (add_up_together(dense, blocks, &sums)) return sums;
    for (int64_t block = 0; block < blocks; block++) add_block(dense, block, &sums);
    return sums;
}

/* One zero and one NaN: their signs and payloads differ between processors. */
static double plain(double value) { return isnan(value) ? (double)NAN : value + 0.0; }

/* Doubles whose squares or sum leave a double's range: once more, divided by a power of two. */
static void rescale(const View *dense, const Sums *sums, int64_t repeat, Stats *stats)
{
    int exponent;
    frexp(fmax(fabs(sums->low), fabs(sums->high)), &exponent);
    int half = exponent / 2;
    Sums scaled = {0, 0, INFINITY, -INFINITY, 0, 0, 0};
    add_rows(dense, ldexp(1, -half), ldexp(1, half - exponent), &scaled);
    stats->norm = ldexp(sqrt(scaled.squares * (double)repeat), exponent);
    if (!isfinite(sums->sum)) stats->mean = ldexp(scaled.sum / (double)dense->count, exponent);
}

/* The statistics of a tensor with at least one element. */
static Stats view_statistics(const View *view)
{
    View dense;
    int64_t repeat = compact(view, &dense);
    Sums sums = add_up(&dense);
    Stats stats = {sqrt(sums.squares * (double)repeat), sums.low, sums.high,
                   sums.sum / (double)dense.count, sums.zeros * (uint64_t)repeat,
                   sums.nans * (uint64_t)repeat, sums.infs * (uint64_t)repeat};
    if (sums.nans) {
        stats.norm = stats.min = stats.max = stats.mean = NAN;
    } else if (dense.code == FLOAT64 && !sums.infs && (sums.low != 0 || sums.high != 0)) {
        int fits = sums.squares > 1e-280 && isfinite(sums.squares * (double)repeat);
        if (!fits || !isfinite(sums.sum)) rescale(&dense, &sums, repeat, &stats);
    }
    stats.norm = plain(stats.norm);
    stats.min = plain(stats.min);
    stats.max = plain(stats.max);
    stats.mean = plain(stats.mean);
    return stats;
}

static int is_row_major(const View *view)
{
    int64_t expected = 1;
    for (int d = view->ndim - 1; d >= 0; d--) {
        if (view->shape[d] != 1 && view->strides[d] != expected) return 0;
        expected *= view->shape[d];
    }
    return 1;
}

/* Copy every element, in row-major order. */
static void view_values(const View *view, char *to)
{
    int size = ELEMENT_SIZE[view->code];
    if (!view->count) return;
    if (is_row_major(view)) { memcpy(to, view->data, (size_t)view->count * size); return; }
    for (int64_t i = 0; i < view->count; i++, to += size) {
        int64_t rest = i, offset = 0;
        for (int d = view->ndim - 1; d >= 0; d--) {
            offset += rest % view->shape[d] * view->strides[d];
            rest /= view->shape[d];
        }
        memcpy(to, view->data + offset * size, size);
    }
}

#endif
