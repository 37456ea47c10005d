#include "bench/json_lines.h"

#include "core/base/mem.h"
#include "data/file.h"
#include "data/json.h"

#include <stdlib.h>
#include <string.h>

static const int64_t FILE_BYTES_MAX = (int64_t)1 << 32;

static bool is_blank(const char *text, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!memchr(" \t\n\v\f\r", text[i], 6)) return false;
    return true;
}

static enum status line_take(const char *text, int64_t n, const char *where, int64_t line, json_lines_take *take,
                             void *context, bool *stop) {
    enum status status = STATUS_OK;
    json_t *root = NULL;
    TRY(json_read_buffer(text, n, where, &root));
    if (!json_is_object(root)) TRY(status_set(STATUS_FORMAT, "%s: is %s, must be an object", where, json_kind(root)));
    TRY(take(context, root, where, line, stop));
done:
    json_decref(root);
    return status;
}

enum status json_lines_read(const char *path, json_lines_take *take, void *context) {
    enum status status = STATUS_OK;
    char *bytes = NULL, *where = NULL;
    int64_t n_bytes = 0, line = 1, taken = 0;
    bool stop = false;
    TRY(file_read(path, FILE_BYTES_MAX, &bytes, &n_bytes));
    for (int64_t at = 0; at < n_bytes && !stop; line++) {
        const char *end = memchr(bytes + at, '\n', (size_t)(n_bytes - at));
        int64_t n = end ? end - (bytes + at) : n_bytes - at;
        free(where);
        where = mem_format("%s:%lld", path, (long long)line);
        if (!is_blank(bytes + at, n)) {
            TRY(line_take(bytes + at, n, where, line, take, context, &stop));
            taken++;
        }
        at += n + 1;
    }
    if (taken == 0) TRY(status_set(STATUS_FORMAT, "%s: holds no items", path));
done:
    free(where);
    mem_buffer_free(bytes);
    return status;
}
