#include "notebooks-export/figure.h"

#include "core/base/mem.h"
#include "notebooks-export/markup.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct figure *figure_new(const char *id, const char *place, const char *title) {
    struct figure *figure = mem_new(1, sizeof *figure);
    *figure = (struct figure){
        .id = mem_string(id), .place = mem_string(place), .title = mem_string(title), .caption = mem_string("")};
    return figure;
}

static void panel_free(struct panel *panel) {
    for (int64_t i = 0; i < panel->n_series; i++) {
        free(panel->series[i].name);
        free(panel->series[i].rows);
    }
    for (int64_t i = 0; i < panel->n_x_names; i++) free(panel->x_names[i]);
    free(panel->x_names);
    free(panel->series);
    free(panel->title);
    free(panel->x_label);
    free(panel->y_label);
    free(panel);
}

void figure_free(struct figure *figure) {
    if (!figure) return;
    for (int64_t i = 0; i < figure->n_panels; i++) panel_free(figure->panels[i]);
    free(figure->id);
    free(figure->place);
    free(figure->title);
    free(figure->caption);
    free(figure);
}

void figure_caption(struct figure *figure, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    free(figure->caption);
    REQUIRE(vasprintf(&figure->caption, format, arguments) >= 0, "out of memory");
    va_end(arguments);
}

struct panel *figure_panel(struct figure *figure, const char *title, const char *x_label, const char *y_label,
                           int flags) {
    REQUIRE(figure->n_panels < (int64_t)(sizeof figure->panels / sizeof *figure->panels), "too many panels");
    struct panel *panel = mem_new(1, sizeof *panel);
    *panel = (struct panel){
        .title = mem_string(title), .x_label = mem_string(x_label), .y_label = mem_string(y_label), .flags = flags};
    return figure->panels[figure->n_panels++] = panel;
}

int64_t panel_x_name(struct panel *panel, const char *name) {
    for (int64_t i = 0; i < panel->n_x_names; i++)
        if (strcmp(panel->x_names[i], name) == 0) return i;
    panel->x_names = mem_resize(panel->x_names, (size_t)panel->n_x_names + 1, sizeof *panel->x_names);
    panel->x_names[panel->n_x_names] = mem_string(name);
    return panel->n_x_names++;
}

struct series *panel_series(struct panel *panel, const char *name, enum look look, int hue) {
    panel->series = mem_resize(panel->series, (size_t)panel->n_series + 1, sizeof *panel->series);
    panel->series[panel->n_series] = (struct series){.name = mem_string(name), .look = look, .hue = hue};
    return &panel->series[panel->n_series++];
}

void series_point(struct series *series, double x, double y, double low, double high) {
    if (isnan(x) || isnan(y)) return;
    if ((series->n & (series->n - 1)) == 0)
        series->rows = mem_resize(series->rows, (size_t)(series->n ? 2 * series->n : 1), 4 * sizeof *series->rows);
    memcpy(series->rows + 4 * series->n++, (double[]){x, y, low, high}, 4 * sizeof *series->rows);
}

static const char *const look_names[] = {"marks", "marked line", "line", "dashes", "dots"};

char *figure_csv(const struct figure *figure) {
    char *text = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&text, &n);
    REQUIRE(to, "out of memory");
    fputs("panel,series,look,hue,x,y,low,high\n", to);
    for (int64_t p = 0; p < figure->n_panels; p++)
        for (int64_t s = 0; s < figure->panels[p]->n_series; s++) {
            const struct panel *panel = figure->panels[p];
            const struct series *series = &panel->series[s];
            for (int64_t i = 0; i < series->n; i++) {
                const double *row = series->rows + 4 * i;
                fprintf(to, "%lld,", (long long)p);
                csv_put(to, series->name);
                fprintf(to, ",%s,%d,", look_names[series->look], series->hue);
                if (panel->flags & PANEL_NAMED_X)
                    csv_put(to, panel->x_names[(int64_t)row[0]]);
                else
                    csv_put_number(to, row[0]);
                for (int k = 1; k < 4; k++) {
                    fputc(',', to);
                    csv_put_number(to, row[k]);
                }
                fputc('\n', to);
            }
        }
    fclose(to);
    return text;
}
