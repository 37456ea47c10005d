// Walks through the ops of a device (walk/device.h), with the CPU's kernels in the device's place.
#include "tests/walk_on_device.h"
#include "walk/instance.h"

// Lists longer than the rows that are on their way at once, constraints of one block of columns.
static void lists_in_several_parts_make_the_same_walk(void **state) {
    (void)state;
    struct pair p = pair_new(CASE_DECAYING, 700000, 3, 9);
    const char *names[] = {"zone", "leap"};
    for (int e = 0; e < 2; e++) {
        struct walk_options o = {.engine = names[e], .seed = 6, .stop = p.n / 2};
        struct walk_result r, want;
        check_ok(walk_round(p.host, p.y, &o, p.want, NULL, &want));
        check_ok(walk_round(p.device, p.y, &o, p.x, NULL, &r));
        assert_true(largest_difference(p.x, p.want, p.n) <= 1e-9);
        assert_true(r.residual <= 1e-12 * sqrt((double)p.n));
        assert_true(r.reads == want.reads && r.steps == want.steps);
    }
    pair_free(&p);
}

static void figures_of_a_synthetic_instance_are_those_of_the_host(void **state) {
    (void)state;
    struct problem problem = {.n = 1024, .m = 8, .alpha = 1.5, .scale = 1, .basis = BASIS_HADAMARD};
    const struct walker walker = {.engine = "zone", .finish = WALK_VERTEX};
    double figures[2][FIGURES];
    for (int there = 0; there < 2; there++) {
        struct instance *instance = NULL;
        problem.backend = there ? walk_backend : NULL;
        check_ok(instance_new(&problem, 9, &instance));
        assert_true((instance->frame->device != NULL) == (there == 1));
        instance_start(instance, 10);
        check_ok(instance_walk(instance, &walker, 11, 0, figures[there]));
        instance_free(instance);
    }
    for (int k = 0; k < FIGURES; k++)
        if (k != FIGURE_RESIDUAL) check_near(figures[1][k], figures[0][k], 1e-6, 1e-9);
    check_near(figures[1][FIGURE_RESIDUAL], 0, 0, 1e-12 * 32);
}

int main(void) {
    const struct CMUnitTest tests[] = {WALK_DEVICE_TESTS, cmocka_unit_test(lists_in_several_parts_make_the_same_walk),
                                       cmocka_unit_test(figures_of_a_synthetic_instance_are_those_of_the_host)};
    if (backend_open("cpu", &walk_backend) != STATUS_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    backend_close(walk_backend);
    return failed;
}
