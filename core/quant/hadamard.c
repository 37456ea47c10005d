#include "core/quant/hadamard.h"

#include "core/base/mem.h"
#include "core/base/walsh.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- how a width is made

// Which orders have a factor, asked once each.
struct known {
    int8_t state[HADAMARD_FACTOR_MOST + 1]; // 0 not asked, 1 yes, -1 no
    int8_t *entries;                        // room for the largest
};

static bool is_known(struct known *known, int64_t m) {
    if (m % 4 || m > HADAMARD_FACTOR_MOST) return false;
    if (!known->state[m]) known->state[m] = hadamard_factor(m, known->entries) ? 1 : -1;
    return known->state[m] > 0;
}

struct product {
    int64_t work; // additions per number: the sum of the factors' orders and log2 p
    int n_factors;
    int64_t factors[HADAMARD_FACTORS];
    int64_t sylvester;
};

static int64_t log2_of(int64_t n) {
    int64_t log = 0;
    while (n > 1) n /= 2, log++;
    return log;
}

// The product of order n with the least work among those whose factors are at most `largest`; false when there is none.
static bool cheapest(struct known *known, int64_t n, int64_t largest, int depth, struct product *out) {
    if (walsh_has_size(n)) {
        *out = (struct product){.work = log2_of(n), .sylvester = n};
        return true;
    }
    bool found = false;
    for (int64_t m = 12; m <= largest && m <= n && depth < HADAMARD_FACTORS; m += 4) {
        struct product rest;
        if (n % m || walsh_has_size(m) || !is_known(known, m) || !cheapest(known, n / m, m, depth + 1, &rest)) continue;
        if (found && rest.work + m >= out->work) continue;
        found = true;
        *out = rest;
        out->work += m;
        memmove(out->factors + 1, out->factors, (size_t)rest.n_factors * sizeof *out->factors);
        out->factors[0] = m;
        out->n_factors++;
    }
    return found;
}

static void tables_fill(struct hadamard *h, int8_t *entries) {
    for (int f = 0; f < h->n_factors; f++) {
        h->table_rows += 2 * h->factors[f];
        if ((h->factors[f] + 31) / 32 > h->words) h->words = (h->factors[f] + 31) / 32;
    }
    if (!h->n_factors) return;
    h->tables = mem_new((size_t)(h->table_rows * h->words), sizeof *h->tables);
    uint32_t *row = (uint32_t *)h->tables;
    for (int f = 0; f < h->n_factors; f++) {
        int64_t m = h->factors[f];
        REQUIRE(hadamard_factor(m, entries), "the factor is there");
        for (int64_t i = 0; i < 2 * m; i++, row += h->words)
            for (int64_t j = 0; j < m; j++)
                if ((i < m ? entries[i * m + j] : entries[j * m + i - m]) < 0) row[j / 32] |= 1u << j % 32;
    }
}

static enum status refuse(int64_t n) {
    const char *why =
        n % 4 ? "it is no multiple of 4" : "it has no factors of orders up to 512 that the constructions reach";
    return status_set(STATUS_UNSUPPORTED,
                      "width %lld: no Hadamard matrix (%s); transform it in blocks, or leave the layer as it is",
                      (long long)n, why);
}

enum status hadamard_new(int64_t n, bool blocks, struct hadamard **out) {
    REQUIRE(n >= 1, "a width is positive");
    struct known known = {.entries = mem_new(HADAMARD_FACTOR_MOST, HADAMARD_FACTOR_MOST)};
    struct product product;
    enum status status = STATUS_OK;
    int64_t parts = 1;
    while (n % parts || !cheapest(&known, n / parts, HADAMARD_FACTOR_MOST, 0, &product)) {
        if (!blocks) TRY(refuse(n));
        parts++;
    }
    struct hadamard *h = mem_new(1, sizeof *h);
    *h = (struct hadamard){.n = n, .order = n / parts, .blocks = parts};
    h->n_factors = product.n_factors;
    h->sylvester = product.sylvester;
    memcpy(h->factors, product.factors, sizeof h->factors);
    tables_fill(h, known.entries);
    *out = h;
done:
    free(known.entries);
    return status;
}

struct hadamard *hadamard_identity(int64_t n) {
    struct hadamard *h = mem_new(1, sizeof *h);
    *h = (struct hadamard){.n = n, .order = 1, .blocks = n, .sylvester = 1};
    return h;
}

void hadamard_free(struct hadamard *h) {
    if (!h) return;
    free(h->tables);
    free(h);
}

char *hadamard_describe(const struct hadamard *h) {
    char text[160] = "";
    size_t at = 0;
    if (h->blocks > 1) at += (size_t)snprintf(text, sizeof text, "%lld blocks of ", (long long)h->blocks);
    for (int f = 0; f < h->n_factors; f++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%lld", f ? " x " : "", (long long)h->factors[f]);
    if (h->sylvester > 1 || !h->n_factors)
        snprintf(text + at, sizeof text - at, "%s%lld", h->n_factors ? " x " : "", (long long)h->sylvester);
    return mem_string(text);
}

// ---- its numbers

static int table_sign(const struct hadamard *h, int64_t row, int64_t column) {
    return (uint32_t)h->tables[row * h->words + column / 32] >> column % 32 & 1 ? -1 : 1;
}

int hadamard_entry(const struct hadamard *h, int64_t i, int64_t j) {
    if (i / h->order != j / h->order) return 0;
    i %= h->order, j %= h->order;
    int64_t rest = h->order, row = 0;
    int sign = 1;
    for (int f = 0; f < h->n_factors; f++) {
        rest /= h->factors[f];
        sign *= table_sign(h, row + i / rest, j / rest);
        i %= rest, j %= rest;
        row += 2 * h->factors[f];
    }
    return __builtin_parityll((unsigned long long)(i & j)) ? -sign : sign;
}

// x [m, inner] <- F x.
static void factor_apply(const struct hadamard *h, int64_t table, int64_t m, int64_t inner, double *x, double *work) {
    for (int64_t i = 0; i < m; i++) {
        double *to = work + i * inner;
        memset(to, 0, (size_t)inner * sizeof *to);
        for (int64_t j = 0; j < m; j++) {
            double sign = table_sign(h, table + i, j);
            for (int64_t c = 0; c < inner; c++) to[c] += sign * x[j * inner + c];
        }
    }
    memcpy(x, work, (size_t)(m * inner) * sizeof *x);
}

void hadamard_apply(const struct hadamard *h, bool transposed, const float *signs, double *x) {
    double *work = h->n_factors ? mem_new((size_t)h->order, sizeof *work) : NULL;
    double factor = 1 / sqrt((double)h->order);
    for (int64_t i = 0; i < h->n; i++) x[i] *= signs && !transposed ? factor * (double)signs[i] : factor;
    for (int64_t at = 0; at < h->n; at += h->sylvester) walsh_transform(x + at, h->sylvester);
    int64_t inner = h->order, table = 0;
    for (int f = 0; f < h->n_factors; f++) {
        int64_t m = h->factors[f];
        inner /= m;
        for (int64_t at = 0; at < h->n; at += m * inner)
            factor_apply(h, table + (transposed ? m : 0), m, inner, x + at, work);
        table += 2 * m;
    }
    for (int64_t i = 0; i < h->n && transposed && signs; i++) x[i] *= (double)signs[i];
    free(work);
}
