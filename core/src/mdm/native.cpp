// The pass over a vocabulary for a CPU: one read of each tile of logits while it lies in the first-level cache.
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

static const float LOWEST = -1e30f;
// exp(FLOOR) is the least that is counted: below it float32 has no full precision left.
static const float FLOOR = -87.0f;

static inline Floats load(const float *x) {
    Floats v;
    memcpy(&v, x, sizeof v);
    return v;
}

// exp of z <= 0, within 2 units in the last place; 0 below FLOOR, nan for nan. 2^n times a polynomial of what is left.
static inline Floats exponential(Floats z) {
    const float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves no room for a fraction
    Ints low = z < FLOOR;
    Floats x = low ? (Floats){} + FLOOR : z;
    Floats n = x * 1.44269504088896341f + round;
    Ints power = ((Ints)n << 23) + (127 << 23);  // the low bits of n are the whole number
    n -= round;
    x = x - n * 0.693359375f;
    x = x - n * -2.12194440e-4f;
    Floats p = 1.9875691500e-4f * x + 1.3981999507e-3f;
    p = p * x + 8.3334519073e-3f;
    p = p * x + 4.1665795894e-2f;
    p = p * x + 1.6666665459e-1f;
    p = p * x + 5.0000001201e-1f;
    p = p * x * x + x + 1.0f;
    return low ? (Floats){} : p * (Floats)power;
}

static inline float total(Floats v) {
    float sum = 0;
    for (int i = 0; i < WIDTH; i++) sum += v[i];
    return sum;
}

// Whether value is among `count` vectors from x on.
static inline bool among(const float *x, int count, float value) {
    Ints same = {};
    for (int i = 0; i < count; i++) same |= load(x + i * WIDTH) == value;
    int32_t any = 0;
    for (int i = 0; i < WIDTH; i++) any |= same[i];
    return any;
}

// The first place of value among n floats, but for the place `but`; n where there is none.
static inline int64_t place(const float *x, int64_t n, float value, int64_t but) {
    for (int64_t at = 0; at < n;) {
        if (at % (16 * WIDTH) == 0 && at + 16 * WIDTH <= n && !among(x + at, 16, value)) {
            at += 16 * WIDTH;
        } else if (at + WIDTH <= n && !among(x + at, 1, value)) {
            at += WIDTH;
        } else {
            for (int i = 0; i < WIDTH && at < n; i++, at++)
                if (x[at] == value && at != but) return at;
        }
    }
    return n;
}

// Takes v into the two largest so far.
template <typename T> static inline void add(T v, T &first, T &second) {
    T lesser = v < first ? v : first;
    first = v > first ? v : first;
    second = lesser > second ? lesser : second;
}

static void one(const float *x, int64_t n, float *top, int64_t *best, float *rest, float *fall) {
    const float least = -__builtin_inff();
    Floats low = (Floats){} + least, first[2] = {low, low}, second[2] = {low, low};
    int64_t at = 0;
    for (; at + 2 * WIDTH <= n; at += 2 * WIDTH)
        for (int i = 0; i < 2; i++) add(load(x + at + i * WIDTH), first[i], second[i]);
    float largest = least, next = least;
    for (int i = 0; i < WIDTH; i++)
        for (int j = 0; j < 2; j++) add(first[j][i], largest, next), add(second[j][i], largest, next);
    for (; at < n; at++) add(x[at], largest, next);
    int64_t where = place(x, n, largest, -1);
    int64_t other = place(x, n, next, where);
    top[0] = largest, top[1] = next;
    best[0] = where < n ? where : 0, best[1] = other < n ? other : 0;

    float reference = largest > LOWEST ? largest : LOWEST;
    Floats sum = {}, falls = {};
    const int64_t skip = where / WIDTH * WIDTH;
    float tail[WIDTH];
    for (at = 0; at < n; at += WIDTH) {
        Floats v;
        if (at + WIDTH > n || at == skip) {  // the last few, and those beside the largest, which is left out
            for (int i = 0; i < WIDTH; i++) tail[i] = at + i < n && at + i != where ? x[at + i] : least;
            v = load(tail);
        } else {
            v = load(x + at);
        }
        Floats z = v - reference;
        Floats e = exponential(z);
        sum += e;
        falls += z < FLOOR ? (Floats){} : e * z;
    }
    *rest = total(sum), *fall = total(falls);
}

// Tiles [rows, n] of logits, lines `stride` apart. Writes top and best [rows, 2], rest and fall [rows].
extern "C" void sums(
    const float *x, int64_t rows, int64_t n, int64_t stride, int threads, float *top, int64_t *best, float *rest, float *fall
) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * n > 65536)
    for (int64_t t = 0; t < rows; t++) one(x + t * stride, n, top + 2 * t, best + 2 * t, rest + t, fall + t);
}
