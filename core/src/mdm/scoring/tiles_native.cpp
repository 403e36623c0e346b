// The pass over a vocabulary for a CPU: each tile of logits is read from memory once, then lies in the first-level cache.
// Twin of the functions in mdm/tiles.py, which say what the numbers are.

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define WIDTH 16
#else
#define WIDTH 8
#endif

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));

#if WIDTH == 16
static const Ints LANES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
static const Ints LANES = {0, 1, 2, 3, 4, 5, 6, 7};
#endif

// A tile is searched in so many pieces: only those that hold what is looked for are gone through once more.
#define PIECES 16

static const float LOWEST = -1e30f;
// exp(FLOOR) is the least that is counted: below it float32 has no full precision left.
static const float FLOOR = -87.0f;

static inline Floats load(const float *x) {
    Floats v;
    memcpy(&v, x, sizeof v);
    return v;
}

// Adds e = exp(z) to sum and e z to fall, for z <= 0: exp within 2 units in the last place, 0 below FLOOR, nan for nan.
// It is 2^n times a polynomial of what is left (that of Cephes), summed in pairs: the chain of operations is short.
static inline void weigh(Floats z, Floats &sum, Floats &fall) {
    const float round = 12582912.0f + 127;  // 1.5 * 2^23: adding it leaves no room for a fraction; 127 is 2^0's exponent
    Ints low = z < FLOOR;
    z = low ? (Floats){} + FLOOR : z;
    Floats n = z * 1.44269504088896341f + round;
    Floats power = (Floats)((Ints)n << 23);  // the low bits of n are the whole number
    n -= round;
    Floats x = z - n * 0.693359375f;
    x = x - n * -2.12194440e-4f;
    Floats square = x * x;
    Floats high = 1.9875691500e-4f * x + 1.3981999507e-3f, middle = 8.3334519073e-3f * x + 4.1665795894e-2f;
    Floats p = (high * square + middle) * square + (1.6666665459e-1f * x + 5.0000001201e-1f);
    Floats e = low ? (Floats){} : (p * square + (x + 1.0f)) * power;
    sum += e;
    fall += e * z;
}

static inline float total(Floats v) {
    float sum = 0;
    for (int i = 0; i < WIDTH; i++) sum += v[i];
    return sum;
}

static inline float greatest(Floats v) {
    float most = v[0];
    for (int i = 1; i < WIDTH; i++) most = v[i] > most ? v[i] : most;
    return most;
}

static inline int32_t least(Ints v) {
    int32_t found = v[0];
    for (int i = 1; i < WIDTH; i++) found = v[i] < found ? v[i] : found;
    return found;
}

// x[from ...] of a tile of n floats, with -inf behind its end and in place of number `but`.
static inline Floats part(const float *x, int64_t n, int64_t from, int64_t but) {
    float copy[WIDTH];
    for (int i = 0; i < WIDTH; i++) copy[i] = from + i < n && from + i != but ? x[from + i] : -__builtin_inff();
    return load(copy);
}

// Calls f with all vectors of x[from ... end], of a tile of n floats without number `but`, and where each begins.
template <typename F> static inline void each(const float *x, int64_t n, int64_t from, int64_t end, int64_t but, F f) {
    auto run = [&](int64_t stop) {
        for (; from + WIDTH <= stop; from += WIDTH) f(load(x + from), from);
    };
    if (but >= from && but < end) {
        run(but);
        f(part(x, n, from, but), from);
        from += WIDTH;
    }
    run(end);
    if (from < end) f(part(x, n, from, but), from);
}

static inline Floats larger(Floats v, Floats w) { return v > w ? v : w; }

// A tile [n]; `coming` is the one that is read next. Without a `rival` the token of the second is not sought.
static void one(
    const float *x, int64_t n, const float *coming, bool rival, float *top, int64_t *best, float *rest, float *fall
) {
    const int64_t length = (n + WIDTH * PIECES - 1) / (WIDTH * PIECES) * WIDTH, pieces = (n + length - 1) / length;
    auto end_of = [&](int64_t piece) { return piece < pieces - 1 ? (piece + 1) * length : n; };
    Floats tops[PIECES];
    auto search = [&](int64_t piece, int64_t but) {
        Floats most = (Floats){} - __builtin_inff();
        each(x, n, piece * length, end_of(piece), but, [&](Floats v, int64_t) { most = larger(v, most); });
        tops[piece] = most;
    };
    for (int64_t p = 0; p < pieces; p++) search(p, -1);
    int64_t but = -1;
    for (int i = 0; i < 2; i++) {
        Floats most = tops[0];
        for (int64_t p = 1; p < pieces; p++) most = larger(tops[p], most);
        top[i] = greatest(most);
        if (i == 1 && !rival) {
            best[1] = best[0];
            break;
        }
        Ints holds = (Ints){} + (int32_t)(pieces - 1);
        for (int64_t p = pieces - 1; p >= 0; p--) holds = tops[p] == top[i] ? (Ints){} + (int32_t)p : holds;
        const int64_t p = least(holds);
        Ints at = (Ints){} + (int32_t)n;
        each(x, n, p * length, end_of(p), but, [&](Floats v, int64_t from) {
            const Ints here = LANES + (int32_t)from;
            at = (v == top[i]) & (here < at) & (here != (int32_t)but) ? here : at;
        });
        const int64_t found = least(at);
        best[i] = found < n ? found : 0;
        if (i == 0) search(p, but = found);
    }
    const float reference = top[0] > LOWEST ? top[0] : LOWEST;
    Floats sum = {}, falls = {};
    each(x, n, 0, n, but, [&](Floats v, int64_t from) {
        __builtin_prefetch(coming + from);
        weigh(v - reference, sum, falls);
    });
    *rest = total(sum), *fall = total(falls);
}

// Tiles [rows, n] of logits, lines `stride` apart. Writes top and best [rows, 2], rest and fall [rows].
extern "C" void sums(
    const float *x, int64_t rows, int64_t n, int64_t stride, int threads, int rival,
    float *top, int64_t *best, float *rest, float *fall
) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * n > 65536)
    for (int64_t t = 0; t < rows; t++) {
        const float *tile = x + t * stride;
        one(tile, n, tile + stride, rival, top + 2 * t, best + 2 * t, rest + t, fall + t);
    }
}
