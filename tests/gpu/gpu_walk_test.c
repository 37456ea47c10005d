// Walks on the GPU: what engines promise, and short walks beside the CPU's. A JSON line with the seconds of a larger one goes to stdout.
#include "tests/gpu/device.h"
#include "tests/walk_on_device.h"

static void a_larger_walk_ends_where_it_should(void **state) {
    (void)state;
    struct pair p = pair_new(CASE_DECAYING, 65536, 128, 0);
    const char *names[] = {"zone", "leap"};
    for (int e = 0; e < 2; e++) {
        struct walk_options o = {.engine = names[e], .seed = 1};
        struct walk_result r, host;
        check_ok(walk_round(p.device, p.y, &o, p.x, NULL, &r)); // the first call of cuBLAS is not counted
        check_ok(walk_round(p.device, p.y, &o, p.x, NULL, &r));
        check_ok(walk_round(p.host, p.y, &o, p.want, NULL, &host));
        printf(
            "{\"case\": \"walk\", \"device\": \"%s\", \"engine\": \"%s\", \"n\": %lld, \"m\": %lld, \"steps\": %lld, "
            "\"steps_cpu\": %lld, \"reads\": %.3g, \"residual\": %.3g, \"seconds_frame\": %.4g, \"seconds\": %.4g, "
            "\"seconds_frame_cpu\": %.4g, \"seconds_cpu\": %.4g}\n",
            device_name(), names[e], (long long)p.n, (long long)p.m, (long long)r.steps, (long long)host.steps, r.reads,
            r.residual, p.device->seconds, r.seconds_walk, p.host->seconds, host.seconds_walk);
        fflush(stdout);
        assert_true(r.residual <= 1e-12 * sqrt((double)p.n));
        assert_true(fractional_of(p.x, p.n) <= 16 * r.rank);
    }
    pair_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {WALK_DEVICE_TESTS, cmocka_unit_test(a_larger_walk_ends_where_it_should)};
    walk_backend = device_open_or_say();
    if (!walk_backend) return SKIPPED;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    backend_close(walk_backend);
    return failed;
}
