#include "bench/csv_rows.h"

#include "core/base/mem.h"
#include "data/file.h"

#include <stdlib.h>
#include <string.h>

static const int64_t FILE_BYTES_MAX = (int64_t)1 << 31;

struct builder {
    struct csv_rows *rows;
    int64_t n_fields, field_room, row_room;
};

static void field_add(struct builder *b, char *field) {
    if (b->n_fields == b->field_room) {
        b->field_room = b->field_room ? 2 * b->field_room : 64;
        b->rows->fields = mem_resize(b->rows->fields, (size_t)b->field_room, sizeof *b->rows->fields);
    }
    b->rows->fields[b->n_fields++] = field;
}

static void row_end(struct builder *b) {
    struct csv_rows *rows = b->rows;
    if (rows->n_rows + 2 > b->row_room) {
        b->row_room = b->row_room ? 2 * b->row_room : 64;
        rows->first = mem_resize(rows->first, (size_t)b->row_room, sizeof *rows->first);
        if (rows->n_rows == 0) rows->first[0] = 0;
    }
    rows->first[++rows->n_rows] = b->n_fields;
}

// Takes the quotes off in place; the character behind the field, or -1 where there is no closing quote.
static int unquote(char **at, const char *end, char **field) {
    char *from = *at + 1, *to = *at;
    *field = to;
    for (; from < end; from++) {
        if (*from != '"')
            *to++ = *from;
        else if (from + 1 < end && from[1] == '"')
            *to++ = *from++;
        else
            break;
    }
    if (from == end) return -1;
    *at = from + 1;
    int behind = *at < end ? (unsigned char)**at : '\n';
    *to = 0;
    return behind;
}

static enum status parse(struct builder *b, const char *path, char *bytes, int64_t n_bytes) {
    char *at = bytes, *end = bytes + n_bytes;
    while (at < end) {
        char *field = at;
        int behind;
        if (*at == '"') {
            behind = unquote(&at, end, &field);
            if (behind == '\r' && at + 1 < end) behind = (unsigned char)*++at;
            if (behind != ',' && behind != '\n')
                return status_set(STATUS_FORMAT, "%s: row %lld: %s", path, (long long)b->rows->n_rows + 1,
                                  behind < 0 ? "a quote is not closed" : "something stands behind a closing quote");
        } else {
            while (at < end && *at != ',' && *at != '\n') at++;
            behind = at < end ? *at : '\n';
            if (behind == '\n' && at > field && at[-1] == '\r') at[-1] = 0;
        }
        if (at < end) *at = 0;
        at++;
        field_add(b, field);
        if (behind == '\n') row_end(b);
        // A comma at the very end: one more field, an empty one.
        if (behind == ',' && at >= end) field_add(b, end), row_end(b);
    }
    return STATUS_OK;
}

enum status csv_rows_read(const char *path, struct csv_rows **out) {
    enum status status = STATUS_OK;
    struct csv_rows *rows = mem_new(1, sizeof *rows);
    struct builder b = {.rows = rows};
    int64_t n_bytes = 0;
    TRY(file_read(path, FILE_BYTES_MAX, &rows->bytes, &n_bytes)); // a zero stands behind them
    TRY(parse(&b, path, rows->bytes, n_bytes));
    *out = rows;
    rows = NULL;
done:
    csv_rows_free(rows);
    return status;
}

void csv_rows_free(struct csv_rows *rows) {
    if (!rows) return;
    free(rows->fields);
    free(rows->first);
    mem_buffer_free(rows->bytes);
    free(rows);
}
