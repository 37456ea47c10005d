#include "notebooks-export/table.h"

#include "core/base/mem.h"
#include "notebooks-export/markup.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

struct table *table_new(const char *id, const char *place, const char *title) {
    struct table *table = mem_new(1, sizeof *table);
    *table = (struct table){.id = mem_string(id), .place = mem_string(place), .title = mem_string(title)};
    return table;
}

void table_free(struct table *table) {
    if (!table) return;
    for (int64_t i = 0; i < table->n_columns; i++) free(table->columns[i]);
    for (int64_t i = 0; i < table->n_notes; i++) free(table->notes[i]);
    for (int64_t i = 0; i < table->n_rows * table->n_columns; i++) free(table->cells[i].text);
    free(table->id);
    free(table->place);
    free(table->title);
    free(table->columns);
    free(table->notes);
    free(table->cells);
    free(table);
}

static char *format_text(const char *format, va_list arguments) {
    char *text = NULL;
    REQUIRE(vasprintf(&text, format, arguments) >= 0, "out of memory");
    return text;
}

void table_note(struct table *table, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    table->notes = mem_resize(table->notes, (size_t)table->n_notes + 1, sizeof *table->notes);
    table->notes[table->n_notes++] = format_text(format, arguments);
    va_end(arguments);
}

void table_column(struct table *table, const char *name) {
    REQUIRE(table->n_rows == 0, "columns come before rows");
    table->columns = mem_resize(table->columns, (size_t)table->n_columns + 1, sizeof *table->columns);
    table->columns[table->n_columns++] = mem_string(name);
}

void table_row(struct table *table) {
    int64_t n = table->n_rows * table->n_columns;
    table->cells = mem_resize(table->cells, (size_t)(n + table->n_columns), sizeof *table->cells);
    for (int64_t i = 0; i < table->n_columns; i++) table->cells[n + i] = (struct cell){mem_string(""), NAN, NAN};
    table->n_cells = n;
    table->n_rows++;
}

static void cell_put(struct table *table, char *text, double number, double half) {
    REQUIRE(table->n_cells < table->n_rows * table->n_columns, "a row has as many cells as there are columns");
    struct cell *cell = &table->cells[table->n_cells++];
    free(cell->text);
    *cell = (struct cell){text, number, half};
}

void table_text(struct table *table, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    cell_put(table, format_text(format, arguments), NAN, NAN);
    va_end(arguments);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
void table_number(struct table *table, double value, const char *format) {
    cell_put(table, isnan(value) ? mem_string("") : mem_format(format, value), value, NAN);
}
#pragma GCC diagnostic pop

// Decimals that leave `digits` significant digits of `value`, 8 at most; none where it is 0 or no number.
static int decimals(double value, int digits) {
    return fabs(value) > 0 ? (int)fmin(8, digits - 1 - floor(log10(fabs(value)))) : 0;
}

void table_interval(struct table *table, double mean, double half, int digits) {
    digits = (int)fmax(digits, half > 0 ? decimals(half, 2) : decimals(mean, 3));
    char *text = isnan(mean)   ? mem_string("")
                 : isnan(half) ? mem_format("%.*f", digits, mean)
                               : mem_format("%.*f ± %.*f", digits, mean, digits, half);
    cell_put(table, text, mean, half);
}

const struct cell *table_cell(const struct table *table, int64_t row, int64_t column) {
    return &table->cells[row * table->n_columns + column];
}

static bool column_has_intervals(const struct table *table, int64_t column) {
    for (int64_t row = 0; row < table->n_rows; row++)
        if (!isnan(table_cell(table, row, column)->half)) return true;
    return false;
}

static void csv_row(const struct table *table, int64_t row, FILE *to) {
    for (int64_t i = 0; i < table->n_columns; i++) {
        const struct cell *cell = row < 0 ? NULL : table_cell(table, row, i);
        if (i) fputc(',', to);
        if (cell && !isnan(cell->number))
            csv_put_number(to, cell->number);
        else
            csv_put(to, cell ? cell->text : table->columns[i]);
        if (!column_has_intervals(table, i)) continue;
        fputc(',', to);
        if (cell)
            csv_put_number(to, cell->half);
        else {
            csv_put(to, table->columns[i]);
            fputs(" ±", to);
        }
    }
    fputc('\n', to);
}

char *table_csv(const struct table *table) {
    char *text = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&text, &n);
    REQUIRE(to, "out of memory");
    for (int64_t row = -1; row < table->n_rows; row++) csv_row(table, row, to);
    fclose(to);
    return text;
}

char *table_html(const struct table *table) {
    char *text = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&text, &n);
    REQUIRE(to, "out of memory");
    fputs("<table>\n<thead><tr>", to);
    for (int64_t i = 0; i < table->n_columns; i++) {
        fputs("<th>", to);
        html_put(to, table->columns[i]);
        fputs("</th>", to);
    }
    fputs("</tr></thead>\n<tbody>\n", to);
    for (int64_t row = 0; row < table->n_rows; row++) {
        fputs("<tr>", to);
        for (int64_t i = 0; i < table->n_columns; i++) {
            const struct cell *cell = table_cell(table, row, i);
            fputs(isnan(cell->number) ? "<td>" : "<td class=\"number\">", to);
            html_put(to, cell->text);
            fputs("</td>", to);
        }
        fputs("</tr>\n", to);
    }
    fputs("</tbody>\n</table>\n", to);
    fclose(to);
    return text;
}

char *table_markdown(const struct table *table) {
    char *text = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&text, &n);
    REQUIRE(to, "out of memory");
    for (int64_t row = -2; row < table->n_rows; row++) {
        for (int64_t i = 0; i < table->n_columns; i++) {
            const char *cell = row == -2 ? table->columns[i] : row == -1 ? "---" : table_cell(table, row, i)->text;
            fputs(row == -1 ? "|" : "| ", to);
            for (const char *c = cell; *c; c++) fprintf(to, *c == '|' ? "\\%c" : "%c", *c);
            if (row != -1) fputc(' ', to);
        }
        fputs("|\n", to);
    }
    fclose(to);
    return text;
}
