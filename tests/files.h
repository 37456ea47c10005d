// Files and processes for tests: a folder of their own, what is in a file, a program's exit status and output.
#ifndef DQ_TESTS_FILES_H
#define DQ_TESTS_FILES_H

#include "tests/check.h"

#include "core/base/mem.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

// A new empty folder, under $TMPDIR or /tmp. Remove with files_remove, which also frees the name.
static inline char *files_folder(void) {
    const char *base = getenv("TMPDIR");
    char *path = mem_format("%s/discquant-test-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(path));
    return path;
}

static inline int files_remove_one(const char *path, const struct stat *info, int kind, struct FTW *place) {
    (void)info, (void)kind, (void)place;
    return remove(path);
}

static inline void files_remove(char *folder) {
    nftw(folder, files_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(folder);
}

// FOLDER/NAME in one of a few static buffers: good for the next seven calls.
static inline const char *files_path(const char *folder, const char *name) {
    static char paths[8][4096];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

// All bytes of a file and a terminating zero; *n may be NULL. NULL if it cannot be opened.
static inline char *files_bytes(const char *path, size_t *n) {
    FILE *file = fopen(path, "rb");
    if (n) *n = 0;
    if (!file) return NULL;
    char *bytes = NULL;
    size_t have = 0, got;
    do {
        bytes = mem_resize(bytes, have + 65537, 1);
        got = fread(bytes + have, 1, 65536, file);
        have += got;
    } while (got > 0);
    fclose(file);
    bytes[have] = 0;
    if (n) *n = have;
    return bytes;
}

static inline void files_put(const char *path, const void *bytes, size_t n) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static inline int files_has(const char *folder, const char *name) {
    return access(files_path(folder, name), F_OK) == 0;
}

static inline void files_check_text(const char *path, const char *want) {
    char *text = files_bytes(path, NULL);
    assert_non_null(text);
    assert_string_equal(text, want);
    free(text);
}

// What a program did: exit status (128 + signal when it was killed), stdout and stderr.
struct process {
    int code;
    char *out, *err;
};

// Runs build/NAME with the arguments, a list that ends with NULL. `out` NULL: stdout is collected, else it is this file.
static inline struct process process_run(const char *name, const char *out, const char *const *args) {
    const char *build = getenv("DISCQUANT_BUILD");
    char *folder = files_folder(), *program = mem_format("%s/%s", build ? build : ".", name), *argv[64] = {program};
    for (int i = 0; args[i]; i++) argv[i + 1] = (char *)args[i];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, out ? out : files_path(folder, "out"), O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, files_path(folder, "err"), O_WRONLY | O_CREAT, 0600);
    extern char **environ;
    pid_t pid;
    int state;
    assert_int_equal(posix_spawn(&pid, program, &actions, NULL, argv, environ), 0);
    while (waitpid(pid, &state, 0) < 0) {}
    posix_spawn_file_actions_destroy(&actions);
    struct process process = {.code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state)};
    process.out = out ? mem_string("") : files_bytes(files_path(folder, "out"), NULL);
    process.err = files_bytes(files_path(folder, "err"), NULL);
    files_remove(folder);
    free(program);
    return process;
}

// Starts a program as process_run does and kills it as soon as `path` is there; one that is faster than that has ended.
static inline void process_kill_at(const char *name, const char *path, const char *const *args) {
    const char *build = getenv("DISCQUANT_BUILD");
    char *program = mem_format("%s/%s", build ? build : ".", name), *argv[64] = {program};
    for (int i = 0; args[i]; i++) argv[i + 1] = (char *)args[i];
    extern char **environ;
    pid_t pid, ended = 0;
    int state;
    assert_int_equal(posix_spawn(&pid, program, NULL, NULL, argv, environ), 0);
    while (!ended && access(path, F_OK) != 0) {
        usleep(500);
        ended = waitpid(pid, &state, WNOHANG);
    }
    kill(pid, SIGKILL);
    while (!ended && waitpid(pid, &state, 0) < 0) {}
    free(program);
}

// process_run(name, NULL, (const char *[]){…, NULL}), so: process_call("data/discquant-data", "info", path).
#define process_call(name, ...) process_run((name), NULL, (const char *[]){__VA_ARGS__, NULL})

static inline void process_free(struct process *process) {
    free(process->out);
    free(process->err);
}

// Ended with `code` and exactly one line on stderr, "discquant: error: …", that holds `text`. Frees it.
#define process_check_error(process, code, text) process_check_error_at((process), (code), (text), __FILE__, __LINE__)

static inline void process_check_error_at(struct process process, int code, const char *text, const char *file,
                                          int line) {
    const char *end = strchr(process.err, '\n');
    if (process.code != code || strncmp(process.err, "discquant: error: ", 18) != 0 || !end || end[1] ||
        !strstr(process.err, text)) {
        print_error("exit status %d, want %d; want one line with '%s'; stderr: %s\n", process.code, code, text,
                    process.err);
        _fail(file, line);
    }
    process_free(&process);
}

#endif
