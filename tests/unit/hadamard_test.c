// Hadamard matrices in integers: orthogonal by counting, whatever construction made them; and the transform is the matrix.
#include "tests/check.h"

#include "core/base/rng.h"
#include "core/quant/hadamard.h"

static const struct {
    int64_t n;
    const char *made_of; // NULL: refused
} widths[] = {
    {64, "64"},                  // stories260K
    {172, "172"},                // stories260K's MLP: Goethals-Seidel, as neither 171 nor 85 is a prime power
    {512, "512"},                //
    {768, "12 x 64"},            //
    {896, "28 x 32"},            // Qwen2.5-0.5B
    {1376, "172 x 8"},           // stories42M
    {1536, "12 x 128"},          //
    {2048, "2048"},              //
    {2560, "20 x 128"},          // phi-2
    {3072, "12 x 256"},          // Phi-3-mini
    {3584, "28 x 128"},          // Qwen2.5-7B
    {4096, "4096"},              //
    {4544, "284 x 16"},          // Falcon-7B
    {4864, "76 x 64"},           // Qwen2.5-0.5B
    {5120, "20 x 256"},          // Llama-2-13B
    {5632, "44 x 128"},          // TinyLlama
    {6656, "52 x 128"},          // LLaMA-30B: 25 = 5^2
    {8192, "8192"},              //
    {8960, "28 x 20 x 16"},      // Qwen2.5-1.5B
    {9216, "12 x 12 x 64"},      // Phi-3-mini's fused q, k, v
    {9728, "76 x 128"},          // Qwen3-4B
    {10920, NULL},               // 8 x 3 x 5 x 7 x 13: a factor of order 5460 at least
    {11008, "172 x 64"},         // Llama-2-7B
    {13696, NULL},               // 2^7 x 107: 428 is beyond these constructions
    {13824, "12 x 12 x 12 x 8"}, // Llama-2-13B
    {14336, "28 x 512"},         // Llama-3-8B
    {16384, "16384"},            //
    {17408, "68 x 256"},         // Qwen3-14B
    {17920, "28 x 20 x 32"},     // Phi-3-medium
    {18944, "148 x 128"},        // Qwen2.5-7B
    {22016, "172 x 128"},        // LLaMA-65B
    {25600, "20 x 20 x 64"},     // Qwen3-32B
    {28672, "28 x 1024"},        // Llama-3-70B
    {29568, "44 x 28 x 12 x 2"}, // Qwen2.5-72B
};
enum { WIDTHS = sizeof widths / sizeof *widths };

static struct hadamard *open(int64_t n, bool blocks) {
    struct hadamard *h = NULL;
    check_ok(hadamard_new(n, blocks, &h));
    return h;
}

// Whether rows i and k of h [n, n] are orthogonal, or of squared length `length` where i = k.
static void check_rows(const int8_t *h, int64_t n, int64_t i, int64_t k, int64_t length) {
    int32_t sum = 0;
    for (int64_t j = 0; j < n; j++) sum += h[i * n + j] * h[k * n + j];
    assert_int_equal(sum, i == k ? length : 0);
}

static bool is_prime_power(int64_t q) {
    int64_t p = 2;
    while (p < q && q % p) p++;
    while (q > 1 && q % p == 0) q /= p;
    return q == 1 && p > 1;
}

static void factors_of_every_order_are_orthogonal(void **state) {
    (void)state;
    int8_t *h = malloc(HADAMARD_FACTOR_MOST * HADAMARD_FACTOR_MOST);
    for (int64_t m = 4; m <= HADAMARD_FACTOR_MOST; m += 4) {
        bool made = hadamard_factor(m, h), first = (m - 1) % 4 == 3 && is_prime_power(m - 1);
        bool second = (m / 2 - 1) % 4 == 1 && is_prime_power(m / 2 - 1);
        assert_int_equal(made, first || second || m == 172 || m == 292);
        for (int64_t i = 0; i < m * m && made; i++) assert_true(h[i] == 1 || h[i] == -1);
        for (int64_t i = 0; i < m && made; i++)
            for (int64_t k = i; k < m; k++) check_rows(h, m, i, k, m);
    }
    assert_false(hadamard_factor(HADAMARD_FACTOR_MOST + 12, h) || hadamard_factor(0, h) || hadamard_factor(30, h));
    free(h);
}

static void model_widths_are_made_or_refused_by_name(void **state) {
    (void)state;
    for (int i = 0; i < WIDTHS; i++) {
        struct hadamard *h = NULL;
        char name[32];
        if (!widths[i].made_of) {
            check_fails(hadamard_new(widths[i].n, false, &h), STATUS_UNSUPPORTED);
            snprintf(name, sizeof name, "width %lld", (long long)widths[i].n);
            assert_non_null(strstr(status_message(), name));
            continue;
        }
        h = open(widths[i].n, false);
        char *made_of = hadamard_describe(h);
        assert_string_equal(made_of, widths[i].made_of);
        assert_true(h->order == widths[i].n && h->blocks == 1);
        free(made_of);
        hadamard_free(h);
    }
}

static int8_t *entries_of(const struct hadamard *h) {
    int8_t *entries = malloc((size_t)(h->n * h->n));
    for (int64_t i = 0; i < h->n; i++)
        for (int64_t j = 0; j < h->n; j++) entries[i * h->n + j] = (int8_t)hadamard_entry(h, i, j);
    return entries;
}

// All pairs of rows up to 1000; of larger ones three rows with every 97th.
static void rows_of_whole_matrices_are_orthogonal(void **state) {
    (void)state;
    for (int w = 0; w < WIDTHS; w++) {
        int64_t n = widths[w].n;
        if (!widths[w].made_of) continue;
        struct hadamard *h = open(n, false);
        int8_t *two = malloc((size_t)(2 * n)), *all = n <= 1000 ? entries_of(h) : NULL;
        for (int64_t i = 0; i < n && all; i++)
            for (int64_t k = i; k < n; k++) check_rows(all, n, i, k, n);
        for (int64_t i = 5; i < n && !all; i += n / 3)
            for (int64_t k = 5 + i % 97; k < n; k += 97) {
                for (int64_t j = 0; j < n && k < 5 + i % 97 + 97; j++) two[j] = (int8_t)hadamard_entry(h, i, j);
                for (int64_t j = 0; j < n; j++) two[n + j] = (int8_t)hadamard_entry(h, k, j);
                int32_t sum = 0;
                for (int64_t j = 0; j < n; j++) sum += two[j] * two[n + j];
                assert_int_equal(sum, i == k ? n : 0);
            }
        free(two), free(all);
        hadamard_free(h);
    }
}

// In integers: H^T (H x) = n x, and H x of a unit vector is a column. Sums of n numbers below 100 are exact in double; only the
// division by sqrt(n) rounds.
static void transforms_invert_and_have_the_columns_of_the_matrix(void **state) {
    (void)state;
    struct rng rng = {.seed = 2, .stream = RNG_TEST};
    for (int w = 0; w < WIDTHS; w++) {
        int64_t n = widths[w].n;
        struct hadamard *h = open(n, true);
        double *x = malloc((size_t)n * sizeof *x), *was = malloc((size_t)n * sizeof *was),
               root = sqrt((double)h->order);
        float *signs = malloc((size_t)n * sizeof *signs);
        for (int64_t i = 0; i < n; i++) {
            was[i] = x[i] = (double)(rng_bits(rng, (uint64_t)i) % 199) - 99;
            signs[i] = rng_bits(rng, (uint64_t)(n + i)) & 1 ? -1.0f : 1.0f;
        }
        hadamard_apply(h, false, signs, x);
        for (int64_t i = 0; i < n; i++) check_near(x[i] * root, round(x[i] * root), 0, 1e-8);
        hadamard_apply(h, true, signs, x);
        for (int64_t i = 0; i < n; i++) check_near(x[i], was[i], 0, 1e-10);
        for (int64_t k = 0; k < 3; k++) {
            int64_t column = (int64_t)(rng_bits(rng, (uint64_t)(2 * n + k)) % n);
            for (int64_t i = 0; i < n; i++) x[i] = i == column;
            hadamard_apply(h, false, NULL, x);
            for (int64_t i = 0; i < n; i++) check_near(x[i] * root, hadamard_entry(h, i, column), 0, 1e-12);
            for (int64_t i = 0; i < n; i++) x[i] = i == column;
            hadamard_apply(h, true, NULL, x);
            for (int64_t i = 0; i < n; i++) check_near(x[i] * root, hadamard_entry(h, column, i), 0, 1e-12);
        }
        free(x), free(was), free(signs);
        hadamard_free(h);
    }
}

// 1, 2 and multiples of 4 only; blocks always work.
static void small_widths_are_orthogonal_or_refused(void **state) {
    (void)state;
    int refused = 0;
    for (int64_t n = 1; n <= 400; n++) {
        struct hadamard *h = NULL;
        enum status status = hadamard_new(n, false, &h);
        refused += n % 4 == 0 && status != STATUS_OK;
        if (n > 2 && n % 4) assert_int_equal(status, STATUS_UNSUPPORTED);
        if (status != STATUS_OK) h = open(n, true);
        assert_int_equal(h->order * h->blocks, n);
        int8_t *entries = entries_of(h);
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = i; k < n; k++) check_rows(entries, n, i, k, h->order);
        free(entries);
        hadamard_free(h);
    }
    assert_int_equal(refused, 13); // 92 116 156 184 188 232 236 260 268 324 356 372 376
}

static void blocks_take_the_largest_order_that_divides(void **state) {
    (void)state;
    static const struct {
        int64_t n;
        const char *made_of;
    } cases[] = {{13696, "107 blocks of 128"},
                 {10920, "13 blocks of 420 x 2"},
                 {92, "23 blocks of 4"},
                 {7, "7 blocks of 1"},
                 {172, "172"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hadamard *h = open(cases[i].n, true);
        char *made_of = hadamard_describe(h);
        assert_string_equal(made_of, cases[i].made_of);
        free(made_of);
        hadamard_free(h);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors_of_every_order_are_orthogonal),
        cmocka_unit_test(model_widths_are_made_or_refused_by_name),
        cmocka_unit_test(rows_of_whole_matrices_are_orthogonal),
        cmocka_unit_test(transforms_invert_and_have_the_columns_of_the_matrix),
        cmocka_unit_test(small_widths_are_orthogonal_or_refused),
        cmocka_unit_test(blocks_take_the_largest_order_that_divides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
