// Walks on the emulated device, whose memory the host cannot touch.
#include "tests/cuda_host/cuda_host.h"
#include "tests/walk_on_device.h"

// Blocks, warps and lanes in another order: the same walk.
static void the_order_of_threads_changes_no_bit(void **state) {
    (void)state;
    struct pair p = pair_new(CASE_DECAYING, 500, 6, 7);
    const char *names[] = {"zone", "leap", "clamp"};
    for (int e = 0; e < 3; e++)
        for (uint64_t seed = 1; seed <= 3; seed++) {
            struct walk_options o = {.engine = names[e], .seed = 8};
            struct walk_result r;
            emulation_seed(seed);
            check_ok(walk_round(p.device, p.y, &o, seed > 1 ? p.x : p.want, NULL, &r));
            if (seed > 1) assert_memory_equal(p.x, p.want, (size_t)p.n * 8);
        }
    pair_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {WALK_DEVICE_TESTS, cmocka_unit_test(the_order_of_threads_changes_no_bit)};
    backend_add(&cuda_host_backend_fns);
    if (backend_open("cuda_host", &walk_backend) != STATUS_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    backend_close(walk_backend);
    return failed;
}
