// A figure as data: panels of named series, drawn by gnuplot, kept beside it as CSV.
//
//     struct figure *figure = figure_new("theorem2", "Theorem 2", "Error against m");
//     struct panel *panel = figure_panel(figure, "", "m (samples)", "QE", PANEL_LOG_X | PANEL_LOG_Y);
//     struct series *law = panel_series(panel, "law", LOOK_LINE, 0);
//     series_point(law, 8, 0.1, NAN, NAN);
//     TRY(figure_draw(figure, "svg", path));
#ifndef DQ_NOTEBOOKS_EXPORT_FIGURE_H
#define DQ_NOTEBOOKS_EXPORT_FIGURE_H

#include "core/base/status.h"

#include <stdint.h>

enum look { LOOK_MARKS, LOOK_MARKED_LINE, LOOK_LINE, LOOK_DASHES, LOOK_DOTS }; // dots: many small points
enum { PANEL_LOG_X = 1, PANEL_LOG_Y = 2, PANEL_NAMED_X = 4 };                  // named: x = 0, 1, … have names

struct series {
    char *name; // "" = not in the key
    enum look look;
    int hue;      // which colour and mark: series of one hue belong together
    double *rows; // [n, 4]: x, y, low, high (NaN: no interval)
    int64_t n;
};

struct panel {
    char *title, *x_label, *y_label;
    int flags;
    char **x_names; // PANEL_NAMED_X
    int64_t n_x_names;
    struct series *series;
    int64_t n_series;
};

enum { MOST_PANELS = 8 };

struct figure {
    char *id;    // of its files
    char *place; // in the paper: "Figure 3"
    char *title, *caption;
    struct panel *panels[MOST_PANELS];
    int64_t n_panels;
};

struct figure *figure_new(const char *id, const char *place, const char *title);
void figure_free(struct figure *figure); // accepts NULL
void figure_caption(struct figure *figure, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Valid until the figure is freed.
struct panel *figure_panel(struct figure *figure, const char *title, const char *x_label, const char *y_label,
                           int flags);
int64_t panel_x_name(struct panel *panel, const char *name); // its x; a new one at the end where it has none
// Valid until the panel gets another one.
struct series *panel_series(struct panel *panel, const char *name, enum look look, int hue);
void series_point(struct series *series, double x, double y, double low, double high);

// A new string: panel,series,look,hue,x,y,low,high. One line per point; x by name in panels of names.
char *figure_csv(const struct figure *figure);

// STATUS_UNSUPPORTED where gnuplot is missing. `format` is svg or pdf. The file appears complete or not at all.
enum status figure_draw(const struct figure *figure, const char *format, const char *path);
enum status figure_can_draw(void);
int64_t figure_width(const struct figure *figure); // of the drawing, in pixels of a screen

#endif
