#include "core/base/progress.h"

#include "core/base/clock.h"
#include "core/base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct progress {
    char *what, *unit;
    int64_t total, first, done;
    double begun, next;   // clock_seconds() at the start and at the earliest next line
    double interval;      // between plain lines
    bool terminal, dirty; // dirty: `text` or `done` changed since they were shown
    char text[160];
};

static bool quiet;
static bool line_shown; // the cursor stands behind a progress line

void progress_set_quiet(bool value) { quiet = value; }

void progress_clear(void) {
    if (line_shown) fputs("\r\033[K", stderr);
    line_shown = false;
}

void progress_say(const char *format, ...) {
    if (quiet) return;
    progress_clear();
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

struct progress *progress_new(const char *what, const char *unit, int64_t total, int64_t done) {
    struct progress *progress = mem_new(1, sizeof *progress);
    progress->what = mem_string(what);
    progress->unit = mem_string(unit);
    progress->total = total;
    progress->first = progress->done = done;
    progress->begun = clock_seconds();
    progress->terminal = isatty(STDERR_FILENO);
    progress->interval = 5;
    progress->next = progress->begun + (progress->terminal ? 0 : progress->interval);
    return progress;
}

// 75 -> "1:15", 3700 -> "1:01:40".
static void format_time(char *out, size_t size, double seconds) {
    long long s = (long long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(out, size, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, size, "%lld:%02lld", s / 60, s % 60);
}

static void format_line(const struct progress *progress, double now, char *line, size_t size) {
    double seconds = now - progress->begun, rate = (double)(progress->done - progress->first) / fmax(seconds, 1e-9);
    bool known = progress->done > progress->first && seconds > 0.01;
    char spent[32], left[48] = "", speed[64] = "", total[32] = "";
    format_time(spent, sizeof spent, seconds);
    if (known) snprintf(speed, sizeof speed, ", %.3g %s/s", rate, progress->unit);
    if (progress->total > 0) snprintf(total, sizeof total, "/%lld", (long long)progress->total);
    if (known && progress->total > progress->done) {
        char time[32];
        format_time(time, sizeof time, (double)(progress->total - progress->done) / rate);
        snprintf(left, sizeof left, ", %s left", time);
    }
    snprintf(line, size, "%s %lld%s %s%s, %s%s%s%s", progress->what, (long long)progress->done, total, progress->unit,
             speed, spent, left, progress->text[0] ? ", " : "", progress->text);
}

static void show(struct progress *progress, double now) {
    char line[512];
    format_line(progress, now, line, sizeof line);
    progress->dirty = false;
    if (!progress->terminal) {
        fprintf(stderr, "%s\n", line);
        return;
    }
    struct winsize window;
    size_t width = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1 ? window.ws_col - 1u : 79;
    if (strlen(line) > width && width < sizeof line) line[width] = 0;
    fprintf(stderr, "\r%s\033[K", line);
    fflush(stderr);
    line_shown = true;
}

void progress_update(struct progress *progress, int64_t done, const char *format, ...) {
    progress->done = done;
    if (quiet) return;
    progress->dirty = true;
    if (format) {
        va_list args;
        va_start(args, format);
        vsnprintf(progress->text, sizeof progress->text, format, args);
        va_end(args);
    } else {
        progress->text[0] = 0;
    }
    double now = clock_seconds();
    if (now < progress->next) return;
    show(progress, now);
    if (!progress->terminal) progress->interval = fmin(60, now - progress->begun);
    progress->next = now + (progress->terminal ? 0.1 : progress->interval);
}

void progress_free(struct progress *progress) {
    if (!progress) return;
    if (!quiet && progress->dirty) show(progress, clock_seconds());
    if (line_shown) fputc('\n', stderr);
    line_shown = false;
    free(progress->what);
    free(progress->unit);
    free(progress);
}
