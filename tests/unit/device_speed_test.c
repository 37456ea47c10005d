// `discquant-bench speed` on any device, at its tiny shape on the CPU: every op is timed, every line is JSON, figures are positive.
#include "tests/check.h"
#include "tests/files.h"

#include "core/ops/op.h"

#include <jansson.h>

static const char program[] = "bench/discquant-bench";

static bool has_op(const json_t *lines, const char *name) {
    size_t i;
    json_t *line;
    json_array_foreach(lines, i, line) {
        const char *op = json_string_value(json_object_get(line, "op"));
        if (op && strncmp(op, name, strlen(name)) == 0) return true;
    }
    return false;
}

static void every_op_is_timed_and_a_step_taken(void **state) {
    (void)state;
    struct process p = process_call(program, "speed", "--shape", "tiny", "--seconds", "0", "--threads", "1", "products",
                                    "ops", "step");
    assert_int_equal(p.code, 0);
    json_t *lines = json_array(), *last = NULL;
    char *rest = NULL;
    for (char *line = strtok_r(p.out, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        last = json_loads(line, 0, NULL);
        if (!last) fail_msg("no JSON: %s", line);
        json_array_append_new(lines, last);
        const json_t *seconds = json_object_get(last, "seconds");
        if (seconds) assert_true(json_number_value(seconds) > 0);
    }
    assert_string_equal(json_string_value(json_object_get(last, "case")), "step");
    assert_true(json_number_value(json_object_get(last, "tokens_per_second")) > 0);
    assert_true(json_number_value(json_object_get(last, "share_10")) > 0);
    for (int op = 0; op < OP_COUNT; op++)
        if (op != OP_matmul && !has_op(lines, op_infos[op].name)) fail_msg("%s is not timed", op_infos[op].name);
    json_decref(lines);
    process_free(&p);
}

static void wrong_requests_are_refused_in_one_line(void **state) {
    (void)state;
    struct process shape = process_call(program, "speed", "--shape", "huge", "ops");
    process_check_error(shape, 2, "--shape huge: must be phi3-mini or tiny");
    struct process name = process_call(program, "speed", "everything");
    process_check_error(name, 2, "'everything'");
    struct process device = process_call(program, "speed", "--device", "abacus", "ops");
    process_check_error(device, 2, "--device 'abacus'");
    struct process other = process_call(program, "speed", "--device", "cuda", "step-medium");
    assert_int_not_equal(other.code, 0);
    process_free(&other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_is_timed_and_a_step_taken),
        cmocka_unit_test(wrong_requests_are_refused_in_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
