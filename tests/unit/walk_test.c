// walk/walk.h: what every engine promises, on constraints of every kind; zone against a plain reference.
#include "core/base/threads.h"
#include "tests/walk_cases.h"
#include "walk/state.h"

static int64_t fractional(const double *x, int64_t n) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += x[i] > 0 && x[i] < 1;
    return count;
}

struct problem {
    double *a, *y, *x, *x_walk;
    struct frame *frame;
};

static struct problem problem_new(enum walk_case kind, int64_t n, int64_t m, int64_t whole) {
    struct problem p = {.a = walk_case_matrix(kind, n, m, 11), .y = walk_case_start(n, whole, 12)};
    p.x = walk_case_numbers(n), p.x_walk = walk_case_numbers(n);
    check_ok(frame_new(p.a, n, m, NULL, &p.frame));
    return p;
}

static void problem_free(struct problem *p) {
    frame_free(p->frame);
    mem_buffer_free(p->a);
    free(p->y);
    free(p->x);
    free(p->x_walk);
}

static void engines_keep_what_they_promise(void **state) {
    (void)state;
    const int64_t shapes[][3] = {{2048, 16, 0}, {600, 10, 7}, {300, 64, 3}, {64, 64, 0}, {1, 1, 0}};
    for (int s = 0; s < 5; s++)
        for (enum walk_case kind = 0; kind < N_CASES; kind++) {
            int64_t n = shapes[s][0], m = shapes[s][1];
            if (kind == CASE_KAPPA && m == 1) continue;
            struct problem p = problem_new(kind, n, m, shapes[s][2]);
            for (int e = 0; walk_engines[e]; e++)
                for (enum walk_finish finish = WALK_STOP; finish <= WALK_VERTEX_NEAREST; finish++) {
                    struct walk_options o = {
                        .engine = walk_engines[e], .finish = finish, .seed = 3, .walk = (uint32_t)kind};
                    struct walk_result r;
                    check_ok(walk_round(p.frame, p.y, &o, p.x, p.x_walk, &r));
                    bool keeps = walk_engine_keeps(o.engine), gsw = strcmp(o.engine, "gsw") == 0;
                    double most = frame_residual(p.frame, p.x_walk, p.y, NULL), allowed = 1e-12 * sqrt((double)n);
                    assert_true(most == r.residual_walk);
                    if (keeps && !(most <= allowed))
                        print_error("%s, case %d, n %lld, m %lld: %g\n", o.engine, (int)kind, (long long)n,
                                    (long long)m, most);
                    if (keeps) assert_true(most <= allowed);
                    if (keeps && (finish == WALK_STOP || finish == WALK_VERTEX)) assert_true(r.residual <= allowed);
                    int64_t left = fractional(p.x_walk, n), rank = r.rank;
                    assert_int_equal(left, r.fractional_walk);
                    assert_int_equal(fractional(p.x, n), r.fractional);
                    assert_true(left <= (gsw ? rank : 16 * rank));
                    if (finish == WALK_VERTEX) assert_true(r.fractional <= rank);
                    if (finish != WALK_STOP && finish != WALK_VERTEX) assert_int_equal(r.fractional, 0);
                    if (finish == WALK_LANDING) assert_true(r.constraints_kept <= rank);
                    for (int64_t i = 0; i < n; i++) {
                        assert_true(p.x[i] >= 0 && p.x[i] <= 1 && p.x_walk[i] >= 0 && p.x_walk[i] <= 1);
                        bool done = p.x_walk[i] == 0 || p.x_walk[i] == 1, whole = p.y[i] == 0 || p.y[i] == 1;
                        if (whole) assert_true(p.x_walk[i] == p.y[i]);
                        if (done) assert_true(p.x[i] == p.x_walk[i]);
                    }
                }
            problem_free(&p);
        }
}

static void nothing_is_done_where_the_theorem_stops_at_once(void **state) {
    (void)state;
    struct problem p = problem_new(CASE_DECAYING, 160, 10, 0);
    const char *names[] = {"zone", "leap", "clamp"};
    for (int e = 0; e < 3; e++) {
        struct walk_options o = {.engine = names[e]};
        struct walk_result r;
        check_ok(walk_round(p.frame, p.y, &o, p.x, p.x_walk, &r));
        assert_memory_equal(p.x, p.y, 160 * 8);
        assert_int_equal(r.steps, 0);
    }
    problem_free(&p);
}

static void without_constraints_everything_is_rounded(void **state) {
    (void)state;
    int64_t n = 500;
    double *a, *y = walk_case_start(n, 0, 1), *x = walk_case_numbers(n);
    struct frame *f;
    check_ok(frame_matrix_new(n, 3, &a));
    check_ok(frame_new(a, n, 3, NULL, &f));
    for (int e = 0; walk_engines[e]; e++) {
        struct walk_options o = {.engine = walk_engines[e]};
        struct walk_result r;
        check_ok(walk_round(f, y, &o, x, NULL, &r));
        assert_int_equal(r.fractional, 0);
        assert_true(r.residual == 0);
    }
    frame_free(f);
    mem_buffer_free(a);
    free(y);
    free(x);
}

static void what_makes_no_sense_is_refused(void **state) {
    (void)state;
    struct problem p = problem_new(CASE_DECAYING, 100, 3, 0);
    struct walk_result r;
    const double bad[] = {NAN, -1e-9, 1.0000001, INFINITY};
    for (int k = 0; k < 4; k++) {
        double y = p.y[17];
        p.y[17] = bad[k];
        check_fails(walk_round(p.frame, p.y, &(struct walk_options){0}, p.x, NULL, &r), STATUS_INVALID);
        assert_non_null(strstr(status_message(), "coordinate 17"));
        p.y[17] = y;
    }
    const struct walk_options wrong[] = {{.engine = "stroll"}, {.step_size = -0.1}, {.step_size = NAN},
                                         {.step_size = 0.6},   {.slack = 0.5},      {.block = 1},
                                         {.stop = -1}};
    for (int k = 0; k < 7; k++) check_fails(walk_round(p.frame, p.y, &wrong[k], p.x, NULL, &r), STATUS_INVALID);
    problem_free(&p);
}

static void threads_do_not_change_the_walk(void **state) {
    (void)state;
    struct problem p = problem_new(CASE_DECAYING, 20000, 24, 9), local = problem_new(CASE_LOCALISED, 3000, 12, 0);
    double *kept = walk_case_numbers(20000);
    for (int e = 0; walk_engines[e]; e++)
        for (int which = 0; which < 2; which++) {
            const struct problem *q = which ? &local : &p;
            int64_t n = q->frame->n;
            struct walk_options o = {.engine = walk_engines[e], .finish = WALK_VERTEX, .seed = 9};
            if (strcmp(o.engine, "gsw") == 0 && which == 0) continue;
            for (int threads = 1; threads <= 3; threads++) {
                struct walk_result r;
                threads_set(threads);
                check_ok(walk_round(q->frame, q->y, &o, q->x, NULL, &r));
                if (threads == 1) memcpy(kept, q->x, (size_t)n * 8);
                assert_memory_equal(q->x, kept, (size_t)n * 8);
            }
        }
    threads_set(0);
    free(kept);
    problem_free(&p);
    problem_free(&local);
}

struct saved {
    void *bytes;
    int64_t n, calls, keep;
};

static enum status keep(void *context, const void *bytes, int64_t n) {
    struct saved *s = context;
    if (s->calls++ != s->keep) return STATUS_OK;
    s->bytes = realloc(s->bytes, (size_t)n);
    memcpy(s->bytes, bytes, (size_t)n);
    s->n = n;
    return STATUS_OK;
}

// Runs `o` to its end, then again from its save number `at`; false where there are not so many. *calls: how many there are.
static bool ends_alike_from(struct problem *p, struct walk_options o, int64_t at, double *want, double *want_walk,
                            int64_t *calls) {
    int64_t bytes = p->frame->n * 8;
    struct saved saved = {.keep = at};
    struct walk_result r, again;
    o.checkpoint = (struct walk_checkpoint){.every = 1, .save = keep, .context = &saved};
    threads_set(1);
    check_ok(walk_round(p->frame, p->y, &o, want, want_walk, &r));
    *calls = saved.calls;
    if (!saved.bytes) return false;
    o.checkpoint = (struct walk_checkpoint){.resume = saved.bytes, .resume_bytes = saved.n};
    threads_set(2);
    memset(p->x, 0xff, (size_t)bytes);
    memset(p->x_walk, 0xff, (size_t)bytes);
    check_ok(walk_round(p->frame, p->y, &o, p->x, p->x_walk, &again));
    if (memcmp(p->x, want, (size_t)bytes) || memcmp(p->x_walk, want_walk, (size_t)bytes))
        fail_msg("%s, final phase %d: save %lld of %lld ends elsewhere", o.engine, (int)o.finish, (long long)at,
                 (long long)*calls);
    assert_int_equal(r.steps, again.steps);
    assert_int_equal(r.finish_moves, again.finish_moves);
    assert_int_equal(r.fractional_walk, again.fractional_walk);
    assert_int_equal(r.fractional, again.fractional);
    assert_int_equal(r.constraints_kept, again.constraints_kept);
    assert_true(r.reads == again.reads && r.residual_walk == again.residual_walk && r.residual == again.residual);
    enum walk_finish finish = o.finish;
    o.finish = finish == WALK_STOP ? WALK_VERTEX : WALK_STOP;
    check_fails(walk_round(p->frame, p->y, &o, p->x, NULL, &again), STATUS_INVALID);
    o.finish = finish, o.checkpoint.resume_bytes -= 8;
    check_fails(walk_round(p->frame, p->y, &o, p->x, NULL, &again), STATUS_INVALID);
    free(saved.bytes);
    return true;
}

// gsw, and the final phases of the others: from 15 saves of each, the last one among them.
static void moves_one_at_a_time_resume_to_the_same_bits(void **state) {
    (void)state;
    enum { N = 400 };
    const char *names[] = {"gsw", "zone", "leap"};
    for (enum walk_case kind = 0; kind < N_CASES; kind++) {
        struct problem p = problem_new(kind, N, 12, 5);
        double *want = walk_case_numbers(N), *want_walk = walk_case_numbers(N);
        for (int e = 0; e < 3; e++) {
            int64_t without = 0, calls = 0;
            for (enum walk_finish finish = WALK_STOP; finish <= WALK_VERTEX_NEAREST; finish++) {
                if (finish == WALK_NEAREST) continue;
                struct walk_options o = {.engine = names[e], .finish = finish, .seed = 4, .walk = 1};
                ends_alike_from(&p, o, INT64_MAX, want, want_walk, &calls);
                if (finish == WALK_STOP) without = calls;
                if (e == 0) assert_true(without >= 20);
                if (e > 0 && finish != WALK_STOP) assert_true(calls >= without + 3);   // the phase itself is saved
                if (e == 0 && finish == WALK_VERTEX) assert_int_equal(calls, without); // is there already
                for (int64_t k = 0; k < 15; k++)
                    if (calls > 0) assert_true(ends_alike_from(&p, o, (calls - 1) * k / 14, want, want_walk, &calls));
            }
        }
        // Coordinates that zone could not let jump go on alone before the final phase does.
        struct walk_options o = {.engine = "zone", .finish = WALK_LANDING, .seed = 4, .stop = 1};
        struct walk_result r;
        int64_t calls = 0;
        check_ok(walk_round(p.frame, p.y, &o, p.x, NULL, &r));
        o.finish = WALK_STOP;
        struct walk_result stopped;
        check_ok(walk_round(p.frame, p.y, &o, p.x, NULL, &stopped));
        assert_true(stopped.finish_moves > 0 && r.finish_moves > stopped.finish_moves);
        o.finish = WALK_LANDING;
        ends_alike_from(&p, o, INT64_MAX, want, want_walk, &calls);
        for (int64_t k = 0; k < 10; k++)
            assert_true(ends_alike_from(&p, o, (calls - 1) * (5 + k) / 14, want, want_walk, &calls));
        free(want);
        free(want_walk);
        problem_free(&p);
    }
    threads_set(0);
}

static enum status stop_at_once(void *context, const void *bytes, int64_t n) {
    (void)context, (void)bytes, (void)n;
    return status_set(STATUS_IO, "no room for a checkpoint");
}

static void a_walk_resumed_ends_with_the_same_bits(void **state) {
    (void)state;
    for (enum walk_case kind = 0; kind < N_CASES; kind++) {
        struct problem p = problem_new(kind, 1500, 8, 5);
        double *want = walk_case_numbers(1500);
        const char *names[] = {"zone", "leap", "clamp", "slack"};
        for (int e = 0; e < 4; e++)
            for (int64_t at = 0; at < 200; at = 2 * at + 1) {
                struct saved saved = {.keep = at};
                struct walk_options o = {.engine = names[e], .finish = WALK_VERTEX, .seed = 2, .step_size = 0.04};
                struct walk_result r, again;
                o.checkpoint = (struct walk_checkpoint){.every = 1, .save = keep, .context = &saved};
                check_ok(walk_round(p.frame, p.y, &o, want, NULL, &r));
                if (!saved.bytes) break;
                o.checkpoint = (struct walk_checkpoint){.resume = saved.bytes, .resume_bytes = saved.n};
                check_ok(walk_round(p.frame, p.y, &o, p.x, NULL, &again));
                if (memcmp(p.x, want, 1500 * 8))
                    print_error("%s, case %d, from %lld of %lld\n", o.engine, (int)kind, (long long)at,
                                (long long)r.steps);
                assert_memory_equal(p.x, want, 1500 * 8);
                assert_int_equal(r.steps, again.steps);
                assert_true(r.reads == again.reads);
                o.seed = 3;
                check_fails(walk_round(p.frame, p.y, &o, p.x, NULL, &again), STATUS_INVALID);
                o.seed = 2, o.checkpoint.resume_bytes -= 8;
                check_fails(walk_round(p.frame, p.y, &o, p.x, NULL, &again), STATUS_INVALID);
                free(saved.bytes);
            }
        struct walk_result r;
        struct walk_options o = {.checkpoint = {.every = 2, .save = stop_at_once}};
        check_fails(walk_round(p.frame, p.y, &o, p.x, NULL, &r), STATUS_IO);
        free(want);
        problem_free(&p);
    }
}

static void memory_that_is_not_there_is_an_error(void **state) {
    (void)state;
    struct problem p = problem_new(CASE_DECAYING, 400, 4, 0);
    int64_t failures = 0;
    for (int64_t k = 0; k < 100; k++) {
        struct walk_result r;
        struct walk_options o = {.finish = WALK_VERTEX};
        mem_fail_at(k);
        enum status status = walk_round(p.frame, p.y, &o, p.x, NULL, &r);
        mem_fail_at(-1);
        if (status == STATUS_OK) break;
        assert_int_equal(status, STATUS_NO_MEMORY);
        failures++;
    }
    assert_true(failures > 20);
    problem_free(&p);
}

// ---- zone, plainly: projections by solving the normal equations anew at every step

// x of Gram x = b by elimination with pivots; both are overwritten.
static void eliminate(double *g, double *b, int64_t r) {
    for (int64_t k = 0; k < r; k++) {
        int64_t p = k;
        for (int64_t i = k + 1; i < r; i++) p = fabs(g[i * r + k]) > fabs(g[p * r + k]) ? i : p;
        for (int64_t j = 0; j < r; j++) {
            double swap = g[k * r + j];
            g[k * r + j] = g[p * r + j], g[p * r + j] = swap;
        }
        double swap = b[k];
        b[k] = b[p], b[p] = swap;
        for (int64_t i = 0; i < r; i++) {
            if (i == k) continue;
            double f = g[i * r + k] / g[k * r + k];
            for (int64_t j = k; j < r; j++) g[i * r + j] -= f * g[k * r + j];
            b[i] -= f * b[k];
        }
    }
    for (int64_t k = 0; k < r; k++) b[k] /= g[k * r + k];
}

// v -= Q_F^T (Q_F Q_F^T)^-1 (what), with what = sum over `from` of w_i q_i.
static void correct(const struct frame *f, const char *is_free, double *v, const double *w, const char *from) {
    int64_t r = f->rank;
    double *g = walk_case_numbers(r * r), *b = walk_case_numbers(r);
    for (int64_t i = 0; i < f->n; i++) {
        const double *q = f->q + i * f->stride;
        for (int64_t j = 0; j < r; j++) {
            if (from[i]) b[j] += w[i] * q[j];
            for (int64_t k = 0; k < r && is_free[i]; k++) g[j * r + k] += q[j] * q[k];
        }
    }
    eliminate(g, b, r);
    for (int64_t i = 0; i < f->n; i++)
        for (int64_t j = 0; j < r && is_free[i]; j++) v[i] -= f->q[i * f->stride + j] * b[j];
    free(g);
    free(b);
}

static double bernoulli(uint64_t seed, int64_t i) {
    struct rng rng = {.seed = seed, .stream = WALK_RNG_JUMP};
    uint64_t bits = (uint64_t)rng_bits(rng, 2 * (uint64_t)i) << 32 | rng_bits(rng, 2 * (uint64_t)i + 1);
    return ((double)(bits >> 11) + 0.5) * 0x1p-53;
}

static double sign(uint64_t seed, int64_t n, int64_t i, int64_t t) {
    struct rng rng = {.seed = seed, .stream = WALK_RNG_NOISE};
    uint64_t at = 2 * ((uint64_t)(t / 64) * (uint64_t)n + (uint64_t)i), bit = (uint64_t)t % 64;
    uint64_t word = (uint64_t)rng_bits(rng, at) << 32 | rng_bits(rng, at + 1);
    return word >> bit & 1 ? 1 : -1;
}

// One step from x: everyone within step (1 + 4 sqrt l) jumps, the others correct; l is about the leverage.
static void plain_jumps(const struct frame *f, uint64_t seed, double step, double *x, char *is_free) {
    int64_t n = f->n;
    double trace = 0, *change = walk_case_numbers(n);
    char *jumps = mem_new((size_t)n, 1);
    for (int64_t i = 0; i < n; i++) trace += is_free[i] ? f->norm2[i] : 0;
    for (int64_t i = 0; i < n; i++) {
        double l = f->norm2[i] * (double)f->rank / trace, distance = fmin(x[i], 1 - x[i]);
        if (!is_free[i] || !(distance < step * (1 + 4 * sqrt(l)))) continue;
        double to = bernoulli(seed, i) < x[i] ? 1 : 0;
        change[i] = to - x[i];
        x[i] = to;
        jumps[i] = 1;
    }
    for (int64_t i = 0; i < n; i++) is_free[i] = is_free[i] && !jumps[i];
    correct(f, is_free, x, change, jumps);
    free(change);
    free(jumps);
}

static void zone_is_the_plain_algorithm(void **state) {
    (void)state;
    int64_t n = 3000, m = 5;
    struct problem p = problem_new(CASE_DECAYING, n, m, 0);
    const struct frame *f = p.frame;
    double step = 0.07, *x = walk_case_numbers(n), *h = walk_case_numbers(n);
    char *is_free = mem_new((size_t)n, 1);
    for (int64_t i = 0; i < n; i++) x[i] = p.y[i], is_free[i] = 1;
    plain_jumps(f, 21, step, x, is_free);
    for (int64_t t = 0, left = n; left > 1200; t++) {
        double s = step;
        for (int64_t i = 0; i < n; i++) h[i] = is_free[i] ? sign(21, n, i, t) : 0;
        correct(f, is_free, h, h, is_free);
        for (int64_t i = 0; i < n; i++)
            if (is_free[i]) s = fmin(s, fmin(x[i], 1 - x[i]) / fabs(h[i]));
        for (int64_t i = 0; i < n; i++) x[i] += is_free[i] ? s * h[i] : 0;
        plain_jumps(f, 21, step, x, is_free);
        left = 0;
        for (int64_t i = 0; i < n; i++) left += is_free[i];
    }
    struct walk_options o = {.engine = "zone", .seed = 21, .step_size = step, .stop = 1200};
    struct walk_result r;
    check_ok(walk_round(f, p.y, &o, p.x, NULL, &r));
    assert_int_equal(r.held + r.guards + r.repairs, 0); // the reference knows no such thing
    for (int64_t i = 0; i < n; i++) check_near(p.x[i], x[i], 0, 1e-10);
    free(x);
    free(h);
    free(is_free);
    problem_free(&p);
}

// Four constraints rest on twelve coordinates each, none of leverage above an eighth, which all lie near a face: they would leave
// at once, and 7/8 of the constraint with them. These wait, the 400 others near a face do not.
static void only_those_wait_on_whom_a_constraint_rests(void **state) {
    (void)state;
    enum { N = 4096, M = 16, HEAVY_ROWS = 4, EACH = 12 };
    struct problem p = {.a = walk_case_matrix(CASE_DECAYING, N, M, 5), .y = walk_case_start(N, 0, 6)};
    p.x = walk_case_numbers(N), p.x_walk = walk_case_numbers(N);
    int64_t stride = frame_stride(M), near = 0;
    for (int64_t j = 0; j < HEAVY_ROWS; j++)
        for (int64_t i = 0; i < N; i++) {
            bool heavy = i >= j * EACH && i < (j + 1) * EACH;
            p.a[i * stride + j] = heavy ? 1 : 0.02 * p.a[i * stride + j] * (double)(j + 1);
            if (heavy) p.y[i] = 0.03;
        }
    for (int64_t i = 0; i < N; i++) near += face_distance(p.y[i]) < 0.1;
    assert_true(near > 400);
    check_ok(frame_new(p.a, N, M, NULL, &p.frame));
    for (int64_t i = 0; i < HEAVY_ROWS * EACH; i++) assert_true(p.frame->norm2[i] < 0.125);
    struct walk_options o = {.engine = "zone", .seed = 3};
    struct walk_result r;
    check_ok(walk_round(p.frame, p.y, &o, p.x, p.x_walk, &r));
    assert_true(r.guards > 0);
    assert_true(r.held > 0 && r.held <= HEAVY_ROWS * EACH + M);
    assert_true(r.residual_walk <= 1e-12 * sqrt((double)N));
    assert_true(r.fractional <= 16 * M);
    problem_free(&p);
}

int main(void) {
    threads_set(0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engines_keep_what_they_promise),
        cmocka_unit_test(nothing_is_done_where_the_theorem_stops_at_once),
        cmocka_unit_test(without_constraints_everything_is_rounded),
        cmocka_unit_test(what_makes_no_sense_is_refused),
        cmocka_unit_test(threads_do_not_change_the_walk),
        cmocka_unit_test(a_walk_resumed_ends_with_the_same_bits),
        cmocka_unit_test(moves_one_at_a_time_resume_to_the_same_bits),
        cmocka_unit_test(memory_that_is_not_there_is_an_error),
        cmocka_unit_test(zone_is_the_plain_algorithm),
        cmocka_unit_test(only_those_wait_on_whom_a_constraint_rests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
