// notebooks-export: tables, figures, intervals, and the program on run folders written by hand.
#include "tests/files.h"

#include "data/json.h"
#include "data/npy.h"
#include "data/record.h"
#include "notebooks-export/method_runs.h"
#include "notebooks-export/paper.h"
#include "notebooks-export/points.h"

#define PROGRAM "notebooks-export/discquant-export"

static void check_failed(enum status status, enum status want, const char *text) {
    assert_int_equal(status, want);
    if (!strstr(status_message(), text)) fail_msg("'%s' does not say '%s'", status_message(), text);
}

// ---- run folders ----

static void put_run_of(const char *folder, const char *name, const char *program, int seed, const char *state,
                       const char *settings, const char *result) {
    char *path = mem_format("%s/%s", folder, name);
    assert_int_equal(mkdir(path, 0700), 0);
    char *about = mem_format("{\"program\": \"%s\", \"command_line\": \"x <y> & z\", \"version\": \"1\", \"seed\": %d, "
                             "\"status\": \"%s\", \"settings\": %s}",
                             program, seed, state, settings);
    files_put(files_path(path, "run.json"), about, strlen(about));
    if (result) files_put(files_path(path, "result.json"), result, strlen(result));
    free(about);
    free(path);
}

static void put_run(const char *folder, const char *name, const char *program, const char *state, const char *settings,
                    const char *result) {
    put_run_of(folder, name, program, 0, state, settings, result);
}

static void put_rounding(const char *folder, const char *name, const char *method, int bits, int seed, double kl,
                         const char *model) {
    char *settings =
        mem_format("{\"method\": \"%s\", \"bits\": %d, \"group_size\": 32, \"seed\": %d, \"model\": \"%s\"}", method,
                   bits, seed, model);
    char *result = mem_format(
        "{\"bits_per_weight\": %g, \"kl\": %.17g, \"kl_rtn\": 0.5, \"perplexity\": 5, \"perplexity_original\": 4, "
        "\"top1_agreement\": 0.75}",
        bits + 0.5, kl);
    put_run_of(folder, name, "discquant", seed, "done", settings, result);
    free(settings);
    free(result);
}

// A setting of a method: `more` of its settings beside those that every run has.
static void put_setting(const char *folder, const char *name, const char *method, int bits, const char *more,
                        const char *kl, double perplexity) {
    char *settings = mem_format("{\"method\": \"%s\", \"bits\": %d, \"model\": \"m\", %s}", method, bits, more);
    char *result = mem_format("{\"bits_per_weight\": %g, \"kl\": %s, \"kl_rtn\": 1, \"perplexity\": %g}", bits + 0.5,
                              kl, perplexity);
    put_run(folder, name, "discquant", "done", settings, result);
    free(settings);
    free(result);
}

static struct run_set *read_set(const char *folder) {
    struct run_set *set = NULL;
    check_ok(run_set_read(&folder, 1, &set));
    return set;
}

// ---- pieces ----

static void tables_escape_what_they_hold(void **state) {
    (void)state;
    struct table *table = table_new("t", "Table", "title");
    table_column(table, "a|b");
    table_column(table, "c,d");
    table_row(table);
    table_text(table, "%s", "<1> & \"2\"");
    table_interval(table, 0.12345678901, 0.01, 3);
    table_row(table);
    table_text(table, "%s", "x");
    char *csv = table_csv(table), *html = table_html(table), *markdown = table_markdown(table);
    assert_string_equal(csv, "a|b,\"c,d\",\"c,d\" ±\n\"<1> & \"\"2\"\"\",0.123456789,0.01\nx,,\n");
    assert_non_null(strstr(html, "<td>&lt;1&gt; &amp; &quot;2&quot;</td><td class=\"number\">0.123 ± 0.010</td>"));
    assert_non_null(strstr(markdown, "| a\\|b | c,d |\n|---|---|\n"));
    free(csv);
    free(html);
    free(markdown);
    table_free(table);
}

static void arrays_come_back_as_they_were_written(void **state) {
    (void)state;
    char *folder = files_folder();
    const float single[] = {1.5f, -2, 3e-3f};
    const double values[] = {1, 2, 3, 4, 5, 0.1};
    const int64_t integers[] = {-7, INT64_C(1) << 40};
    double *back;
    int64_t rows, cols;
    check_ok(npy_write(files_path(folder, "a.npy"), NPY_F32, single, 3, 0));
    check_ok(npy_read(files_path(folder, "a.npy"), &back, &rows, &cols));
    assert_true(rows == 3 && cols == 1 && back[0] == 1.5 && back[1] == -2 && back[2] == (double)3e-3f);
    mem_buffer_free(back);
    check_ok(npy_write(files_path(folder, "a.npy"), NPY_F64, values, 2, 3));
    check_ok(npy_read(files_path(folder, "a.npy"), &back, &rows, &cols));
    assert_true(rows == 2 && cols == 3 && memcmp(back, values, sizeof values) == 0);
    mem_buffer_free(back);
    check_ok(npy_write(files_path(folder, "a.npy"), NPY_I64, integers, 2, 0));
    check_ok(npy_read(files_path(folder, "a.npy"), &back, &rows, &cols));
    assert_true(back[0] == -7 && back[1] == 0x1p40);
    mem_buffer_free(back);
    // Any cut, and a header that promises more than there is.
    size_t n;
    char *bytes = files_bytes(files_path(folder, "a.npy"), &n);
    for (size_t cut = 0; cut < n; cut += 5) {
        files_put(files_path(folder, "b.npy"), bytes, cut);
        check_failed(npy_read(files_path(folder, "b.npy"), &back, &rows, &cols), STATUS_FORMAT, "b.npy");
    }
    memcpy(strstr(bytes + 10, "(2,)"), "(9,)", 4);
    files_put(files_path(folder, "b.npy"), bytes, n);
    check_failed(npy_read(files_path(folder, "b.npy"), &back, &rows, &cols), STATUS_FORMAT, "holds 2 values");
    free(bytes);
    files_remove(folder);
}

static void points_that_are_none_are_named_by_line(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "points.csv");
    static const char good[] = "figure,series,x,value,low,high\nqe,a,8,0.5,,\nqe,a,16,0.25,0.2,0.3\n";
    struct points *points = NULL;
    files_put(path, good, strlen(good));
    check_ok(points_read(path, &points));
    assert_true(points->n == 2 && isnan(points->points[0].low) && points->points[1].high == 0.3);
    points_free(points);
    static const char *const lines[] = {"qe,a,8,0.5,", "qe,a,8,0.5,,,", "qe,a,x,0.5,,", "qe,a,,0.5,,", "qe"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char *bad = mem_format("%s%s\n", good, lines[i]);
        files_put(path, bad, strlen(bad));
        check_failed(points_read(path, &points), STATUS_FORMAT, "line 4");
        free(bad);
    }
    files_put(path, "x\n", 2);
    check_failed(points_read(path, &points), STATUS_FORMAT, "must begin");
    files_remove(folder);
}

// ---- runs ----

static void seeds_become_one_row_and_settings_do_not(void **state) {
    (void)state;
    char *folder = files_folder();
    put_rounding(folder, "a", "discquant", 3, 0, 0.1, "m");
    put_rounding(folder, "b", "discquant", 3, 1, 0.3, "m");
    put_rounding(folder, "c", "rtn", 3, 0, 0.5, "m");
    put_rounding(folder, "d", "discquant", 4, 0, 0.05, "m");
    put_run(folder, "e", "discquant", "running", "{}", NULL);
    struct run_set *set = read_set(folder);
    assert_true(set->n == 4 && set->n_left_out == 1);
    struct method_runs *runs = NULL;
    check_ok(method_runs_new(set, method_is_plain, &runs));
    assert_int_equal(runs->n, 3);
    assert_string_equal(runs->rows[0].label, "rtn"); // worst first within a bit rate
    assert_int_equal(runs->rows[1].n, 2);
    check_near(runs->rows[1].kl.mean, 0.2, 1e-15, 0);
    check_near(runs->rows[1].kl.half, 12.706204736 * 0.1, 1e-9, 0);
    assert_true(runs->rows[2].bits_per_weight == 4.5 && isnan(runs->rows[2].kl.half));
    method_runs_free(runs);
    run_set_free(set);
    files_remove(folder);
}

static void labels_leave_out_what_follows_from_other_settings(void **state) {
    (void)state;
    char *folder = files_folder();
    static const char result[] = "{\"kl\": 0.1, \"kl_rtn\": 1, \"bits_per_weight\": 3}";
    static const char *const settings[] = {
        "\"finish_from\": 77, \"steps\": 256, \"warmup\": 32", "\"finish_from\": 116, \"steps\": 384, \"warmup\": 48",
        "\"finish\": \"nearest\", \"finish_from\": 384, \"steps\": 384, \"warmup\": 48"};
    static const char *const labels[] = {"discquant (steps 256)", "discquant (steps 384)",
                                         "discquant (steps 384, finish nearest)"};
    for (int i = 0; i < 3; i++) {
        char *text = mem_format("{\"method\": \"discquant\", \"bits\": 3, \"model\": \"m\", %s}", settings[i]);
        put_run(folder, (const char *[]){"a", "b", "c"}[i], "discquant", "done", text, result);
        free(text);
    }
    struct run_set *set = read_set(folder);
    struct method_runs *runs = NULL;
    check_ok(method_runs_new(set, method_is_plain, &runs));
    assert_int_equal(runs->n, 3);
    for (int i = 0; i < 3; i++)
        assert_string_equal(runs->rows[i].label, labels[i]); // by path, as their figures are equal
    method_runs_free(runs);
    run_set_free(set);
    files_remove(folder);
}

// A table of an ablation shows its own runs and those that differ in it alone.
static void ablations_stand_beside_their_equals_only(void **state) {
    (void)state;
    char *folder = files_folder();
    static const char result[] = "{\"kl\": 0.1, \"kl_rtn\": 1, \"bits_per_weight\": 3, \"perplexity\": 5}";
    static const char *const settings[] = {"\"steps\": 256, \"objective\": \"layer\"", "\"steps\": 256",
                                           "\"steps\": 384"};
    for (int i = 0; i < 3; i++) {
        char *text = mem_format("{\"method\": \"discquant\", \"bits\": 3, \"model\": \"m\", %s}", settings[i]);
        put_run(folder, (const char *[]){"a", "b", "c"}[i], "discquant", "done", text, result);
        free(text);
    }
    struct run_set *set = read_set(folder);
    struct table *table = NULL;
    check_ok(table_objectives(set, &table));
    assert_int_equal(table->n_rows, 3); // the original, layer and KL; not the one of 384 steps
    table_free(table);
    table = NULL;
    check_ok(table_directions(set, &table));
    assert_null(table);
    run_set_free(set);
    files_remove(folder);
}

static void a_plan_stands_for_its_runs_and_a_shared_run_counts_once(void **state) {
    (void)state;
    char *folder = files_folder();
    put_run(folder, "plan", "discquant-bench ablate", "failed", "{}", NULL);
    char *runs_folder = mem_format("%s/plan/runs", folder);
    assert_int_equal(mkdir(runs_folder, 0700), 0);
    put_rounding(runs_folder, "a", "discquant", 3, 0, 0.1, "m");
    put_rounding(runs_folder, "b", "discquant", 3, 1, 0.3, "m");
    put_rounding(folder, "again", "discquant", 3, 1, 0.3, "m"); // another plan's
    struct run_set *set = read_set(folder);
    assert_true(set->n == 3 && set->n_left_out == 0);
    struct method_runs *runs = NULL;
    check_ok(method_runs_new(set, method_is_plain, &runs));
    assert_true(runs->n == 1 && runs->rows[0].n == 2);
    check_near(runs->rows[0].kl.mean, 0.2, 1e-15, 0);
    check_near(runs->rows[0].ratio.mean, 0.4, 1e-15, 0);
    method_runs_free(runs);
    run_set_free(set);
    free(runs_folder);
    files_remove(folder);
}

static char *put_model(const char *run, const char *name, const char *bytes) {
    char *path = mem_format("%s/%s", run, name);
    struct record *record = record_new();
    assert_int_equal(mkdir(path, 0700), 0);
    files_put(files_path(path, "config.json"), bytes, strlen(bytes));
    check_ok(record_digest(record, "digest", path));
    char *digest = mem_string(json_string_value(json_object_get(record_json(record), "digest")));
    record_free(record);
    free(path);
    return digest;
}

static void an_adapter_has_the_scores_of_the_model_with_it(void **state) {
    (void)state;
    char *folder = files_folder();
    put_run(folder, "a", "discquant", "done", "{\"method\": \"discquant\", \"model\": \"m\", \"lora_rank\": 8}",
            "{\"kl\": 0.5, \"kl_lora\": 0.25, \"kl_rtn\": 1, \"perplexity\": 9, \"perplexity_lora\": 8}");
    char *run = mem_string(files_path(folder, "a"));
    char *model = put_model(run, "model", "rounded"), *adapter = put_model(run, "adapter", "factors");
    for (int k = 0; k < 2; k++) {
        char *text = k ? mem_format(", \"adapter\": \"%s\"", adapter) : mem_string("");
        char *settings = mem_format("{\"task\": \"t\", \"model\": \"%s\"%s}", model, text);
        put_run(folder, k ? "with" : "without", "discquant-bench eval", "done", settings,
                k ? "{\"acc\": 0.75}" : "{\"acc\": 0.5}");
        free(settings);
        free(text);
    }
    for (int merged = 0; merged < 2; merged++) {
        if (merged) {
            char *digest = put_model(run, "merged", "product");
            char *settings = mem_format("{\"task\": \"t\", \"model\": \"%s\"}", digest);
            put_run(folder, "whole", "discquant-bench eval", "done", settings, "{\"acc\": 0.875}");
            free(settings);
            free(digest);
        }
        struct run_set *set = read_set(folder);
        struct method_runs *runs = NULL;
        check_ok(method_runs_new(set, method_is_adapter_or_base, &runs));
        assert_true(runs->n == 1 && runs->n_tasks == 1);
        assert_true(runs->rows[0].scores[0].mean == (merged ? 0.875 : 0.75));
        assert_true(runs->rows[0].kl.mean == 0.25 && runs->rows[0].perplexity.mean == 8);
        method_runs_free(runs);
        run_set_free(set);
    }
    free(model);
    free(adapter);
    free(run);
    files_remove(folder);
}

static void runs_of_two_models_are_not_mixed(void **state) {
    (void)state;
    char *folder = files_folder();
    put_rounding(folder, "a", "discquant", 3, 0, 0.1, "one");
    put_rounding(folder, "b", "discquant", 4, 0, 0.1, "two");
    struct run_set *set = read_set(folder);
    struct paper *paper = NULL;
    check_failed(paper_new(set, &paper), STATUS_INVALID, "different models");
    run_set_free(set);
    files_remove(folder);
}

// ---- figures ----

struct line {
    const char *name;
    int n;
    double x[4], y[4];
};

// The panel's series, in whatever order.
static void check_lines(const struct panel *panel, const struct line *lines, int n) {
    assert_int_equal(panel->n_series, n);
    for (int i = 0; i < n; i++) {
        const struct series *series = panel->series;
        while (strcmp(series->name, lines[i].name) != 0)
            if (++series == panel->series + n) fail_msg("no %s", lines[i].name);
        assert_int_equal(series->n, lines[i].n);
        for (int k = 0; k < lines[i].n; k++) {
            const double *point = &series->rows[4 * k];
            if (point[0] != lines[i].x[k] || point[1] != lines[i].y[k])
                fail_msg("%s, point %d: (%g, %g), want (%g, %g)", series->name, k, point[0], point[1], lines[i].x[k],
                         lines[i].y[k]);
        }
    }
}

// Figures 4 and 5, and 6 and 7. By path, learning rate and perplexity the setting with the least KL is neither first nor
// last; one whose KL is no number is never the best.
static void figures_over_bits_show_the_setting_with_the_least_kl(void **state) {
    (void)state;
    static figure_build *const builds[] = {figure_methods, figure_incoherence};
    static const struct line kl[] = {{"rtn", 2, {3.5, 4.5}, {0.5, 0.25}}, {"discquant", 2, {3.5, 4.5}, {0.1, 0.02}}};
    static const struct line perplexity[] = {{"rtn", 2, {3.5, 4.5}, {9, 8}}, {"discquant", 2, {3.5, 4.5}, {6, 4}}};
    for (int i = 0; i < 2; i++) {
        const char *incoherence = i ? ", \"incoherence\": \"hadamard\"" : "";
        static const struct {
            const char *name, *method;
            int bits;
            double lr;
            const char *kl;
            double perplexity;
        } runs[] = {{"a", "discquant", 3, 0.4, "null", 1}, {"b", "discquant", 4, 0.1, "0.05", 3},
                    {"c", "discquant", 3, 0.1, "0.3", 5},  {"d", "discquant", 3, 0.2, "0.1", 6},
                    {"e", "discquant", 3, 0.3, "0.2", 7},  {"f", "rtn", 3, 0, "0.5", 9},
                    {"g", "discquant", 4, 0.2, "0.02", 4}, {"h", "rtn", 4, 0, "0.25", 8},
                    {"i", "discquant", 4, 0.3, "0.04", 5}, {"j", "discquant", 4, 0.4, "null", 9}};
        char *folder = files_folder();
        for (size_t k = 0; k < sizeof runs / sizeof *runs; k++) {
            char *more = mem_format("\"lr\": %g%s", runs[k].lr, incoherence);
            put_setting(folder, runs[k].name, runs[k].method, runs[k].bits, more, runs[k].kl, runs[k].perplexity);
            free(more);
        }
        struct run_set *set = read_set(folder);
        struct figure *figure = NULL;
        check_ok(builds[i](set, &figure));
        assert_non_null(figure);
        assert_int_equal(figure->n_panels, 2);
        check_lines(figure->panels[0], kl, 2);
        check_lines(figure->panels[1], perplexity, 2);
        figure_free(figure);
        run_set_free(set);
        files_remove(folder);
    }
}

// Not by path, which is that of the reading, nor by KL, which is that of the tables. Of two settings at a share the one with the lower KL
// stands, and each bit rate has panels of its own.
static void lines_of_figure_8_go_by_the_share_of_the_second_corpus(void **state) {
    (void)state;
    static const struct {
        const char *name, *method, *share, *kl;
        double perplexity, lr;
        int bits;
    } runs[] = {{"a", "gptq", "0.5", "0.6", 16, 1, 3},       {"b", "discquant", "0.5", "0.1", 11, 1, 3},
                {"c", "discquant", "1", "0.3", 13, 1, 3},    {"d", "gptq", "0", "0.5", 15, 1, 3},
                {"e", "discquant", "0.0", "0.2", 12, 1, 3},  {"f", "gptq", "0.125", "0.7", 17, 1, 3},
                {"g", "discquant", "0.25", "0.4", 14, 2, 3}, {"h", "gptq", "1.0", "0.8", 18, 1, 3},
                {"i", "discquant", "0.25", "0.9", 10, 1, 3}, {"j", "discquant", "0.25", "0.5", 19, 3, 3},
                {"k", "gptq", "0.5", "0.04", 6, 1, 4},       {"l", "gptq", "0.25", "0.05", 5, 1, 4}};
    static const struct line kl[] = {{"discquant", 4, {0, 0.25, 0.5, 1}, {0.2, 0.4, 0.1, 0.3}},
                                     {"gptq", 4, {0, 0.125, 0.5, 1}, {0.5, 0.7, 0.6, 0.8}}};
    static const struct line perplexity[] = {{"discquant", 4, {0, 0.25, 0.5, 1}, {12, 14, 11, 13}},
                                             {"gptq", 4, {0, 0.125, 0.5, 1}, {15, 17, 16, 18}}};
    static const struct line at_4[] = {{"gptq", 2, {0.25, 0.5}, {0.05, 0.04}}};
    for (int several = 0; several < 2; several++) {
        char *folder = files_folder();
        for (size_t k = 0; k < sizeof runs / sizeof *runs; k++) {
            if (runs[k].bits > 3 + several) continue;
            char *more = mem_format("\"second_share\": %s, \"lr\": %g", runs[k].share, runs[k].lr);
            put_setting(folder, runs[k].name, runs[k].method, runs[k].bits, more, runs[k].kl, runs[k].perplexity);
            free(more);
        }
        struct run_set *set = read_set(folder);
        struct figure *figure = NULL;
        check_ok(figure_mix(set, &figure));
        assert_non_null(figure);
        assert_int_equal(figure->n_panels, several ? 4 : 2);
        assert_null(strstr(figure->caption, "no room"));
        check_lines(figure->panels[0], kl, 2);
        check_lines(figure->panels[1], perplexity, 2);
        assert_string_equal(figure->panels[0]->title, several ? "3.5 bits per weight" : "");
        if (several) check_lines(figure->panels[2], at_4, 1);
        figure_free(figure);
        run_set_free(set);
        files_remove(folder);
    }
}

// Runs that do not say their bits per weight have panels too; what has no room is counted.
static void figure_8_of_many_bit_rates_says_what_it_leaves_out(void **state) {
    (void)state;
    static const char settings[] = "{\"method\": \"gptq\", \"bits\": 9, \"model\": \"m\", \"second_share\": 0.5}";
    char *folder = files_folder();
    put_run(folder, "z", "discquant", "done", settings, "{\"kl\": 0.5, \"kl_rtn\": 1, \"perplexity\": 2}");
    for (int n = 0; n <= 4; n++) {
        char name[2] = {(char)('a' + n), 0};
        struct figure *figure = NULL;
        if (n) put_setting(folder, name, "gptq", 2 + n, "\"second_share\": 0.5", "0.1", 3);
        struct run_set *set = read_set(folder);
        check_ok(figure_mix(set, &figure));
        assert_non_null(figure);
        assert_int_equal(figure->n_panels, n < 4 ? 2 + 2 * n : MOST_PANELS);
        assert_true(!strstr(figure->caption, "no room: 2") == (n < 4));
        figure_free(figure);
        run_set_free(set);
    }
    files_remove(folder);
}

// ---- the program ----

static void check_refused(const char *const *args, int code, const char *text) {
    process_check_error(process_run(PROGRAM, NULL, args), code, text);
}

static void bad_input_gets_one_line(void **state) {
    (void)state;
    char *folder = files_folder(), *out = mem_format("%s/out", folder);
    assert_int_equal(mkdir(files_path(folder, "empty"), 0700), 0);
    put_run(folder, "bad", "discquant", "done", "{}", "[1]");
    put_run(folder, "cut", "discquant", "done", "{}", "{\"kl\": ");
    check_refused((const char *[]){files_path(folder, "empty"), "--out", out, "--format=csv", NULL}, 1,
                  "holds no finished run");
    check_refused((const char *[]){files_path(folder, "bad"), "--out", out, "--format=csv", NULL}, 1,
                  "must hold an object");
    check_refused((const char *[]){files_path(folder, "cut"), "--out", out, "--format=csv", NULL}, 1, "result.json");
    check_refused((const char *[]){"/nowhere/at/all", "--out", out, "--format=csv", NULL}, 1, "no such folder");
    check_refused((const char *[]){"--out", out, NULL}, 2, "no run is given");
    check_refused((const char *[]){files_path(folder, "empty"), "--out", out, "--format=png", NULL}, 2, "--format");
    assert_int_not_equal(access(out, F_OK), 0);
    free(out);
    files_remove(folder);
}

// What nbformat 4.5 asks of a notebook (its schema's required keys).
static void check_notebook(const char *path) {
    json_t *root = NULL, *cells = NULL;
    int64_t major = 0, minor = 0;
    check_ok(json_read_file(path, &root));
    check_ok(json_get_integer(root, path, "nbformat", &major));
    check_ok(json_get_integer(root, path, "nbformat_minor", &minor));
    check_ok(json_get_array(root, path, "cells", &cells));
    assert_true(major == 4 && minor == 5 && json_is_object(json_object_get(root, "metadata")));
    int images = 0;
    for (size_t i = 0; i < json_array_size(cells); i++) {
        const json_t *cell = json_array_get(cells, i);
        const char *type, *id;
        check_ok(json_get_string(cell, path, "cell_type", &type));
        check_ok(json_get_string(cell, path, "id", &id));
        assert_true(json_is_object(json_object_get(cell, "metadata")) &&
                    json_is_array(json_object_get(cell, "source")));
        if (strcmp(type, "code") != 0) continue;
        assert_true(json_is_integer(json_object_get(cell, "execution_count")));
        json_t *outputs;
        check_ok(json_get_array((json_t *)cell, path, "outputs", &outputs));
        for (size_t k = 0; k < json_array_size(outputs); k++)
            images += json_object_get(json_object_get(json_array_get(outputs, k), "data"), "image/svg+xml") != NULL;
    }
    assert_int_equal(images, 1);
    json_decref(root);
}

static void a_report_holds_what_the_runs_give_and_names_the_rest(void **state) {
    (void)state;
    if (system("gnuplot --version >/dev/null 2>&1") != 0) skip();
    char *folder = files_folder();
    put_rounding(folder, "a", "discquant", 3, 0, 0.1, "m");
    put_rounding(folder, "b", "rtn", 4, 0, 0.05, "m");
    char *out = mem_format("%s/out", folder);
    struct process process = process_run(
        PROGRAM, NULL, (const char *[]){files_path(folder, "a"), files_path(folder, "b"), "--out", out, NULL});
    if (process.code != 0) fail_msg("exit status %d: %s", process.code, process.err);
    process_free(&process);
    char *csv = files_bytes(files_path(out, "csv/table2.csv"), NULL);
    assert_non_null(csv);
    assert_non_null(strstr(csv, "\n3.5,3,32,discquant,0.1,0.2,5,0.75,1\n"));
    char *html = files_bytes(files_path(out, "report.html"), NULL),
         *svg = files_bytes(files_path(out, "svg/figure4.svg"), NULL);
    assert_non_null(html);
    assert_non_null(svg);
    assert_non_null(strstr(svg, "<svg"));
    assert_null(strstr(html, "http"));                                 // nothing from the network
    assert_non_null(strstr(html, "x &lt;y&gt; &amp; z"));              // command lines of runs, escaped
    assert_non_null(strstr(html, "discquant-walk validate theorem2")); // what is missing
    check_notebook(files_path(out, "report.ipynb"));
    // A report is replaced with --force only, somebody's other folder never.
    check_refused((const char *[]){files_path(folder, "a"), "--out", out, NULL}, 1, "out");
    check_refused((const char *[]){files_path(folder, "a"), "--out", files_path(folder, "b"), "--force", NULL}, 1, "b");
    free(csv);
    free(html);
    free(svg);
    free(out);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_escape_what_they_hold),
        cmocka_unit_test(arrays_come_back_as_they_were_written),
        cmocka_unit_test(points_that_are_none_are_named_by_line),
        cmocka_unit_test(seeds_become_one_row_and_settings_do_not),
        cmocka_unit_test(labels_leave_out_what_follows_from_other_settings),
        cmocka_unit_test(ablations_stand_beside_their_equals_only),
        cmocka_unit_test(a_plan_stands_for_its_runs_and_a_shared_run_counts_once),
        cmocka_unit_test(an_adapter_has_the_scores_of_the_model_with_it),
        cmocka_unit_test(runs_of_two_models_are_not_mixed),
        cmocka_unit_test(figures_over_bits_show_the_setting_with_the_least_kl),
        cmocka_unit_test(lines_of_figure_8_go_by_the_share_of_the_second_corpus),
        cmocka_unit_test(figure_8_of_many_bit_rates_says_what_it_leaves_out),
        cmocka_unit_test(bad_input_gets_one_line),
        cmocka_unit_test(a_report_holds_what_the_runs_give_and_names_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
