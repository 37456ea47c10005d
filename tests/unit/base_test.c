#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/status.h"

// Known answers published with Random123 (kat_vectors, philox4x32 10).
static void philox_gives_the_published_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t out[4];
        rng_philox(cases[i].counter, cases[i].key, out);
        assert_memory_equal(out, cases[i].out, sizeof out);
    }
}

static void uniform_fill_is_a_function_of_the_index(void **state) {
    (void)state;
    struct rng rng = {.seed = 7, .stream = RNG_TEST + 3};
    float all[103], part[103];
    rng_uniform_fill(rng, 11, all, 103);
    for (int i = 0; i < 103; i += 10) rng_uniform_fill(rng, 11 + (uint64_t)i, part + i, i + 10 < 103 ? 10 : 103 - i);
    assert_memory_equal(all, part, sizeof all);
    for (int i = 0; i < 103; i++) {
        assert_true(all[i] >= 0 && all[i] < 1);
        assert_true(all[i] == rng_uniform(rng, 11 + (uint64_t)i));
    }
}

// Mean and variance of 10^6 draws lie within 5 standard errors: a false alarm has probability below 2e-6 for a good
// generator, and the seed is fixed.
static void draws_have_the_right_moments(void **state) {
    (void)state;
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    enum { N = 1000000 };
    double u1 = 0, u2 = 0, z1 = 0, z2 = 0, z4 = 0;
    for (uint64_t i = 0; i < N; i++) {
        double u = (double)rng_uniform(rng, i), z = rng_normal(rng, i + 5 * N);
        u1 += u, u2 += u * u, z1 += z, z2 += z * z, z4 += z * z * z * z;
    }
    check_near(u1 / N, 0.5, 0, 5 * sqrt(1.0 / 12 / N));
    check_near(u2 / N, 1.0 / 3, 0, 5 * sqrt(4.0 / 45 / N));
    check_near(z1 / N, 0, 0, 5 * sqrt(1.0 / N));
    check_near(z2 / N, 1, 0, 5 * sqrt(2.0 / N));
    check_near(z4 / N, 3, 0, 5 * sqrt(96.0 / N));
}

static void permutation_holds_every_index_once(void **state) {
    (void)state;
    struct rng rng = {.seed = 3, .stream = RNG_ORDER};
    int64_t order[1000];
    unsigned char seen[1000] = {0};
    rng_permutation(rng, order, 1000);
    int fixed = 0;
    for (int i = 0; i < 1000; i++) {
        assert_true(order[i] >= 0 && order[i] < 1000 && !seen[order[i]]);
        seen[order[i]] = 1;
        fixed += order[i] == i;
    }
    assert_true(fixed < 10); // fixed points are Poisson(1): 10 or more has probability 1e-7
}

static void messages_hold_one_clean_line(void **state) {
    (void)state;
    status_set(STATUS_FORMAT, "a\nb\x1b[31m \xff \xc3\xa9 \xe2\x82");
    assert_string_equal(status_message(), "a?b?[31m ? \xc3\xa9 ??");
}

static void a_buffer_allocation_can_be_made_to_fail(void **state) {
    (void)state;
    void *a = NULL, *b = NULL;
    int64_t before = mem_buffer_bytes();
    mem_fail_at(1);
    check_ok(mem_buffer_new(1000, "a", &a));
    check_fails(mem_buffer_new(1000, "b", &b), STATUS_NO_MEMORY);
    check_ok(mem_buffer_new(1000, "b", &b));
    assert_int_equal(mem_buffer_bytes() - before, 2000);
    assert_true((uintptr_t)a % 64 == 0);
    mem_buffer_free(a);
    mem_buffer_free(b);
    check_fails(mem_buffer_new(INT64_MAX, "everything", &a), STATUS_NO_MEMORY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_answers), cmocka_unit_test(uniform_fill_is_a_function_of_the_index),
        cmocka_unit_test(draws_have_the_right_moments),       cmocka_unit_test(permutation_holds_every_index_once),
        cmocka_unit_test(messages_hold_one_clean_line),       cmocka_unit_test(a_buffer_allocation_can_be_made_to_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
