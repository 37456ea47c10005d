// Model folders for tests: golden ones, one with the usual companions, and an edit that rounds.
#ifndef DQ_TESTS_MODEL_FOLDERS_H
#define DQ_TESTS_MODEL_FOLDERS_H

#include "tests/files.h"

#include "data/model_folder.h"

#include <dirent.h>

// FOLDER/NAME, good until the end of the program.
static struct arena *names_kept;

static inline const char *in(const char *folder, const char *name) {
    char *joined = mem_format("%s/%s", folder, name), *path = arena_take(names_kept, strlen(joined) + 1, 1);
    memcpy(path, joined, strlen(joined));
    free(joined);
    return path;
}

static inline struct model_folder *golden_open(const char *name) {
    char path[4096], *inner = mem_format("tests/golden/models/%s", name);
    struct model_folder *folder = NULL;
    check_ok(model_folder_open(check_source(inner, path, sizeof path), &folder));
    free(inner);
    return folder;
}

static inline int64_t entries_count(const char *path) {
    DIR *folder = opendir(path);
    assert_non_null(folder);
    int64_t n = 0;
    for (struct dirent *entry; (entry = readdir(folder));) n += entry->d_name[0] != '.';
    closedir(folder);
    return n;
}

static inline void bytes_check_same(const char *a, const char *b) {
    size_t n_a = 0, n_b = 0;
    char *x = files_bytes(a, &n_a), *y = files_bytes(b, &n_b);
    assert_non_null(x);
    assert_non_null(y);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(x, y, n_a);
    free(x);
    free(y);
}

// Replaces every tensor whose name ends in "proj.weight": multiples of `step` near the old values.
struct rounding {
    float step;
    int64_t n;                     // tensors made
    int64_t fail_after, bad_after; // -1: never; else return an error, make a NaN, at this tensor
};

static inline bool rounding_selects(void *self, const char *name) {
    (void)self;
    size_t n = strlen(name);
    return n > 11 && strcmp(name + n - 11, "proj.weight") == 0;
}

static inline enum status rounding_replace(void *self, const char *name, int64_t rows, int64_t cols, float *data) {
    struct rounding *rounding = self;
    if (rounding->n == rounding->fail_after) return status_set(STATUS_INVALID, "no replacement for %s", name);
    for (int64_t i = 0; i < rows * cols; i++) data[i] = rounding->step * roundf(data[i] / rounding->step);
    if (rounding->n++ == rounding->bad_after) data[rows * cols - 1] = NAN;
    return STATUS_OK;
}

static inline struct model_folder_edit rounding_edit(struct rounding *rounding) {
    return (struct model_folder_edit){.self = rounding, .selects = rounding_selects, .replace = rounding_replace};
}

static inline struct rounding rounding_by(float step) { return (struct rounding){step, 0, -1, -1}; }

// A folder of our own with the usual companions.
static inline char *full_folder(void) {
    char *folder = files_folder();
    struct model_folder *golden = golden_open("phi3_gqa_bf16");
    check_ok(model_folder_save(golden, folder, NULL, false)); // an empty folder may be the target
    model_folder_free(golden);
    remove(in(folder, "golden.json"));
    files_put(in(folder, "tokenizer.json"), "{\"a\": 1e-05}\r\n", 14);
    files_put(in(folder, "modeling_phi3.py"), "\0\xff\n", 3);
    files_put(in(folder, "empty.txt"), "", 0);
    files_put(in(folder, "pytorch_model.bin"), "old weights", 11);
    files_put(in(folder, "model.gguf"), "old weights", 11);
    files_put(in(folder, "consolidated.safetensors"), "old weights", 11);
    files_put(in(folder, ".gitattributes"), "x", 1);
    assert_int_equal(mkdir(in(folder, "original"), 0700), 0);
    files_put(in(folder, "original/params.json"), "{}", 2);
    files_put(in(folder, "original/consolidated.00.pth"), "old weights", 11);
    char *large = mem_new(1, 700001);
    memset(large, 'x', 700001);
    files_put(in(folder, "vocab.json"), large, 700001);
    free(large);
    assert_int_equal(symlink("vocab.json", in(folder, "link.json")), 0);
    return folder;
}

#endif
