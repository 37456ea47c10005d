#include "notebooks-export/export.h"

#include "core/base/mem.h"
#include "core/base/progress.h"
#include "data/file.h"
#include "data/folder.h"
#include "data/record.h"
#include "data/whole_file.h"
#include "notebooks-export/report.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char mark[] = "export.json";
enum { SVG_MAX_BYTES = 1 << 26 };

struct export {
    const struct export_settings *settings;
    int formats;
    const char *folder; // being filled
    struct run_set *set;
    struct paper *paper;
    char **svg; // [paper->n]
};

static enum status put_text(const struct export *self, const char *folder, const char *name, const char *extension,
                            const char *text) {
    enum status status = STATUS_OK;
    char *below = mem_format("%s/%s", self->folder, folder), *path = mem_format("%s/%s%s", below, name, extension);
    TRY(whole_file_folder(below));
    TRY(whole_file_put(path, text, strlen(text)));
done:
    free(path);
    free(below);
    return status;
}

static enum status put_csv(const struct export *self, const struct paper_item *item) {
    char *text = item->table ? table_csv(item->table) : figure_csv(item->figure);
    enum status status = put_text(self, "csv", item->table ? item->table->id : item->figure->id, ".csv", text);
    free(text);
    return status;
}

// Draws into OUT/FORMAT/ID.FORMAT; *path is that, a new string.
static enum status put_figure(const struct export *self, const struct figure *figure, const char *format, char **path) {
    enum status status = STATUS_OK;
    char *below = mem_format("%s/%s", self->folder, format);
    *path = mem_format("%s/%s.%s", below, figure->id, format);
    TRY(whole_file_folder(below));
    TRY(figure_draw(figure, format, *path));
done:
    free(below);
    return status;
}

static enum status read_text(const char *path, char **out) {
    char *bytes = NULL;
    int64_t n_bytes = 0;
    enum status status = file_read(path, SVG_MAX_BYTES, &bytes, &n_bytes);
    if (status == STATUS_OK) *out = mem_string_n(bytes, (size_t)n_bytes);
    mem_buffer_free(bytes);
    return status;
}

static enum status put_drawings(struct export *self, int64_t i) {
    enum status status = STATUS_OK;
    const struct figure *figure = self->paper->items[i].figure;
    char *svg = NULL, *pdf = NULL;
    if (self->formats & (EXPORT_SVG | EXPORT_HTML | EXPORT_IPYNB)) {
        TRY(put_figure(self, figure, "svg", &svg));
        TRY(read_text(svg, &self->svg[i]));
        if (!(self->formats & EXPORT_SVG)) unlink(svg);
    }
    if (self->formats & EXPORT_PDF) TRY(put_figure(self, figure, "pdf", &pdf));
done:
    free(svg);
    free(pdf);
    return status;
}

static enum status put_page(const struct export *self, const char *name,
                            char *(*make)(const struct run_set *set, const struct paper *paper, char *const *svg)) {
    char *text = make(self->set, self->paper, self->svg), *path = mem_format("%s/%s", self->folder, name);
    enum status status = whole_file_put(path, text, strlen(text));
    free(path);
    free(text);
    return status;
}

static enum status put_summary(const struct export *self) {
    json_t *root = json_object(), *made = json_array(), *missing = json_array(), *runs = json_array();
    for (int64_t i = 0; i < self->paper->n; i++) {
        const struct paper_item *item = &self->paper->items[i];
        json_t *about = json_pack("{s:s, s:s}", "place", item->place, "title", item->title);
        if (item->missing)
            json_object_set_new(about, "takes", json_string(item->missing));
        else
            json_object_set_new(about, "id", json_string(item->table ? item->table->id : item->figure->id));
        json_array_append_new(item->missing ? missing : made, about);
    }
    for (int64_t i = 0; i < self->set->n; i++) json_array_append_new(runs, record_json_string(self->set->runs[i].path));
    json_object_set_new(root, "made", made);
    json_object_set_new(root, "missing", missing);
    json_object_set_new(root, "runs", runs);
    char *text = record_json_text(root, 1), *path = mem_format("%s/%s", self->folder, mark);
    enum status status = whole_file_put(path, text, strlen(text));
    free(path);
    free(text);
    json_decref(root);
    return status;
}

static enum status fill(struct export *self) {
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < self->paper->n; i++) {
        const struct paper_item *item = &self->paper->items[i];
        if (item->missing) continue;
        if (self->formats & (EXPORT_CSV | EXPORT_IPYNB)) TRY(put_csv(self, item));
        if (item->figure) TRY(put_drawings(self, i));
    }
    if (!(self->formats & EXPORT_SVG)) {
        char *below = mem_format("%s/svg", self->folder);
        rmdir(below);
        free(below);
    }
    if (self->formats & EXPORT_HTML) TRY(put_page(self, "report.html", report_html));
    if (self->formats & EXPORT_IPYNB) TRY(put_page(self, "report.ipynb", report_notebook));
    TRY(put_summary(self));
done:
    return status;
}

static void say(const struct export *self, const char *out) {
    int64_t made = 0;
    for (int64_t i = 0; i < self->paper->n; i++) made += !self->paper->items[i].missing;
    for (int64_t i = 0; i < self->set->n_left_out; i++) progress_say("left out: %s", self->set->left_out[i]);
    for (int64_t i = 0; i < self->paper->n; i++)
        if (self->paper->items[i].missing)
            progress_say("missing: %s, %s: takes runs of %s", self->paper->items[i].place, self->paper->items[i].title,
                         self->paper->items[i].missing);
    progress_say("%lld of %lld tables and figures from %lld runs: %s", (long long)made, (long long)self->paper->n,
                 (long long)self->set->n, out);
}

enum status export_run(const struct export_settings *settings, const char *out, bool force) {
    enum status status = STATUS_OK;
    struct folder_writer *folder = NULL;
    struct export self = {.settings = settings, .formats = settings->formats};
    if (!self.formats) self.formats = EXPORT_IPYNB | EXPORT_HTML | EXPORT_CSV | EXPORT_SVG;
    if (self.formats & ~EXPORT_CSV) TRY(figure_can_draw());
    TRY(run_set_read(settings->runs, settings->n_runs, &self.set));
    TRY(paper_new(self.set, &self.paper));
    self.svg = mem_new((size_t)self.paper->n, sizeof *self.svg);
    TRY(folder_writer_new(out, force, mark, &folder));
    self.folder = folder_writer_path(folder);
    TRY(fill(&self));
    TRY(folder_writer_finish(folder));
    say(&self, out);
done:
    folder_writer_free(folder);
    for (int64_t i = 0; self.svg && i < self.paper->n; i++) free(self.svg[i]);
    free(self.svg);
    paper_free(self.paper);
    run_set_free(self.set);
    return status;
}
