// The emulation keeps what it promises: correct kernels give the same numbers in every order of warps and lanes, and each
// bug planted is found. What aborts runs in a child process, whose last words are read.
#include "tests/check.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/cuda_host/planted_bugs.h"

#include <sys/wait.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define WITH_ASAN(words, otherwise) words
#else
#define WITH_ASAN(words, otherwise) otherwise
#endif

enum { SEEDS = 20, COUNT = PLANTED_BLOCKS * PLANTED_THREADS, WARP = 32 };

static struct backend *device(void) {
    static struct backend *backend;
    if (!backend) {
        backend_add(&cuda_host_backend_fns);
        check_ok(backend_open("cuda_host", &backend));
    }
    return backend;
}

static float x_at(int64_t i) { return (float)(i * i % 97) - 48; } // a bf16

struct buffers {
    struct view x, y;
    float got[COUNT];
};

static void buffers_new(struct buffers *b) {
    float x[COUNT];
    for (int i = 0; i < COUNT; i++) x[i] = x_at(i);
    check_ok(backend_matrix_new(device(), DTYPE_F32, PLANTED_BLOCKS, PLANTED_THREADS, "x", &b->x));
    check_ok(backend_matrix_new(device(), DTYPE_F32, PLANTED_BLOCKS, PLANTED_THREADS, "y", &b->y));
    check_ok(backend_write(device(), b->x, x));
}

static void buffers_free(struct buffers *b) {
    backend_matrix_free(device(), &b->x);
    backend_matrix_free(device(), &b->y);
}

static double wanted(enum planted which, int64_t i) {
    if (which <= MIRROR_SHARED_TOO_SHORT)
        return 2 * x_at(i / PLANTED_THREADS * PLANTED_THREADS + PLANTED_THREADS - 1 - i % PLANTED_THREADS) + 1;
    if (which <= WARP_MIRROR_WITHOUT_SYNC) return x_at(i / WARP * WARP + WARP - 1 - i % WARP);
    if (which <= WARP_SUM_ONE_AHEAD) {
        double sum = 0;
        for (int64_t k = 0; k < WARP; k++) sum += x_at(i / WARP * WARP + k);
        return sum;
    }
    if (which <= COPIES_UNALIGNED)
        return x_at(i / PLANTED_THREADS * PLANTED_THREADS + PLANTED_THREADS - 1 - i % PLANTED_THREADS);
    double sum = 0;
    for (int64_t k = 0; k < 16; k++) sum += x_at(i / 8 * 16 + k) * x_at(16 * 16 + k * 8 + i % 8);
    return sum;
}

// In how many of SEEDS orders y is not what is wanted.
static int wrong_orders(enum planted which) {
    int wrong = 0;
    struct buffers b;
    buffers_new(&b);
    for (int seed = 0; seed < SEEDS; seed++) {
        bool right = true;
        emulation_seed((uint64_t)seed);
        check_ok(planted_run(device(), which, b.x.data, b.y.data));
        check_ok(backend_read(device(), b.y, b.got));
        for (int i = 0; i < (which == PRODUCT ? 16 * 8 : COUNT); i++) right = right && b.got[i] == wanted(which, i);
        wrong += !right;
    }
    buffers_free(&b);
    return wrong;
}

// What a child does: this program again, called with the index.
typedef void deed(int);
static deed run_once, touch, write_behind;
static deed *const deeds[] = {run_once, touch, write_behind};

// The deed must kill its process, which says `words` on stderr.
static void check_dies(deed *what, int argument, const char *words) {
    static char said[1 << 16];
    char first[16], second[16];
    size_t n = 0, which = 0;
    int ends[2], status = 0;
    while (deeds[which] != what) which++;
    snprintf(first, sizeof first, "%zu", which);
    snprintf(second, sizeof second, "%d", argument);
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        execl("/proc/self/exe", "emulation_test", first, second, (char *)NULL);
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t got = 1; got > 0 && n < sizeof said - 1; n += (size_t)(got > 0 ? got : 0))
        got = read(ends[0], said + n, sizeof said - 1 - n);
    said[n] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) fail_msg("the bug went unnoticed");
    if (!strstr(said, words)) fail_msg("no '%s' in: %s", words, said);
}

static void run_once(int which) {
    struct buffers b;
    buffers_new(&b);
    emulation_seed(1);
    check_ok(planted_run(device(), (enum planted)which, b.x.data, b.y.data));
    buffers_free(&b);
}

static void correct_kernels_are_right_in_every_order(void **state) {
    (void)state;
    static const enum planted correct[] = {MIRROR, WARP_MIRROR, WARP_SUM, COPIES};
    for (size_t i = 0; i < sizeof correct / sizeof *correct; i++) assert_int_equal(wrong_orders(correct[i]), 0);
}

static void tiles_and_products_have_the_layouts_of_tensor_cores(void **state) {
    (void)state;
    assert_int_equal(wrong_orders(PRODUCT), 0);
}

static void a_missing_barrier_is_seen_in_every_order(void **state) {
    (void)state;
    assert_int_equal(wrong_orders(MIRROR_WITHOUT_BARRIER), SEEDS);
}

static void a_missing_second_barrier_is_seen_in_every_order(void **state) {
    (void)state;
    assert_int_equal(wrong_orders(MIRROR_WITHOUT_SECOND), SEEDS);
}

static void a_missing_warp_barrier_is_seen_in_every_order(void **state) {
    (void)state;
    assert_int_equal(wrong_orders(WARP_MIRROR_WITHOUT_SYNC), SEEDS);
}

static void a_missing_wait_for_copies_is_seen_in_every_order(void **state) {
    (void)state;
    assert_int_equal(wrong_orders(COPIES_WITHOUT_WAIT), SEEDS);
}

static void a_barrier_for_half_of_the_block_is_reported(void **state) {
    (void)state;
    check_dies(run_once, MIRROR_WITH_HALF_BARRIER, "__syncthreads, but thread");
    check_dies(run_once, MIRROR_WITH_HALF_BARRIER, "planted_bugs.cpp:");
}

static void a_full_shuffle_in_a_divergent_branch_is_reported(void **state) {
    (void)state;
    check_dies(run_once, WARP_SUM_IN_HALF, "__shfl_xor_sync with mask ffffffff, but");
    check_dies(run_once, WARP_SUM_IN_HALF, "planted_bugs.cpp:");
}

static void a_lane_that_has_ended_but_is_in_the_mask_is_reported(void **state) {
    (void)state;
    check_dies(run_once, WARP_SUM_WITHOUT_ONE, "__shfl_xor_sync with mask ffffffff, but");
}

static void an_unaligned_copy_is_reported(void **state) {
    (void)state;
    check_dies(run_once, COPIES_UNALIGNED, "not aligned");
}

// x fills its last page to the end.
static void a_read_behind_the_last_row_kills(void **state) {
    (void)state;
    check_dies(run_once, WARP_SUM_ONE_AHEAD, WITH_ASAN("AddressSanitizer", "neither an operand's"));
}

static void a_write_behind_shared_memory_kills(void **state) {
    (void)state;
    check_dies(run_once, MIRROR_SHARED_TOO_SHORT, WITH_ASAN("AddressSanitizer", "behind its shared memory"));
}

static void touch(int unused) {
    (void)unused;
    struct buffers b;
    buffers_new(&b);
    *(volatile float *)b.x.data = 1;
    buffers_free(&b);
}

static void the_host_cannot_touch_device_memory(void **state) {
    (void)state;
    check_dies(touch, 0, WITH_ASAN("AddressSanitizer", ""));
}

// y is given one byte less than the kernel writes.
static void write_behind(int unused) {
    (void)unused;
    struct buffers b;
    buffers_new(&b);
    void *y = NULL;
    check_ok(device()->fns->buffer_new(device(), COUNT * (int64_t)sizeof(float) - 1, "y", &y));
    check_ok(planted_run(device(), MIRROR, b.x.data, y));
    device()->fns->buffer_free(device(), y);
    buffers_free(&b);
}

static void a_write_behind_an_allocation_of_odd_size_kills(void **state) {
    (void)state;
    check_dies(write_behind, 0, WITH_ASAN("AddressSanitizer", "wrote outside"));
}

int main(int argc, char **argv) {
    if (argc == 3) {
        deeds[atoi(argv[1])](atoi(argv[2]));
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(correct_kernels_are_right_in_every_order),
        cmocka_unit_test(tiles_and_products_have_the_layouts_of_tensor_cores),
        cmocka_unit_test(a_missing_barrier_is_seen_in_every_order),
        cmocka_unit_test(a_missing_second_barrier_is_seen_in_every_order),
        cmocka_unit_test(a_missing_warp_barrier_is_seen_in_every_order),
        cmocka_unit_test(a_missing_wait_for_copies_is_seen_in_every_order),
        cmocka_unit_test(a_barrier_for_half_of_the_block_is_reported),
        cmocka_unit_test(a_full_shuffle_in_a_divergent_branch_is_reported),
        cmocka_unit_test(a_lane_that_has_ended_but_is_in_the_mask_is_reported),
        cmocka_unit_test(an_unaligned_copy_is_reported),
        cmocka_unit_test(a_read_behind_the_last_row_kills),
        cmocka_unit_test(a_write_behind_shared_memory_kills),
        cmocka_unit_test(the_host_cannot_touch_device_memory),
        cmocka_unit_test(a_write_behind_an_allocation_of_odd_size_kills),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
