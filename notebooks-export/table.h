// A table for people: cells of text, some with the number behind them.
//
//     struct table *table = table_new("table1", "Table 1", "Squared mean and mean square of gradients");
//     table_column(table, "|E g|^2");
//     table_row(table);
//     table_number(table, 0.0123, "%.3g");
//     table_text(table, "%s", name);
#ifndef DQ_NOTEBOOKS_EXPORT_TABLE_H
#define DQ_NOTEBOOKS_EXPORT_TABLE_H

#include <stdint.h>

struct cell {
    char *text;
    double number, half; // the number, and half of its interval; NaN: none
};

struct table {
    char *id;    // of its files
    char *place; // in the paper: "Table 1"
    char *title;
    char **notes; // sentences below it
    char **columns;
    struct cell *cells; // [n_rows, n_columns]; what a row lacks is empty
    int64_t n_notes, n_columns, n_rows, n_cells;
};

struct table *table_new(const char *id, const char *place, const char *title);
void table_free(struct table *table); // accepts NULL
void table_note(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_column(struct table *table, const char *name); // all of them before the first row
void table_row(struct table *table);
void table_text(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_number(struct table *table, double value, const char *format); // empty for NaN
// Mean and half width of its 95 % interval, "0.123 ± 0.004"; half NaN: the mean alone. `digits` decimals, more where two digits of the
// half width (three of the mean) need them.
void table_interval(struct table *table, double mean, double half, int digits);

const struct cell *table_cell(const struct table *table, int64_t row, int64_t column);

// New strings. In CSV a column of numbers holds them unrounded, and is followed by "NAME ±" where some have intervals.
char *table_csv(const struct table *table);
char *table_html(const struct table *table);
char *table_markdown(const struct table *table);

#endif
