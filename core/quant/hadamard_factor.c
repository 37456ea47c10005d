// Hadamard matrices that are no product: Paley I, Paley II, Goethals-Seidel (core/quant/hadamard.h).
//
// GF(q), q = p^k: an element is the number of its coefficients in base p. A polynomial x^k = c_0 + c_1 x + ... modulo which x has order
// q - 1 makes the ring a field with x a generator, so chi(x^i) = (-1)^i; candidates are tried in ascending order.
//
// Goethals-Seidel, for sequences a, b, c, d of +-1 over Z_t with N_a + N_b + N_c + N_d = 0, N_a(s) = sum_i a_i a_{i+s} for s != 0. With the
// circulant A_ij = a_{j-i} and the reversal R,
//     H = [  A      B R    C R    D R ]
//         [ -B R    A      D'R   -C'R ]      ' = transpose
//         [ -C R   -D'R    A      B'R ]
//         [ -D R    C'R   -B'R    A   ]
#include "core/quant/hadamard.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

// ---- finite fields

static bool is_prime(int64_t n) {
    for (int64_t d = 2; d * d <= n; d++)
        if (n % d == 0) return false;
    return n > 1;
}

// q = p^k; false when q is no power of a prime.
static bool prime_power(int64_t q, int64_t *p, int *k) {
    for (*p = 2; *p * *p <= q && q % *p; (*p)++) {}
    if (q < 2) return false;
    if (q % *p) *p = q;
    for (*k = 0; q % *p == 0; q /= *p) (*k)++;
    return q == 1;
}

enum { DEGREE_MOST = 10 };

// x times the element v, modulo the polynomial with the coefficients c.
static int64_t times_x(int64_t v, const int64_t *c, int64_t p, int k) {
    int64_t digits[DEGREE_MOST] = {0}, top, out = 0;
    for (int i = 0; i < k; i++, v /= p) digits[i] = v % p;
    top = digits[k - 1];
    for (int i = k - 1; i >= 0; i--) out = out * p + ((i ? digits[i - 1] : 0) + top * c[i]) % p;
    return out;
}

// chi [q]: 0, 1 for squares, -1 for the rest.
static void quadratic_character(int64_t q, int64_t p, int k, int8_t *chi) {
    int64_t c[DEGREE_MOST], order = 0, start = k == 1 ? 1 : p; // powers of x: from 1, or from x itself, the element p
    for (int64_t candidate = 1; candidate < q && order != q - 1; candidate++) {
        for (int64_t i = 0, v = candidate; i < k; i++, v /= p) c[i] = v % p;
        if (c[0] == 0) continue; // x divides the polynomial
        order = 1;
        for (int64_t v = times_x(start, c, p, k); v != start && order < q; v = times_x(v, c, p, k)) order++;
    }
    REQUIRE(order == q - 1, "every finite field has a generator");
    chi[0] = 0;
    int8_t sign = k == 1 ? 1 : -1;
    for (int64_t i = 0, v = start; i < q - 1; i++, v = times_x(v, c, p, k), sign = (int8_t)-sign) chi[v] = sign;
}

static int64_t difference(int64_t a, int64_t b, int64_t p) {
    int64_t out = 0, place = 1;
    for (; a || b; a /= p, b /= p, place *= p) out += (a % p - b % p + p) % p * place;
    return out;
}

// ---- Paley

// The conference matrix's entry: [0, 1; +-1, Q], i and j from 0 to q.
static int conference(const int8_t *chi, int64_t p, int64_t i, int64_t j, int below) {
    if (i == 0) return j > 0;
    if (j == 0) return below;
    return chi[difference(i - 1, j - 1, p)];
}

static bool paley(int64_t m, int8_t *h) {
    int64_t p, q = m - 1;
    int k;
    bool second = !(q % 4 == 3 && prime_power(q, &p, &k));
    if (second) q = m / 2 - 1;
    if (second && !(m % 4 == 0 && q % 4 == 1 && prime_power(q, &p, &k))) return false;
    int8_t *chi = mem_new((size_t)q, 1);
    quadratic_character(q, p, k, chi);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < m; j++) {
            int64_t a = second ? i / 2 : i, b = second ? j / 2 : j;
            int c = conference(chi, p, a, b, second ? 1 : -1), on = a == b, last = i % 2 && j % 2, odd = i % 2 || j % 2;
            h[i * m + j] = (int8_t)(second ? c * (last ? -1 : 1) + on * (odd ? -1 : 1) : c + on);
        }
    free(chi);
    return true;
}

// ---- Goethals-Seidel

enum { CLASSES_MOST = 8, SEQUENCES_MOST = 1 << CLASSES_MOST };

// A sequence is the bits of its signs on the classes g^(c + e Z) of GF(t)^*, bit c set for -1; 1 at 0.
struct search {
    int64_t t;
    int classes;
    int8_t class_of[HADAMARD_FACTOR_MOST / 4 + 1];
    int correlations[SEQUENCES_MOST][CLASSES_MOST]; // N at g^c, all that there is of it
};

static int sign_at(const struct search *s, int sequence, int64_t i) {
    return i && sequence >> s->class_of[i] & 1 ? -1 : 1;
}

static void correlate(struct search *s, int64_t generator) {
    int64_t shift = 1;
    for (int c = 0; c < s->classes; c++, shift = shift * generator % s->t)
        for (int sequence = 0; sequence < 1 << s->classes; sequence++) {
            int sum = 0;
            for (int64_t i = 0; i < s->t; i++)
                sum += sign_at(s, sequence, i) * sign_at(s, sequence, (i + shift) % s->t);
            s->correlations[sequence][c] = sum;
        }
}

struct pair {
    uint64_t key; // of the sum of two correlations; linear, so that opposite sums have opposite keys
    int a, b;
};

static int pair_order(const void *a, const void *b) {
    const struct pair *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->a != y->a ? x->a - y->a : x->b - y->b;
}

static bool opposite(const struct search *s, const struct pair *x, const struct pair *y) {
    for (int c = 0; c < s->classes; c++)
        if (s->correlations[x->a][c] + s->correlations[x->b][c] + s->correlations[y->a][c] + s->correlations[y->b][c])
            return false;
    return true;
}

// The first pair, in the order of keys, that has an opposite one.
static bool four_sequences(const struct search *s, int out[4]) {
    int n = 1 << s->classes, n_pairs = 0;
    struct pair *pairs = mem_new((size_t)(n * (n + 1) / 2), sizeof *pairs);
    for (int a = 0; a < n; a++)
        for (int b = a; b < n; b++) {
            uint64_t key = 0;
            for (int c = 0; c < s->classes; c++)
                key = key * UINT64_C(1000003) + (uint64_t)(int64_t)(s->correlations[a][c] + s->correlations[b][c]);
            pairs[n_pairs++] = (struct pair){key, a, b};
        }
    qsort(pairs, (size_t)n_pairs, sizeof *pairs, pair_order);
    bool found = false;
    for (int i = 0; i < n_pairs && !found; i++) {
        int low = 0, high = n_pairs;
        while (low < high) {
            int middle = (low + high) / 2;
            if (pairs[middle].key < -pairs[i].key)
                low = middle + 1;
            else
                high = middle;
        }
        found = low < n_pairs && opposite(s, &pairs[i], &pairs[low]);
        if (found) out[0] = pairs[i].a, out[1] = pairs[i].b, out[2] = pairs[low].a, out[3] = pairs[low].b;
    }
    free(pairs);
    return found;
}

static int64_t generator_of(int64_t t) {
    for (int64_t generator = 2;; generator++) {
        int64_t order = 1;
        for (int64_t power = generator; power != 1; order++) power = power * generator % t;
        if (order == t - 1) return generator;
    }
}

static bool sequences_find(struct search *s, int out[4]) {
    int64_t generator = generator_of(s->t), power = 1;
    for (s->classes = 1; s->classes <= CLASSES_MOST; s->classes++) {
        if ((s->t - 1) % s->classes) continue;
        for (int64_t i = 0; i < s->t - 1; i++, power = power * generator % s->t)
            s->class_of[power] = (int8_t)(i % s->classes);
        correlate(s, generator);
        if (four_sequences(s, out)) return true;
    }
    return false;
}

// Entry (i, j) of a block: the circulant of a sequence, times R, or its transpose times R.
enum kind { PLAIN, REVERSED, TURNED };

static int block_entry(const struct search *s, int sequence, enum kind kind, int64_t i, int64_t j) {
    int64_t column = kind == PLAIN ? j : s->t - 1 - j, shift = kind == TURNED ? i - column : column - i;
    return sign_at(s, sequence, (shift + s->t) % s->t);
}

static bool goethals_seidel(int64_t m, int8_t *h) {
    static const struct {
        int sign, sequence;
        enum kind kind;
    } array[4][4] = {
        {{1, 0, PLAIN}, {1, 1, REVERSED}, {1, 2, REVERSED}, {1, 3, REVERSED}},
        {{-1, 1, REVERSED}, {1, 0, PLAIN}, {1, 3, TURNED}, {-1, 2, TURNED}},
        {{-1, 2, REVERSED}, {-1, 3, TURNED}, {1, 0, PLAIN}, {1, 1, TURNED}},
        {{-1, 3, REVERSED}, {1, 2, TURNED}, {-1, 1, TURNED}, {1, 0, PLAIN}},
    };
    int sequences[4];
    int64_t t = m / 4;
    if (m % 4 || t < 3 || !is_prime(t)) return false;
    struct search *s = mem_new(1, sizeof *s);
    s->t = t;
    bool found = sequences_find(s, sequences);
    for (int64_t i = 0; i < m && found; i++)
        for (int64_t j = 0; j < m; j++) {
            int sign = array[i / t][j / t].sign, sequence = sequences[array[i / t][j / t].sequence];
            h[i * m + j] = (int8_t)(sign * block_entry(s, sequence, array[i / t][j / t].kind, i % t, j % t));
        }
    free(s);
    return found;
}

bool hadamard_factor(int64_t m, int8_t *entries) {
    return m >= 4 && m <= HADAMARD_FACTOR_MOST && (paley(m, entries) || goethals_seidel(m, entries));
}
