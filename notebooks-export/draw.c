// Figures by gnuplot. Colours are Okabe and Ito's, which colour-blind readers tell apart; every hue has a mark and a dash of its
// own too, for print in black and white.
#include "core/base/mem.h"
#include "data/whole_file.h"
#include "notebooks-export/figure.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const colours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"};
static const int marks[] = {7, 5, 9, 13, 6, 4, 8};
enum { N_HUES = sizeof colours / sizeof *colours };

// A string in single quotes: gnuplot doubles those inside.
static void quote(FILE *to, const char *text) {
    fputc('\'', to);
    for (const char *c = text; *c; c++) fputs(*c == '\'' ? "''" : (char[]){*c == '\n' ? ' ' : *c, 0}, to);
    fputc('\'', to);
}

static void put_number(FILE *to, double value) {
    if (isfinite(value))
        fprintf(to, " %.10g", value);
    else
        fputs(" NaN", to);
}

static void put_data(FILE *to, const struct figure *figure) {
    for (int64_t p = 0; p < figure->n_panels; p++)
        for (int64_t s = 0; s < figure->panels[p]->n_series; s++) {
            const struct series *series = &figure->panels[p]->series[s];
            fprintf(to, "$s%lld_%lld << E\n", (long long)p, (long long)s);
            for (int64_t i = 0; i < series->n; i++) {
                for (int k = 0; k < 4; k++) put_number(to, series->rows[4 * i + k]);
                fputc('\n', to);
            }
            fputs("E\n", to);
        }
}

static bool has_intervals(const struct series *series) {
    for (int64_t i = 0; i < series->n; i++)
        if (isfinite(series->rows[4 * i + 2]) && isfinite(series->rows[4 * i + 3])) return true;
    return false;
}

static void put_series(FILE *to, int64_t p, int64_t s, const struct series *series) {
    int hue = series->hue % N_HUES;
    if (has_intervals(series))
        fprintf(to, "$s%lld_%lld using 1:2:3:4 with yerrorbars pt 0 lc rgb '%s' notitle, ", (long long)p, (long long)s,
                colours[hue]);
    fprintf(to, "$s%lld_%lld using 1:2 with ", (long long)p, (long long)s);
    switch (series->look) {
    case LOOK_MARKS: fprintf(to, "points pt %d ps 0.7", marks[hue]); break;
    case LOOK_MARKED_LINE: fprintf(to, "linespoints pt %d ps 0.7 dt %d", marks[hue], hue % 4 + 1); break;
    case LOOK_LINE: fputs("lines", to); break;
    case LOOK_DASHES: fputs("lines dt 2", to); break;
    case LOOK_DOTS: fputs("points pt 7 ps 0.15", to); break;
    }
    fprintf(to, " lc rgb '%s' ", colours[hue]);
    if (series->name[0]) {
        fputs("title ", to);
        quote(to, series->name);
    } else
        fputs("notitle", to);
}

// Of one column's numbers (1 = y with its intervals), positive ones only where the axis is logarithmic.
static void range_of(const struct panel *panel, int column, bool log, double *low, double *high) {
    *low = INFINITY, *high = -INFINITY;
    for (int64_t s = 0; s < panel->n_series; s++)
        for (int64_t i = 0; i < panel->series[s].n; i++)
            for (int k = column; k <= (column ? 3 : 0); k++) {
                double value = panel->series[s].rows[4 * i + k];
                if (!isfinite(value) || (log && value <= 0)) continue;
                *low = fmin(*low, value), *high = fmax(*high, value);
            }
}

// The numbers with a margin of 4 % on both sides. Logarithms to base 2 where there are few decades, so that there are enough tics.
static void put_axis(FILE *to, const struct panel *panel, char axis, bool log) {
    double low, high;
    range_of(panel, axis == 'y', log, &low, &high);
    fprintf(to, "set format %c '%%g'\n", axis);
    if (low > high) {
        fprintf(to, "set %crange [*:*]\n", axis);
        return;
    }
    if (log) {
        bool binary = axis == 'x' && high < 1000 * low;
        double margin = high > low ? pow(high / low, 0.04) : 2;
        fprintf(to, "set logscale %c %d\n", axis, binary ? 2 : 10);
        if (!binary && high > 100 * low) fprintf(to, "set format %c '10^{%%T}'\n", axis);
        low /= margin, high *= margin;
    } else {
        double margin = high > low ? 0.04 * (high - low) : fmax(1, fabs(high)) / 2;
        low -= margin, high += margin;
    }
    fprintf(to, "set %crange [%.10g:%.10g]\n", axis, low, high);
}

static void put_panel(FILE *to, int64_t p, const struct panel *panel) {
    fputs("set title ", to);
    quote(to, panel->title);
    fputs("\nset xlabel ", to);
    quote(to, panel->x_label);
    fputs(" offset 0,0.4\nset ylabel ", to);
    quote(to, panel->y_label);
    fputs("\nunset logscale\nset xtics auto norotate\n", to);
    put_axis(to, panel, 'x', panel->flags & PANEL_LOG_X);
    put_axis(to, panel, 'y', panel->flags & PANEL_LOG_Y);
    if (panel->flags & PANEL_NAMED_X) {
        fputs("set xtics rotate by 30 right (", to);
        for (int64_t i = 0; i < panel->n_x_names; i++) {
            if (i) fputs(", ", to);
            quote(to, panel->x_names[i]);
            fprintf(to, " %lld", (long long)i);
        }
        fprintf(to, ")\nset xrange [-0.5:%lld.5]\n", (long long)panel->n_x_names - 1);
    }
    fputs("plot ", to);
    for (int64_t s = 0; s < panel->n_series; s++) {
        if (s) fputs(", ", to);
        put_series(to, p, s, &panel->series[s]);
    }
    fputc('\n', to);
}

int64_t figure_width(const struct figure *figure) { return figure->n_panels < 2 ? 620 : 940; }

// At most two panels side by side.
static void put_script(FILE *to, const struct figure *figure, const char *format, const char *path) {
    enum { PANEL_HEIGHT = 400 };
    int64_t across = figure->n_panels < 2 ? 1 : 2, down = (figure->n_panels + across - 1) / across;
    int64_t width = figure_width(figure), height = down * PANEL_HEIGHT;
    if (strcmp(format, "svg") == 0)
        fprintf(to, "set terminal svg size %lld,%lld fixed background 'white' font 'sans-serif,13'\n", (long long)width,
                (long long)height);
    else
        fprintf(to, "set terminal pdfcairo size %.2fin,%.2fin font 'sans-serif,10'\n", (double)width / 90,
                (double)height / 90);
    fputs("set output ", to);
    quote(to, path);
    fputs("\nset encoding utf8\nset grid lc rgb '#dddddd'\nset border 3\nset tics nomirror\nset key noenhanced samplen "
          "2 spacing 1.1 "
          "outside bottom center horizontal reverse Left\nset title noenhanced\n",
          to);
    put_data(to, figure);
    fprintf(to, "set multiplot layout %lld,%lld\n", (long long)down, (long long)across);
    for (int64_t p = 0; p < figure->n_panels; p++) put_panel(to, p, figure->panels[p]);
    fputs("unset multiplot\n", to);
}

enum status figure_can_draw(void) {
    int code = system("gnuplot --version >/dev/null 2>&1");
    return code == 0 ? STATUS_OK
                     : status_set(STATUS_UNSUPPORTED,
                                  "figures are drawn by gnuplot, which is missing: install gnuplot-nox, or "
                                  "give --format csv");
}

enum status figure_draw(const struct figure *figure, const char *format, const char *path) {
    enum status status = STATUS_OK;
    char *aside = mem_format("%s.drawing", path);
    void (*on_pipe)(int) = signal(SIGPIPE, SIG_IGN);
    FILE *to = popen("gnuplot 2>/dev/null", "w");
    if (!to) TRY(status_set(STATUS_IO, "gnuplot: cannot start: %s", strerror(errno)));
    put_script(to, figure, format, aside);
    if (pclose(to) != 0) TRY(status_set(STATUS_IO, "%s: gnuplot could not draw it", path));
    TRY(whole_file_copy(aside, path));
done:
    signal(SIGPIPE, on_pipe);
    unlink(aside);
    free(aside);
    return status;
}
