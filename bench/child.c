#include "bench/child.h"

#include "bench/eval.h"
#include "core/base/mem.h"
#include "data/file.h"
#include "data/story_corpus_command.h"
#include "discquant/command.h"
#include "walk/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const char ERROR_LINE[] = "discquant: error: ";

// ---- the commands ----

const struct child_command *child_command_find(const char *name) {
    static struct child_command commands[] = {
        {"discquant", NULL, &discquant_command},
        {"discquant-walk", "round", NULL},
        {"discquant-bench", "eval", &eval_command},
        {"discquant-data", "corpus", &story_corpus_command},
    };
    for (const struct command *walk = walk_commands; walk->name; walk++)
        if (strcmp(walk->name, "round") == 0) commands[1].command = walk;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const struct child_command *c = &commands[i];
        size_t n = strlen(c->program);
        if (strncmp(name, c->program, n) != 0) continue;
        if (c->word ? name[n] == ' ' && strcmp(name + n + 1, c->word) == 0 : !name[n]) return c;
    }
    return NULL;
}

const char *child_command_names(void) {
    return "discquant, discquant-walk round, discquant-bench eval, discquant-data corpus";
}

bool child_command_option(const struct child_command *command, const char *name, bool *takes_value) {
    *takes_value = true;
    if (strcmp(name, "seed") == 0) return command->command->common & COMMON_SEED;
    if (strcmp(name, "device") == 0) return command->command->common & COMMON_DEVICE;
    const struct argp_option *o = command->command->options;
    for (; o && (o->name || o->key || o->doc); o++) {
        if (!o->name || strcmp(o->name, name) != 0) continue;
        *takes_value = o->arg != NULL;
        return true;
    }
    return false;
}

static int call(const struct child_command *c, const struct command *command, int argc, char **argv) {
    if (!c->word) return program_main(command, argc, argv);
    const struct command commands[] = {*command, {0}};
    return program_main_commands(c->program, "", commands, argc, argv);
}

// ---- processes ----

// In the child: dies with the parent, reads nothing, writes to `out`.
static void settle(pid_t parent, int out) {
    int nothing = open("/dev/null", O_RDONLY);
    bool good = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent && nothing >= 0 &&
                dup2(nothing, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 && dup2(out, STDERR_FILENO) >= 0;
    if (!good) _exit(1);
}

static enum status run_nothing(const struct program_common *common, void *settings) {
    (void)common, (void)settings;
    return STATUS_OK;
}

static pid_t fork_flushed(void) {
    fflush(NULL); // or the child writes it too
    return fork();
}

enum status child_check(const struct child_command *c, int argc, char **argv) {
    static const bool yes = true;
    int ends[2], state = 0;
    pid_t parent = getpid();
    if (pipe2(ends, O_CLOEXEC) != 0) return status_set(STATUS_IO, "cannot make a pipe: %s", strerror(errno));
    pid_t pid = fork_flushed();
    if (pid == 0) {
        settle(parent, ends[1]);
        struct command command = *c->command;
        command.run = run_nothing;
        command.without_device = &yes;
        exit(call(c, &command, argc, argv));
    }
    close(ends[1]);
    char text[1024];
    size_t n = 0;
    for (ssize_t got; pid > 0 && n < sizeof text - 1; n += (size_t)got) {
        got = read(ends[0], text + n, sizeof text - 1 - n);
        if (got < 0 && errno == EINTR)
            got = 0;
        else if (got <= 0)
            break;
    }
    close(ends[0]);
    if (pid < 0) return status_set(STATUS_IO, "cannot start a process: %s", strerror(errno));
    while (waitpid(pid, &state, 0) < 0 && errno == EINTR) {}
    if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return STATUS_OK;
    text[n] = 0;
    const char *from = strncmp(text, ERROR_LINE, sizeof ERROR_LINE - 1) == 0 ? text + sizeof ERROR_LINE - 1 : text;
    const char *end = strstr(from, "; try --help");
    return status_set(STATUS_INVALID, "%.*s", (int)(end ? (size_t)(end - from) : strcspn(from, "\n")), from);
}

enum status child_start(const struct child_command *c, int argc, char **argv, const char *log, bool append,
                        pid_t *pid) {
    pid_t parent = getpid();
    int out = open(log, O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND | (append ? 0 : O_TRUNC), 0666);
    if (out < 0) return status_set(STATUS_IO, "%s: cannot write it: %s", log, strerror(errno));
    pid_t child = fork_flushed();
    if (child == 0) {
        settle(parent, out);
        exit(call(c, c->command, argc, argv));
    }
    close(out);
    if (child < 0) return status_set(STATUS_IO, "cannot start a process: %s", strerror(errno));
    *pid = child;
    return STATUS_OK;
}

// The last error line of a log; NULL: there is none.
static char *last_error(const char *log) {
    enum { TAIL = 8192 };
    static char text[TAIL + 1];
    int fd = -1;
    int64_t n = 0;
    char *found = NULL;
    if (file_open(log, &fd, &n) != STATUS_OK) return NULL;
    int64_t from = n > TAIL ? n - TAIL : 0;
    if (file_read_at(fd, log, from, text, n - from) == STATUS_OK) {
        text[n - from] = 0;
        for (char *at = text; (at = strstr(at, ERROR_LINE)); at++) found = at + sizeof ERROR_LINE - 1;
        if (found) found = mem_string_n(found, strcspn(found, "\n"));
    }
    close(fd);
    return found;
}

char *child_complaint(int state, const char *log) {
    if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return NULL;
    if (WIFSIGNALED(state)) {
        int signal = WTERMSIG(state);
        return mem_format("killed by signal %d (%s)%s", signal, strsignal(signal),
                          signal == SIGKILL ? ": out of memory?" : "");
    }
    char *line = last_error(log);
    return line ? line : mem_format("ended with status %d and no error line", WEXITSTATUS(state));
}
