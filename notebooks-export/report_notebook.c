#include "core/base/mem.h"
#include "data/record.h"
#include "notebooks-export/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The only code of the notebook: what its other cells call.
static const char helpers[] =
    "import csv, html\n"
    "import matplotlib.pyplot as plt\n"
    "from IPython.display import HTML\n"
    "\n"
    "plt.rcParams.update({\"figure.dpi\": 100, \"axes.spines.top\": False, \"axes.spines.right\": False,\n"
    "                     \"axes.grid\": True, \"grid.color\": \"#dddddd\"})\n"
    "COLOURS = [\"#0072B2\", \"#D55E00\", \"#009E73\", \"#CC79A7\", \"#E69F00\", \"#56B4E9\", \"#000000\"]  # Okabe "
    "and Ito\n"
    "MARKS = [\"o\", \"s\", \"^\", \"D\", \"v\", \"P\", \"x\"]\n"
    "LOOKS = {\"marks\": dict(linestyle=\"none\"), \"marked line\": {}, \"line\": dict(marker=\"none\"),\n"
    "         \"dashes\": dict(marker=\"none\", linestyle=\"--\"), \"dots\": dict(linestyle=\"none\", marker=\".\", "
    "markersize=1.5)}\n"
    "\n"
    "def read(path):\n"
    "    with open(path, newline=\"\", encoding=\"utf-8\") as file:\n"
    "        return list(csv.DictReader(file))\n"
    "\n"
    "def short(text):\n"
    "    try:\n"
    "        return f\"{float(text):.4g}\"\n"
    "    except ValueError:\n"
    "        return text\n"
    "\n"
    "def table(path):\n"
    "    rows = read(path)\n"
    "    cell = lambda tag, text: f\"<{tag}>{html.escape(text)}</{tag}>\"\n"
    "    head = \"\".join(cell(\"th\", name) for name in rows[0])\n"
    "    body = \"\".join(\"<tr>\" + \"\".join(cell(\"td\", short(v)) for v in row.values()) + \"</tr>\" for row in "
    "rows)\n"
    "    return HTML(f\"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>\")\n"
    "\n"
    "def number(text):\n"
    "    return float(text) if text else float(\"nan\")\n"
    "\n"
    "def draw_series(axis, rows, names):\n"
    "    first = rows[0]\n"
    "    x = [names.index(r[\"x\"]) if names else float(r[\"x\"]) for r in rows]\n"
    "    y = [float(r[\"y\"]) for r in rows]\n"
    "    hue = int(first[\"hue\"])\n"
    "    style = dict(color=COLOURS[hue % 7], marker=MARKS[hue % 7], markersize=4, label=first[\"series\"] or None)\n"
    "    style.update(LOOKS[first[\"look\"]])\n"
    "    errors = [[b - number(r[\"low\"]) for b, r in zip(y, rows)], [number(r[\"high\"]) - b for b, r in zip(y, "
    "rows)]]\n"
    "    axis.errorbar(x, y, yerr=errors if any(r[\"low\"] for r in rows) else None, capsize=2, **style)\n"
    "\n"
    "def draw(path, panels):\n"
    "    rows = read(path)\n"
    "    across = min(2, len(panels))\n"
    "    down = -(-len(panels) // across)\n"
    "    figure, axes = plt.subplots(down, across, figsize=(5.4 * across, 4 * down), squeeze=False, "
    "layout=\"constrained\")\n"
    "    for unused in list(axes.flat)[len(panels):]:\n"
    "        unused.remove()\n"
    "    for i, (axis, panel) in enumerate(zip(axes.flat, panels)):\n"
    "        own = [r for r in rows if int(r[\"panel\"]) == i]\n"
    "        series = []\n"
    "        for row in own:  # consecutive rows of one name, look and hue\n"
    "            key = row[\"series\"], row[\"look\"], row[\"hue\"]\n"
    "            if not series or series[-1][0] != key:\n"
    "                series.append((key, []))\n"
    "            series[-1][1].append(row)\n"
    "        names = panel.get(\"names\")\n"
    "        for _, points in series:\n"
    "            draw_series(axis, points, names)\n"
    "        axis.set(title=panel[\"title\"], xlabel=panel[\"x\"], ylabel=panel[\"y\"],\n"
    "                 xscale=\"log\" if \"x\" in panel[\"log\"] else \"linear\", yscale=\"log\" if \"y\" in "
    "panel[\"log\"] else \"linear\")\n"
    "        low, high = axis.get_xlim()\n"
    "        if \"x\" in panel[\"log\"] and high < 1000 * low:\n"
    "            axis.set_xscale(\"log\", base=2)\n"
    "            axis.xaxis.set_major_formatter(\"{x:g}\")\n"
    "        if names:\n"
    "            axis.set_xticks(range(len(names)), names, rotation=30, ha=\"right\")\n"
    "        if axis.get_legend_handles_labels()[0]:\n"
    "            axis.legend(frameon=False, fontsize=8)\n";

struct notebook {
    json_t *cells;
    int n_cells, n_executed;
};

// Text as the list of its lines, as notebooks have it.
static json_t *lines_of(const char *text) {
    json_t *lines = json_array();
    while (*text) {
        size_t n = strcspn(text, "\n");
        n += text[n] == '\n';
        char *line = mem_string_n(text, n);
        json_array_append_new(lines, record_json_string(line));
        free(line);
        text += n;
    }
    return lines;
}

static json_t *cell_new(struct notebook *notebook, const char *type, const char *source) {
    char id[32];
    snprintf(id, sizeof id, "cell-%d", ++notebook->n_cells);
    json_t *cell = json_object();
    json_object_set_new(cell, "id", json_string(id));
    json_object_set_new(cell, "cell_type", json_string(type));
    json_object_set_new(cell, "metadata", json_object());
    json_object_set_new(cell, "source", lines_of(source));
    json_array_append_new(notebook->cells, cell);
    return cell;
}

// `kind` NULL: the cell shows nothing.
static void add_code(struct notebook *notebook, const char *source, const char *kind, const char *mime,
                     const char *value, const char *plain) {
    json_t *cell = cell_new(notebook, "code", source), *outputs = json_array();
    int count = ++notebook->n_executed;
    json_object_set_new(cell, "execution_count", json_integer(count));
    json_object_set_new(cell, "outputs", outputs);
    if (!kind) return;
    json_t *output = json_object(), *data = json_object();
    json_object_set_new(output, "output_type", json_string(kind));
    json_object_set_new(output, "metadata", json_object());
    json_object_set_new(data, mime, lines_of(value));
    json_object_set_new(data, "text/plain", lines_of(plain));
    json_object_set_new(output, "data", data);
    if (strcmp(kind, "execute_result") == 0) json_object_set_new(output, "execution_count", json_integer(count));
    json_array_append_new(outputs, output);
}

static void add_heading(struct notebook *notebook, const struct paper_item *item, const char *text) {
    char *source = mem_format("## %s. %s\n\n%s", item->place, item->title, text);
    cell_new(notebook, "markdown", source);
    free(source);
}

static void add_table(struct notebook *notebook, const struct paper_item *item) {
    const struct table *table = item->table;
    char *notes = mem_string("");
    for (int64_t i = 0; i < table->n_notes; i++) {
        char *longer = mem_format("%s%s%s", notes, i ? " " : "", table->notes[i]);
        free(notes);
        notes = longer;
    }
    add_heading(notebook, item, notes);
    char *source = mem_format("table(\"csv/%s.csv\")", table->id);
    char *shown = table_html(table);
    add_code(notebook, source, "execute_result", "text/html", shown, "<IPython.core.display.HTML object>");
    free(shown);
    free(source);
    free(notes);
}

static json_t *panel_about(const struct panel *panel) {
    json_t *about = json_object();
    char log[3] = "";
    if (panel->flags & PANEL_LOG_X) strcat(log, "x");
    if (panel->flags & PANEL_LOG_Y) strcat(log, "y");
    json_object_set_new(about, "title", record_json_string(panel->title));
    json_object_set_new(about, "x", record_json_string(panel->x_label));
    json_object_set_new(about, "y", record_json_string(panel->y_label));
    json_object_set_new(about, "log", json_string(log));
    if (panel->flags & PANEL_NAMED_X) {
        json_t *names = json_array();
        for (int64_t i = 0; i < panel->n_x_names; i++)
            json_array_append_new(names, record_json_string(panel->x_names[i]));
        json_object_set_new(about, "names", names);
    }
    return about;
}

static void add_figure(struct notebook *notebook, const struct paper_item *item, const char *svg) {
    const struct figure *figure = item->figure;
    add_heading(notebook, item, figure->caption);
    char *panels = mem_string("");
    for (int64_t i = 0; i < figure->n_panels; i++) {
        json_t *about = panel_about(figure->panels[i]);
        char *text = record_json_text(about, 0),
             *longer = mem_format("%s    %s,\n", panels, text); // JSON that is Python too
        json_decref(about);
        free(text);
        free(panels);
        panels = longer;
    }
    char *source = mem_format("draw(\"csv/%s.csv\", [\n%s])", figure->id, panels);
    add_code(notebook, source, "display_data", "image/svg+xml", svg, "<Figure>");
    free(source);
    free(panels);
}

static void add_missing(struct notebook *notebook, const struct paper *paper) {
    char *text = mem_string("## What is missing\n");
    for (int64_t i = 0; i < paper->n; i++) {
        const struct paper_item *item = &paper->items[i];
        if (!item->missing) continue;
        char *longer = mem_format("%s\n* %s, %s: takes runs of `%s`", text, item->place, item->title, item->missing);
        free(text);
        text = longer;
    }
    cell_new(notebook, "markdown", text);
    free(text);
}

char *report_notebook(const struct run_set *set, const struct paper *paper, char *const *svg) {
    struct notebook notebook = {.cells = json_array()};
    char *intro = mem_format("# Tables and figures of DiscQuant\n\nFrom %lld runs of this toolkit, in the layout of "
                             "the paper. Measured on the models of these runs, "
                             "not the paper's. The cells read the CSV files beside this notebook.",
                             (long long)set->n);
    cell_new(&notebook, "markdown", intro);
    add_code(&notebook, helpers, NULL, NULL, NULL, NULL);
    for (int64_t i = 0; i < paper->n; i++) {
        if (paper->items[i].table) add_table(&notebook, &paper->items[i]);
        if (paper->items[i].figure) add_figure(&notebook, &paper->items[i], svg[i]);
    }
    add_missing(&notebook, paper);
    json_t *root = json_pack("{s:i, s:i, s:{s:{s:s, s:s, s:s}, s:{s:s}}, s:o}", "nbformat", 4, "nbformat_minor", 5,
                             "metadata", "kernelspec", "name", "python3", "display_name", "Python 3", "language",
                             "python", "language_info", "name", "python", "cells", notebook.cells);
    char *text = record_json_text(root, 1);
    json_decref(root);
    free(intro);
    return text;
}
