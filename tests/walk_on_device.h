// What walks on a device promise: included by programs that differ in the device alone.
#ifndef DQ_TESTS_WALK_ON_DEVICE_H
#define DQ_TESTS_WALK_ON_DEVICE_H

#include "core/backend/backend.h"
#include "tests/walk_cases.h"
#include "walk/device.h"

static struct backend *walk_backend; // opened by the program

// The same constraints whitened on the host and on the device.
struct pair {
    int64_t n, m;
    double *a, *b, *y, *x, *x_walk, *want, *want_walk;
    struct frame *host, *device;
};

static struct pair pair_new(enum walk_case kind, int64_t n, int64_t m, int64_t whole) {
    struct pair p = {.n = n, .m = m};
    p.a = walk_case_matrix(kind, n, m, 11), p.b = walk_case_matrix(kind, n, m, 11), p.y = walk_case_start(n, whole, 12);
    double **const vectors[] = {&p.x, &p.x_walk, &p.want, &p.want_walk};
    for (int i = 0; i < 4; i++) *vectors[i] = walk_case_numbers(n);
    struct frame_options options = {.backend = walk_backend};
    check_ok(frame_new(p.a, n, m, NULL, &p.host));
    check_ok(frame_new(p.b, n, m, &options, &p.device));
    assert_non_null(p.device->device);
    return p;
}

static void pair_free(struct pair *p) {
    frame_free(p->host);
    frame_free(p->device);
    mem_buffer_free(p->a);
    mem_buffer_free(p->b);
    double *const vectors[] = {p->y, p->x, p->x_walk, p->want, p->want_walk};
    for (int i = 0; i < 5; i++) free(vectors[i]);
}

static double largest_difference(const double *a, const double *b, int64_t n) {
    double most = 0;
    for (int64_t i = 0; i < n; i++) most = fmax(most, fabs(a[i] - b[i]));
    return most;
}

// How far the row space is known: 1e-16 over the share of the weakest kept direction, with room.
static const double subspace[N_CASES] = {1e-11, 1e-5, 1e-11, 1e-11};

// Rank, singular values, Q Q^T = 1 to rounding; the same row space: the projections of a vector agree.
static void a_frame_made_there_spans_what_the_hosts_does(void **state) {
    (void)state;
    for (enum walk_case kind = 0; kind < N_CASES; kind++) {
        struct pair p = pair_new(kind, 500, 12, 0);
        const struct frame *f = p.device;
        double *d = p.x, *e = p.want;
        assert_int_equal(f->rank, p.host->rank);
        for (int64_t k = 0; k < f->rank; k++)
            check_near(f->singular[k], p.host->singular[k], 1e-5, 1e-15 * f->singular[0]);
        for (int64_t i = 0; i < f->rank; i++)
            for (int64_t j = 0; j <= i; j++) {
                double dot = 0;
                for (int64_t k = 0; k < p.n; k++) dot += f->q[k * f->stride + i] * f->q[k * f->stride + j];
                check_near(dot, i == j, 0, f->passes > 1 ? 1e-14 : 1e-9);
            }
        for (int64_t i = 0; i < p.n; i++) d[i] = e[i] = p.y[i] - 0.5;
        frame_project(p.device, d);
        frame_project(p.host, e);
        assert_true(largest_difference(d, e, p.n) <= subspace[kind]);
        pair_free(&p);
    }
}

static int64_t fractional_of(const double *x, int64_t n) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += x[i] > 0 && x[i] < 1;
    return count;
}

static void check_promises(struct pair *p, const char *engine, enum walk_finish finish, enum walk_case kind) {
    struct walk_options o = {.engine = engine, .finish = finish, .seed = 3, .walk = (uint32_t)kind};
    struct walk_result r;
    check_ok(walk_round(p->device, p->y, &o, p->x, p->x_walk, &r));
    double most = frame_residual(p->device, p->x_walk, p->y, NULL), allowed = 1e-12 * sqrt((double)p->n);
    check_near(r.residual_walk, most, 1e-6, 1e-14);
    bool keeps = walk_engine_keeps(engine), gsw = strcmp(engine, "gsw") == 0;
    if (keeps && !(most <= allowed)) fail_msg("%s, case %d: residual %g", engine, (int)kind, most);
    if (keeps && finish == WALK_VERTEX) assert_true(frame_residual(p->device, p->x, p->y, NULL) <= allowed);
    assert_true(fractional_of(p->x_walk, p->n) <= (gsw ? r.rank : 16 * r.rank));
    if (finish == WALK_VERTEX) assert_true(r.fractional <= r.rank);
    if (finish == WALK_LANDING) assert_int_equal(r.fractional, 0);
    for (int64_t i = 0; i < p->n; i++) {
        assert_true(p->x[i] >= 0 && p->x[i] <= 1 && p->x_walk[i] >= 0 && p->x_walk[i] <= 1);
        bool done = p->x_walk[i] == 0 || p->x_walk[i] == 1, whole = p->y[i] == 0 || p->y[i] == 1;
        if (whole) assert_true(p->x_walk[i] == p->y[i]);
        if (done) assert_true(p->x[i] == p->x_walk[i]);
    }
}

static void engines_keep_there_what_they_promise(void **state) {
    (void)state;
    const int64_t shapes[][3] = {{320, 6, 7}, {60, 12, 3}, {1, 1, 0}};
    for (int s = 0; s < 3; s++)
        for (enum walk_case kind = 0; kind < N_CASES; kind++) {
            if (kind == CASE_KAPPA && shapes[s][1] == 1) continue;
            struct pair p = pair_new(kind, shapes[s][0], shapes[s][1], shapes[s][2]);
            for (int e = 0; walk_engines[e]; e++)
                check_promises(&p, walk_engines[e], e % 2 ? WALK_LANDING : WALK_VERTEX, kind);
            pair_free(&p);
        }
}

static void check_alike(struct pair *p, const struct frame *frame, const char *engine, enum walk_case kind) {
    struct walk_options o = {.engine = engine, .seed = 5, .stop = strcmp(engine, "gsw") ? p->n / 2 : p->n - 20};
    struct walk_result r, want;
    check_ok(walk_round(p->host, p->y, &o, p->want, NULL, &want));
    check_ok(walk_round(frame, p->y, &o, p->x, NULL, &r));
    double most = largest_difference(p->x, p->want, p->n);
    if (!(most <= 1e-9))
        fail_msg("%s, case %d: %lld steps (%lld), apart by %g", engine, (int)kind, (long long)r.steps,
                 (long long)want.steps, most);
    assert_int_equal(r.steps, want.steps);
    // A coordinate that lies on a face but for rounding may count on either side.
    assert_true(llabs((long long)(r.fractional_walk - want.fractional_walk)) <= 1);
    check_near(r.reads, want.reads, 0.02, 0);
    assert_true(r.steps > 0);
}

// Until half of the coordinates are rounded, gsw 20 of them: the same Q, walked over here and there.
static void short_walks_are_the_hosts_to_rounding(void **state) {
    (void)state;
    const char *names[] = {"zone", "leap", "clamp", "slack", "gsw"};
    for (enum walk_case kind = 0; kind < N_CASES; kind++)
        for (int64_t whole = 0; whole < 4; whole += 3) {
            struct pair p = pair_new(kind, 480, 8, whole);
            struct frame same = *p.host;
            check_ok(device_matrix_new(walk_backend, same.q, p.n, same.stride, &same.device));
            for (int e = whole ? 1 : 0; e < 5 - whole / 3; e++) check_alike(&p, &same, names[e], kind);
            device_matrix_free(same.device);
            pair_free(&p);
        }
}

// Whitened there, Q may differ by the signs of its columns, which zone, clamp and gsw do not see. (leap does: the estimate of tau
// by which it sizes blocks begins with a fixed vector.)
static void so_are_those_over_a_frame_made_there(void **state) {
    (void)state;
    struct pair p = pair_new(CASE_DECAYING, 480, 8, 0);
    const char *names[] = {"zone", "clamp", "gsw"};
    for (int e = 0; e < 3; e++) check_alike(&p, p.device, names[e], CASE_DECAYING);
    pair_free(&p);
}

struct saved_walk {
    void *bytes;
    int64_t n, calls, keep;
};

static enum status keep_walk(void *context, const void *bytes, int64_t n) {
    struct saved_walk *s = context;
    if (s->calls++ != s->keep) return STATUS_OK;
    s->bytes = realloc(s->bytes, (size_t)n);
    memcpy(s->bytes, bytes, (size_t)n);
    s->n = n;
    return STATUS_OK;
}

static void a_walk_resumed_there_ends_with_the_same_bits(void **state) {
    (void)state;
    const char *names[] = {"zone", "leap", "gsw"};
    struct pair p = pair_new(CASE_LOCALISED, 160, 2, 5);
    for (int e = 0; e < 3; e++)
        for (int64_t at = 0; at < 14; at = 3 * at + 1) {
            struct saved_walk saved = {.keep = at};
            struct walk_options o = {.engine = names[e], .finish = WALK_VERTEX, .seed = 2};
            struct walk_result r, again;
            o.checkpoint = (struct walk_checkpoint){.every = 1, .save = keep_walk, .context = &saved};
            check_ok(walk_round(p.device, p.y, &o, p.want, NULL, &r));
            if (!saved.bytes) break;
            o.checkpoint = (struct walk_checkpoint){.resume = saved.bytes, .resume_bytes = saved.n};
            check_ok(walk_round(p.device, p.y, &o, p.x, NULL, &again));
            if (memcmp(p.x, p.want, (size_t)p.n * 8)) fail_msg("%s, from save %lld", names[e], (long long)at);
            assert_true(r.reads == again.reads && r.steps == again.steps);
            free(saved.bytes);
        }
    pair_free(&p);
}

static void what_a_device_cannot_hold_is_refused(void **state) {
    (void)state;
    int64_t n = 8, m = ROWS_PASS_COLS + 1;
    double *a;
    struct frame *f = NULL;
    struct frame_options options = {.backend = walk_backend};
    check_ok(frame_matrix_new(n, m, &a));
    check_fails(frame_new(a, n, m, &options, &f), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "--device cpu"));
    mem_buffer_free(a);
}

#define WALK_DEVICE_TESTS                                                                                              \
    cmocka_unit_test(a_frame_made_there_spans_what_the_hosts_does),                                                    \
        cmocka_unit_test(engines_keep_there_what_they_promise),                                                        \
        cmocka_unit_test(short_walks_are_the_hosts_to_rounding),                                                       \
        cmocka_unit_test(so_are_those_over_a_frame_made_there),                                                        \
        cmocka_unit_test(a_walk_resumed_there_ends_with_the_same_bits),                                                \
        cmocka_unit_test(what_a_device_cannot_hold_is_refused)

#endif
