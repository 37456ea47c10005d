#include "notebooks-export/markup.h"
#include "notebooks-export/report.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char style[] =
    "body{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;max-width:64rem;margin:2rem auto;padding:0 1rem}"
    "h1{font-size:1.7rem}h2{font-size:1.25rem;margin-top:2.5rem;border-bottom:1px solid #ccc}"
    "table{border-collapse:collapse;font-size:.9rem;display:block;overflow-x:auto}"
    "th,td{padding:.25rem .7rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}"
    "th{border-bottom:2px solid #888}td.number{text-align:right;font-variant-numeric:tabular-nums}"
    "img{max-width:100%;height:auto}p.note,figcaption{color:#444;font-size:.9rem;max-width:48rem}"
    "figure{margin:1rem 0}code{font-size:.85em;background:#f4f4f4;padding:0 .2em}a{color:#0072B2}";

static void put_base64(FILE *to, const char *text) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *bytes = (const unsigned char *)text;
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t three =
            (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
        fputc(digits[three >> 18], to);
        fputc(digits[three >> 12 & 63], to);
        fputc(left > 1 ? digits[three >> 6 & 63] : '=', to);
        fputc(left > 2 ? digits[three & 63] : '=', to);
    }
}

static void put_element(FILE *to, const char *open, const char *text, const char *close) {
    fputs(open, to);
    html_put(to, text);
    fputs(close, to);
}

static void put_item(FILE *to, const struct paper_item *item, const char *svg) {
    const char *id = item->table ? item->table->id : item->figure->id;
    fprintf(to, "<section id=\"%s\">\n<h2>", id);
    html_put(to, item->place);
    put_element(to, ". ", item->title, "</h2>\n");
    if (item->table) {
        char *table = table_html(item->table);
        fputs(table, to);
        free(table);
        for (int64_t i = 0; i < item->table->n_notes; i++)
            put_element(to, "<p class=\"note\">", item->table->notes[i], "</p>\n");
    } else {
        fputs("<figure>\n<img alt=\"", to);
        html_put(to, item->figure->title);
        fprintf(to, "\" width=\"%lld", (long long)figure_width(item->figure));
        fputs("\" src=\"data:image/svg+xml;base64,", to);
        put_base64(to, svg);
        put_element(to, "\">\n<figcaption>", item->figure->caption, "</figcaption>\n</figure>\n");
    }
    fputs("</section>\n", to);
}

static void put_contents(FILE *to, const struct paper *paper) {
    fputs("<ul>\n", to);
    for (int64_t i = 0; i < paper->n; i++) {
        const struct paper_item *item = &paper->items[i];
        if (item->missing) continue;
        fprintf(to, "<li><a href=\"#%s\">", item->table ? item->table->id : item->figure->id);
        html_put(to, item->place);
        put_element(to, "</a>: ", item->title, "</li>\n");
    }
    fputs("</ul>\n", to);
}

static void put_missing(FILE *to, const struct run_set *set, const struct paper *paper) {
    fputs("<section id=\"missing\">\n<h2>What is missing</h2>\n<table>\n<thead><tr><th></th><th></th><th>it takes runs "
          "of</th></tr></thead>\n",
          to);
    for (int64_t i = 0; i < paper->n; i++) {
        const struct paper_item *item = &paper->items[i];
        if (!item->missing) continue;
        put_element(to, "<tr><td>", item->place, "</td>");
        put_element(to, "<td>", item->title, "</td>");
        put_element(to, "<td><code>", item->missing, "</code></td></tr>\n");
    }
    fputs("</table>\n", to);
    for (int64_t i = 0; i < set->n_left_out; i++) put_element(to, "<p>Left out: ", set->left_out[i], "</p>\n");
    fputs("</section>\n", to);
}

static void put_runs(FILE *to, const struct run_set *set) {
    fputs("<section "
          "id=\"runs\">\n<h2>Runs</h2>\n<table>\n<thead><tr><th>run</th><th>version</th><th>ended</th><th>command</"
          "th></tr></thead>\n",
          to);
    for (int64_t i = 0; i < set->n; i++) {
        const struct run_info *run = &set->runs[i];
        static const char *const keys[] = {"version", "end", "command_line"};
        put_element(to, "<tr><td>", run->name, "</td>");
        for (size_t k = 0; k < 3; k++) {
            const char *text = json_string_value(json_object_get(run->about, keys[k]));
            put_element(to, k == 2 ? "<td><code>" : "<td>", text ? text : "", k == 2 ? "</code></td></tr>\n" : "</td>");
        }
    }
    fputs("</table>\n</section>\n", to);
}

char *report_html(const struct run_set *set, const struct paper *paper, char *const *svg) {
    char *text = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&text, &n);
    REQUIRE(to, "out of memory");
    fprintf(to,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
            "content=\"width=device-width\">\n"
            "<title>discquant: tables and figures</title>\n<style>%s</style>\n</head>\n<body>\n<h1>Tables and figures "
            "of DiscQuant</h1>\n"
            "<p>From %lld runs of this toolkit, in the layout of the paper <em>DiscQuant: A Quantization Method for "
            "Neural Networks Inspired by "
            "Discrepancy Theory</em> (COLT 2025). Measured on the models of these runs, not the paper's.</p>\n",
            style, (long long)set->n);
    put_contents(to, paper);
    for (int64_t i = 0; i < paper->n; i++)
        if (!paper->items[i].missing) put_item(to, &paper->items[i], svg[i]);
    put_missing(to, set, paper);
    put_runs(to, set);
    fputs("</body>\n</html>\n", to);
    fclose(to);
    return text;
}
