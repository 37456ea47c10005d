#include "tests/files.h"

#include "core/base/clock.h"
#include "core/base/progress.h"

#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>

// What is written to a terminal reaches its other end some time later and in parts, so it is read up to a last character that
// nothing else writes. Closing the terminal first could drop what waits in it.
static char *terminal_text(int master, int terminal) {
    enum { SIZE = 65536 };
    const char last = '\001';
    assert_int_equal(write(terminal, &last, 1), 1);
    char *text = mem_new(SIZE, 1);
    for (size_t n = 0;;) {
        struct pollfd ready = {.fd = master, .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 60000), 1);
        ssize_t more = read(master, text + n, SIZE - 1 - n);
        assert_true(more > 0);
        n += (size_t)more;
        if (text[n - 1] == last) {
            text[n - 1] = '\0';
            return text;
        }
    }
}

// Runs `work` with stderr going to a file, or to a terminal of 40 columns, and returns what was written there.
static char *stderr_of(void (*work)(void), bool terminal) {
    char *folder = files_folder();
    const char *path = files_path(folder, "err");
    int kept = dup(STDERR_FILENO), master = -1, fd;
    if (terminal) {
        struct winsize size = {.ws_row = 24, .ws_col = 40};
        if (openpty(&master, &fd, NULL, NULL, &size) != 0) {
            files_remove(folder);
            print_message("skipped: no pseudo terminal can be had\n");
            skip();
        }
    } else {
        fd = open(path, O_WRONLY | O_CREAT, 0600);
    }
    fflush(stderr);
    dup2(fd, STDERR_FILENO);
    work();
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    char *text;
    if (terminal) {
        text = terminal_text(master, fd);
        close(master);
        close(fd);
    } else {
        close(fd);
        text = files_bytes(path, NULL);
    }
    files_remove(folder);
    return text;
}

static void three_steps(void) {
    struct progress *progress = progress_new("rounding", "step", 100, 97);
    for (int64_t step = 98; step <= 100; step++)
        progress_update(progress, step, "loss %.3f with a text that is longer than the line", 1.0 / (double)step);
    progress_say("a line of its own");
    progress_update(progress, 100, "the end");
    progress_free(progress);
}

static void without_updates(void) {
    progress_free(progress_new("rounding", "step", 100, 0));
    progress_free(NULL);
}

// About 50 steps in 0.1 s, the first 1000 being done before.
static void a_tenth_of_a_second(void) {
    struct progress *progress = progress_new("rounding", "step", 100000, 1000);
    double begun = clock_seconds();
    int64_t step = 1000;
    while (clock_seconds() < begun + 0.1) {
        usleep(2000);
        progress_update(progress, ++step, NULL);
    }
    progress_free(progress);
}

static void a_file_gets_plain_lines(void **state) {
    (void)state;
    char *text = stderr_of(three_steps, false);
    assert_null(strpbrk(text, "\r\033"));
    assert_int_equal(strncmp(text, "a line of its own\nrounding 100/100 step", 39), 0);
    assert_string_equal(text + strlen(text) - 10, ", the end\n");
    free(text);
    text = stderr_of(without_updates, false);
    assert_string_equal(text, "");
    free(text);
}

static void a_terminal_gets_one_line_that_fits(void **state) {
    (void)state;
    char *text = stderr_of(three_steps, true);
    assert_int_equal(strncmp(text, "\rrounding 98/100 step", 21), 0);
    for (const char *at = text; (at = strchr(at, '\r')); at++) {
        size_t n = strcspn(at + 1, "\r\033\n");
        assert_true(n < 40);
    }
    assert_non_null(strstr(text, "\r\033[Ka line of its own\r\n"));
    assert_int_equal(text[strlen(text) - 1], '\n');
    free(text);
}

static void quiet_says_nothing(void **state) {
    (void)state;
    progress_set_quiet(true);
    char *text = stderr_of(three_steps, false);
    progress_set_quiet(false);
    assert_string_equal(text, "");
    free(text);
}

// The rate counts this part of the run only: at most 500 steps per second, where all 1050 in 0.1 s would be 10000.
static void earlier_steps_do_not_count_for_the_rate(void **state) {
    (void)state;
    char *text = stderr_of(a_tenth_of_a_second, false);
    double rate = 0;
    assert_int_equal(sscanf(text, "rounding %*d/100000 step, %lf step/s", &rate), 1);
    assert_true(rate > 0 && rate <= 510);
    assert_non_null(strstr(text, " left"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_gets_plain_lines),
        cmocka_unit_test(a_terminal_gets_one_line_that_fits),
        cmocka_unit_test(quiet_says_nothing),
        cmocka_unit_test(earlier_steps_do_not_count_for_the_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
