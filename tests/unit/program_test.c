#include "tests/files.h"

#define EXAMPLE "tests/example_program"
#define DATA "data/discquant-data"

// Exit status 0, nothing on stderr, stdout holds `text`. Frees it.
static void check_prints(struct process process, const char *text) {
    if (process.code != 0 || process.err[0] || !strstr(process.out, text))
        fail_msg("exit status %d, want 0 and '%s'; stdout: %s stderr: %s", process.code, text, process.out,
                 process.err);
    process_free(&process);
}

static void options_are_read(void **state) {
    (void)state;
    check_prints(process_call(EXAMPLE, "run", "--quiet", "--threads", "3"),
                 "bits 4 rate 0.1 method 0 model - files 0 seed 0 threads 3\n");
    check_prints(process_call(EXAMPLE, "run", "--quiet", "-b8", "--rate=1e-3", "--meth", "discquant", "x", "--model",
                              "m", "--seed", "9223372036854775807", "--threads=1", "--", "--bits"),
                 "bits 8 rate 0.001 method 1 model m files 2 seed 9223372036854775807 threads 1\n");
}

static void a_wrong_command_line_gives_one_line_and_status_2(void **state) {
    (void)state;
    static const char *const cases[][6] = {
        // arguments …, NULL, …; the last one is what the line must hold
        {"run", "--bits", "9", NULL, NULL, "--bits 9: must be from 2 to 8"},
        {"run", "--bits", "4x", NULL, NULL, "'4x': is no whole number"},
        {"run", "--bits", "", NULL, NULL, "'': is no whole number"},
        {"run", "--bits", " 4", NULL, NULL, "' 4': is no whole number"},
        {"run", "--bits", "99999999999999999999", NULL, NULL, "must be from 2 to 8"},
        {"run", "--bits", NULL, NULL, NULL, "--bits: needs a value (B)"},
        {"run", "-b", NULL, NULL, NULL, "-b: needs a value (B)"},
        {"run", "--rate", "nan", NULL, NULL, "must be finite"},
        {"run", "--rate", "1e999", NULL, NULL, "must be finite"},
        {"run", "--rate", "-1", NULL, NULL, "must be at least 0"},
        {"run", "--rate", "1,5", NULL, NULL, "'1,5': is no number"},
        {"run", "--method", "disc", NULL, NULL, "must be one of rtn|discquant"},
        {"run", "--method", "", NULL, NULL, "must be one of rtn|discquant"},
        {"run", "--seed", "-1", NULL, NULL, "--seed -1: must be at least 0"},
        {"run", "--threads", "-1", NULL, NULL, "--threads -1: must be from 0 to 4096"},
        {"run", "--device", "tpu", NULL, NULL, "must be one of cpu|cuda"},
        {"run", "--bogus", NULL, NULL, NULL, "--bogus: there is no such option"},
        {"run", "--bogus=1", NULL, NULL, NULL, "--bogus=1: there is no such option"},
        {"run", "-z", NULL, NULL, NULL, "-z: there is no such option"},
        {"run", "--mo", "x", NULL, NULL, "several options begin like this"},
        {"run", "--quiet=yes", NULL, NULL, NULL, "--quiet=yes: takes no value"},
        {"run", "--force", "--resume", "--out", "x", "exclude each other"},
        {"run", "--resume", NULL, NULL, NULL, "need --out"},
        {"run", "--out", "", NULL, NULL, "--out '': is no folder"},
        {"run", "--out", NULL, NULL, NULL, "--out: needs a value (DIR)"},
        {"idle", NULL, NULL, NULL, NULL, "--out is missing"},
        {"idle", "--out", "x", "word", NULL, "'word': takes no arguments but options"},
        {"idle", "--seed", "1", NULL, NULL, "--seed: there is no such option"},
        {"walk", NULL, NULL, NULL, NULL, "'walk': is no command of example"},
        {"--quiet", NULL, NULL, NULL, NULL, "'--quiet': is no command of example"},
        {NULL, NULL, NULL, NULL, NULL, "needs a command"},
        {"run", "--bits", "\x1b[31m\n9", NULL, NULL, "?[31m?9"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *args[6] = {cases[i][0], cases[i][1], cases[i][2], cases[i][3], cases[i][4], NULL};
        process_check_error(process_run(EXAMPLE, NULL, args), 2, cases[i][5]);
    }
}

static void help_lists_options_with_their_defaults(void **state) {
    (void)state;
    struct process process = process_call(EXAMPLE, "run", "--help");
    static const char *const texts[] = {"Usage: example run [OPTION...] [FILE…]",
                                        "--bits=B",
                                        "(default: 4)",
                                        "--seed=N",
                                        "--out=DIR",
                                        "--resume",
                                        "--device=cpu|cuda",
                                        "--version",
                                        "After the options."};
    assert_int_equal(process.code, 0);
    assert_string_equal(process.err, "");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!strstr(process.out, texts[i])) fail_msg("--help lacks '%s':\n%s", texts[i], process.out);
    process_free(&process);
    process = process_call(EXAMPLE, "idle", "-?");
    assert_int_equal(process.code, 0);
    assert_null(strstr(process.out, "--seed"));
    process_free(&process);
    check_prints(process_call(EXAMPLE, "run", "--usage"), "Usage: example run");
    check_prints(process_call(EXAMPLE, "run", "--version"), "example run 0.");
    check_prints(process_call(EXAMPLE, "--version"), "example 0.");
    check_prints(process_call(EXAMPLE, "--help"), "idle         Does nothing.");
}

// Whether the build lacks CUDA or the machine lacks the device.
static void a_device_that_is_not_there_gives_one_line_and_status_1(void **state) {
    (void)state;
    struct process process = process_call(EXAMPLE, "run", "--quiet", "--device", "cuda");
    if (process.code == 0) {
        process_free(&process);
        skip();
    }
    process_check_error(process, 1, "--device cuda: ");
    process_check_error(process_call(EXAMPLE, "run", "--quiet", "--device", "cuda"), 1, "; use --device cpu\n");
}

static void a_failed_world_gives_one_line_and_status_1(void **state) {
    (void)state;
    process_check_error(process_call(EXAMPLE, "run", "--quiet", "--fail"), 1, "error: model?.safetensors: is broken");
    process_check_error(process_call(EXAMPLE, "run", "--quiet", "--out", "/dev/null/x"), 1, "/dev/null");
    process_check_error(process_call(DATA, "info", "/nowhere/at/all"), 1, "/nowhere/at/all");
}

static void output_that_cannot_be_written_is_an_error(void **state) {
    (void)state;
    if (access("/dev/full", W_OK) != 0) skip();
    process_check_error(process_run(EXAMPLE, "/dev/full", (const char *[]){"run", "--quiet", NULL}), 1,
                        "stdout: cannot write");
    process_check_error(process_run(EXAMPLE, "/dev/full", (const char *[]){"run", "--help", NULL}), 1,
                        "stdout: cannot write");
    process_check_error(process_run(EXAMPLE, "/dev/full", (const char *[]){"--help", NULL}), 1, "stdout: cannot write");
    process_check_error(process_run(EXAMPLE, "/dev/full", (const char *[]){"run", "--version", NULL}), 1,
                        "stdout: cannot write");
}

static void progress_is_plain_lines_without_a_terminal(void **state) {
    (void)state;
    struct process process = process_call(EXAMPLE, "run");
    assert_int_equal(process.code, 0);
    assert_null(strchr(process.err, '\r'));
    assert_null(strchr(process.err, '\033'));
    assert_non_null(strstr(process.err, "nearly done\nexample 3/3 step"));
    assert_non_null(strstr(process.err, ", loss 0.33\n"));
    process_free(&process);
    process = process_call(EXAMPLE, "run", "--quiet");
    assert_string_equal(process.err, "");
    process_free(&process);
}

static void a_run_folder_tells_how_to_repeat_the_run(void **state) {
    (void)state;
    char *folder = files_folder(), *out = mem_format("%s/it's a run", folder);
    check_prints(process_call(EXAMPLE, "run", "--quiet", "--out", out, "--model", "$HOME"), "model $HOME");
    char *about = files_bytes(files_path(out, "run.json"), NULL);
    assert_non_null(strstr(about, "run --quiet --out '"));
    assert_non_null(strstr(about, "/it'\\\\''s a run' --model '$HOME'\""));
    assert_non_null(strstr(about, "\"program\": \"example run\""));
    assert_non_null(strstr(about, "\"status\": \"done\""));
    free(about);
    process_check_error(process_call(EXAMPLE, "run", "--quiet", "--out", out), 1, "holds a finished run");
    check_prints(process_call(EXAMPLE, "run", "--quiet", "--out", out, "--force"), "bits 4");
    struct process process = process_call(EXAMPLE, "run", "--out", out, "--resume");
    assert_int_equal(process.code, 0);
    assert_non_null(strstr(process.err, "done already"));
    assert_string_equal(process.out, "");
    process_free(&process);
    process_check_error(process_call(EXAMPLE, "run", "--quiet", "--out", out, "--resume", "--seed", "2"), 1,
                        "seed = 0, now it is 2");
    process_check_error(process_call(EXAMPLE, "run", "--quiet", "--out", out, "--force", "--fail"), 1, "is broken");
    about = files_bytes(files_path(out, "run.json"), NULL);
    assert_non_null(strstr(about, "\"status\": \"failed\""));
    free(about);
    free(out);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_read),
        cmocka_unit_test(a_wrong_command_line_gives_one_line_and_status_2),
        cmocka_unit_test(help_lists_options_with_their_defaults),
        cmocka_unit_test(a_device_that_is_not_there_gives_one_line_and_status_1),
        cmocka_unit_test(a_failed_world_gives_one_line_and_status_1),
        cmocka_unit_test(output_that_cannot_be_written_is_an_error),
        cmocka_unit_test(progress_is_plain_lines_without_a_terminal),
        cmocka_unit_test(a_run_folder_tells_how_to_repeat_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
