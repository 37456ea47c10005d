// `discquant-bench ablate`: tables against the result files they are made from, killed and changed plans, rows that fail, plans that
// are wrong. Real runs of a few steps on the bundled model; texts are made by the plans themselves.
#include "tests/files.h"

#include "data/json.h"

#include <dirent.h>
#include <gsl/gsl_cdf.h>

#define PROGRAM "bench/discquant-bench"

static char story_model[4096];

static struct process ablate(const char *folder, const char *plan, const char *out, const char *more) {
    const char *plan_path = files_path(folder, plan), *out_path = files_path(folder, out);
    return process_call(PROGRAM, "ablate", plan_path, "--out", out_path, "--threads", "1", "--quiet", more);
}

static void ablate_well(const char *folder, const char *plan, const char *out, const char *more) {
    struct process process = ablate(folder, plan, out, more);
    if (process.code != 0) fail_msg("exit status %d: %s", process.code, process.err);
    process_free(&process);
}

// A plan of small runs: `rest` holds its axes and whatever follows.
static void put_plan(const char *folder, const char *name, const char *steps, const char *rest) {
    char *text =
        mem_format("{\"title\": \"A try\",\n"
                   "\"texts\": {\"c.jsonl\": {\"split\": \"calibration\", \"documents\": 60},\n"
                   "  \"v.jsonl\": {\"split\": \"test\", \"documents\": 20},\n"
                   "  \"q.jsonl\": {\"split\": \"test\", \"documents\": 12, \"task\": \"multiple-choice\"}},\n"
                   "\"options\": {\"model\": \"%s\", \"calibration\": \"{texts}/c.jsonl\",\n"
                   "  \"validation\": \"{texts}/v.jsonl\", \"seq-len\": 32, \"batch-size\": 2, \"steps\": %s,\n"
                   "  \"validation-samples\": 4, \"report-every\": 0, \"checkpoint-every\": 2, \"bits\": 3},\n%s}",
                   check_source("data/story-model", story_model, sizeof story_model), steps, rest);
    files_put(files_path(folder, name), text, strlen(text));
    free(text);
}

static const char QUESTIONS[] =
    "\"evaluations\": {\"choice\": {\"task\": \"multiple-choice\", \"data\": \"{texts}/q.jsonl\"}}";

// ---- an independent reader of CSV ----

enum { FIELDS_MAX = 200, LINES_MAX = 40 };

struct csv {
    char *bytes, *fields[LINES_MAX][FIELDS_MAX];
    int n_lines, n_fields;
};

static struct csv csv_open(const char *path) {
    struct csv csv = {.bytes = files_bytes(path, NULL)};
    assert_non_null(csv.bytes);
    char *from = csv.bytes, *to = csv.bytes;
    while (*from) {
        int n = 0;
        for (bool more = true; more;) {
            csv.fields[csv.n_lines][n++] = to;
            bool quoted = *from == '"';
            from += quoted;
            while (quoted ? *from != '"' || from[1] == '"' : *from != ',' && *from != '\n') {
                from += quoted && *from == '"';
                *to++ = *from++;
            }
            from += quoted;
            more = *from++ == ',';
            *to++ = 0;
        }
        if (csv.n_lines) assert_int_equal(n, csv.n_fields);
        csv.n_fields = n;
        csv.n_lines++;
    }
    return csv;
}

static int csv_column(const struct csv *csv, const char *name) {
    int column = -1;
    for (int i = 0; i < csv->n_fields; i++)
        if (strcmp(csv->fields[0][i], name) == 0) {
            assert_int_equal(column, -1); // names are unique
            column = i;
        }
    return column;
}

static const char *csv_get(const struct csv *csv, const char *row, const char *column) {
    int at = csv_column(csv, column);
    for (int i = 1; i < csv->n_lines; i++)
        if (strcmp(csv->fields[i][0], row) == 0) return at < 0 ? NULL : csv->fields[i][at];
    return NULL;
}

static json_t *json_of(const char *folder, const char *run, const char *file) {
    char *path = mem_format("%s/runs/%s/%s", folder, run, file);
    json_t *root = NULL;
    check_ok(json_read_file(path, &root));
    free(path);
    return root;
}

static double result_of(const char *folder, const char *run, const char *key) {
    json_t *result = json_of(folder, run, "result.json");
    double value = json_number_value(json_object_get(result, key));
    json_decref(result);
    return value;
}

// Every key of a result file stands in the table with the same value, `prefix` before its name.
static void check_result(const struct csv *csv, const char *out, const char *row, const char *run, const char *prefix) {
    json_t *result = json_of(out, run, "result.json"), *value;
    const char *key;
    assert_true(json_object_size(result) > 4);
    json_object_foreach(result, key, value) {
        bool axis = !*prefix && (!strcmp(key, "method") || !strcmp(key, "seed"));
        char *name = mem_format("%s%s%s", axis ? "result." : "", prefix, key);
        const char *field = csv_get(csv, row, name);
        if (!field) fail_msg("no %s of %s", name, row);
        if (json_is_string(value))
            assert_string_equal(field, json_string_value(value));
        else if (json_is_number(value))
            assert_true(strtod(field, NULL) == json_number_value(value));
        else
            assert_string_equal(field, "");
        free(name);
    }
    json_decref(result);
}

static void the_table_holds_what_the_result_files_say(void **state) {
    (void)state;
    char *folder = files_folder(), axes[600];
    snprintf(axes, sizeof axes,
             "\"axes\": {\"method\": [\"rtn\", \"discquant\"], \"seed\": [0, 5]},\n"
             "\"exclude\": [{\"method\": \"rtn\", \"seed\": 5}],\n"
             "\"rows\": [{\"name\": \"original\", \"options\": {\"command\": \"none\"}}], %s",
             QUESTIONS);
    put_plan(folder, "plan.json", "3", axes);
    ablate_well(folder, "plan.json", "out", NULL);
    char *out = mem_string(files_path(folder, "out"));
    struct csv csv = csv_open(files_path(out, "table.csv"));
    assert_int_equal(csv.n_lines, 5);
    static const char *const rows[] = {"rtn-0", "discquant-0", "discquant-5"};
    for (int i = 0; i < 3; i++) {
        char *evaluation = mem_format("%s.choice", rows[i]);
        assert_string_equal(csv_get(&csv, rows[i], "status"), "done");
        assert_string_equal(csv_get(&csv, rows[i], "method"), i ? "discquant" : "rtn");
        assert_string_equal(csv_get(&csv, rows[i], "seed"), i == 2 ? "5" : "0");
        check_result(&csv, out, rows[i], rows[i], "");
        check_result(&csv, out, rows[i], evaluation, "choice.");
        free(evaluation);
    }
    check_result(&csv, out, "original", "original.choice", "choice.");
    assert_string_equal(csv_get(&csv, "original", "kl"), "");
    assert_string_equal(csv_get(&csv, "original", "method"), "");
    free(csv.bytes);
    free(out);
    files_remove(folder);
}

// The program called by hand with the options of a row leaves the same model: the plan's options arrive, all of them.
static void a_row_is_what_the_program_gives(void **state) {
    (void)state;
    char *folder = files_folder();
    put_plan(folder, "plan.json", "3",
             "\"axes\": {\"seed\": [7], \"g\": {\"small\": {\"group-size\": 32, \"lambda\": 50.5}}}");
    ablate_well(folder, "plan.json", "out", NULL);
    char *out = mem_string(files_path(folder, "out")), *text = mem_format("%s/texts/c.jsonl", out),
         *valid = mem_format("%s/texts/v.jsonl", out);
    struct process process = process_call(
        "discquant/discquant", "--model", story_model, "--calibration", text, "--validation", valid, "--seq-len", "32",
        "--batch-size", "2", "--steps", "3", "--validation-samples", "4", "--report-every", "0", "--bits", "3",
        "--seed", "7", "--group-size", "32", "--lambda", "50.5", "--quiet", "--out", files_path(folder, "hand"));
    if (process.code != 0) fail_msg("%s", process.err);
    process_free(&process);
    size_t n_a, n_b;
    char *a = files_bytes(files_path(out, "runs/7-small/model/model.safetensors"), &n_a),
         *b = files_bytes(files_path(folder, "hand/model/model.safetensors"), &n_b);
    assert_non_null(a);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, n_a);
    free(a);
    free(b);
    free(text);
    free(valid);
    free(out);
    files_remove(folder);
}

// Mean and interval of the summary, recomputed from the result files; the quantile from GSL, and as textbooks print it.
static void the_summary_gives_means_and_students_intervals(void **state) {
    (void)state;
    static const double textbook[] = {0, 0, 12.706, 4.303}; // two-sided 95 %, n - 1 degrees of freedom
    static const char *const axes[] = {
        "", "", "\"axes\": {\"method\": [\"discquant\"], \"seed\": [0, 1]}, \"columns\": [\"kl\", \"kl/kl_rtn\"]",
        "\"axes\": {\"method\": [\"discquant\"], \"seed\": [0, 1, 2]}, \"columns\": [\"kl\", \"kl/kl_rtn\"]"};
    char *folder = files_folder();
    for (int n = 2; n <= 3; n++) {
        put_plan(folder, "plan.json", "3", axes[n]);
        ablate_well(folder, "plan.json", "out", NULL);
        double mean[2] = {0}, half[2] = {0}, values[2][3];
        for (int i = 0; i < n; i++) {
            char *run = mem_format("discquant-%d", i);
            values[0][i] = result_of(files_path(folder, "out"), run, "kl");
            values[1][i] = values[0][i] / result_of(files_path(folder, "out"), run, "kl_rtn");
            free(run);
        }
        double t = gsl_cdf_tdist_Pinv(0.975, n - 1);
        check_near(t, textbook[n], 0, 5e-4);
        for (int k = 0; k < 2; k++) {
            for (int i = 0; i < n; i++) mean[k] += values[k][i] / n;
            for (int i = 0; i < n; i++) half[k] += (values[k][i] - mean[k]) * (values[k][i] - mean[k]);
            half[k] = t * sqrt(half[k] / (n - 1) / n);
            assert_true(half[k] > 0); // the seeds differ
        }
        char *summary = files_bytes(files_path(folder, "out/summary.md"), NULL),
             *line = strstr(summary, "| discquant |");
        assert_non_null(line);
        double got[4];
        int count = 0;
        assert_int_equal(
            sscanf(line, "| discquant | %d | %lf ± %lf | %lf ± %lf |", &count, &got[0], &got[1], &got[2], &got[3]), 5);
        assert_int_equal(count, n);
        for (int k = 0; k < 2; k++) {
            check_near(got[2 * k + 1], half[k], 0.051, 0); // two digits are printed
            check_near(got[2 * k], mean[k], 0, 0.051 * half[k]);
        }
        free(summary);
    }
    files_remove(folder);
}

// Rows that run nothing: the tables of the plan alone.
static void rows_with_names_have_them_where_a_label_is_missing(void **state) {
    (void)state;
    char *folder = files_folder();
    put_plan(folder, "plan.json", "2",
             "\"axes\": {\"w\": {\"3\": {\"command\": \"none\"}}, \"seed\": [0, 1], \"m\": {\"A\": {}, \"B\": {}}},\n"
             "\"rows\": [{\"name\": \"first\", \"axes\": {\"m\": {\"A\": {\"command\": \"none\"}}}},\n"
             "  {\"name\": \"second\", \"axes\": {\"w\": {\"4\": {\"command\": \"none\"}}, \"seed\": [0, 1]}},\n"
             "  {\"name\": \"none\", \"options\": {\"command\": \"none\"}},\n"
             "  {\"name\": \"all\", \"axes\": {\"m\": {\"B\": {}}, \"w\": {\"3\": {\"command\": \"none\"}}}}],\n"
             "\"columns\": [\"kl\"]");
    ablate_well(folder, "plan.json", "out", NULL);
    files_check_text(files_path(folder, "out/summary.md"),
                     "# A try\n\n| w | m | n | kl |\n|---|---|---|---|\n| 3 | A | 2 | – |\n| 3 | B | 2 | – |\n"
                     "| first | A | 1 | – |\n| 4 | second | 2 | – |\n| none |  | 1 | – |\n| 3, all | B | 1 | – |\n"
                     "\nMean ± half the 95 % interval (Student's t) over: seed.\n");
    // no axis is shown: the name has a column
    put_plan(folder, "plan.json", "2",
             "\"axes\": {\"seed\": {\"0\": {\"command\": \"none\"}, \"1\": {\"command\": \"none\"}}},\n"
             "\"rows\": [{\"name\": \"original\", \"options\": {\"command\": \"none\"}}], \"columns\": [\"kl\"]");
    ablate_well(folder, "plan.json", "out", NULL);
    files_check_text(files_path(folder, "out/summary.md"),
                     "# A try\n\n| row | n | kl |\n|---|---|---|\n|  | 2 | – |\n| original | 1 | – |\n"
                     "\nMean ± half the 95 % interval (Student's t) over: seed.\n");
    files_remove(folder);
}

// ---- started again ----

// A table without what a clock or the machine's memory decides.
static char *table_of(const char *out) {
    static const char *const measured[] = {"seconds",       "tokens_per_second", "peak_memory_bytes",
                                           "planned_bytes", "choice.seconds",    "choice.items_per_second"};
    struct csv csv = csv_open(files_path(out, "table.csv"));
    char *text = mem_string("");
    for (int i = 0; i < csv.n_lines; i++)
        for (int k = 0; k < csv.n_fields; k++) {
            bool skip = false;
            for (size_t m = 0; m < sizeof measured / sizeof *measured; m++)
                skip |= strcmp(csv.fields[0][k], measured[m]) == 0;
            char *longer = skip ? mem_string(text) : mem_format("%s%s|", text, csv.fields[i][k]);
            free(text);
            text = longer;
        }
    free(csv.bytes);
    return text;
}

static void check_same_tables(const char *folder, const char *a, const char *b) {
    char *out_a = mem_string(files_path(folder, a)), *out_b = mem_string(files_path(folder, b)),
         *table_a = table_of(out_a), *table_b = table_of(out_b);
    assert_string_equal(table_a, table_b);
    free(out_a);
    free(out_b);
    free(table_a);
    free(table_b);
}

// When a file was last written, in ns.
static int64_t written(const char *folder, const char *name) {
    struct stat info;
    assert_int_equal(stat(files_path(folder, name), &info), 0);
    return (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
}

static const char TWO[] = "\"axes\": {\"method\": [\"rtn\", \"discquant\"]}, \"evaluations\": {\"choice\": {\"task\": "
                          "\"multiple-choice\", \"data\": \"{texts}/q.jsonl\"}}";

static void a_killed_ablation_keeps_what_is_done_and_goes_on(void **state) {
    (void)state;
    char *folder = files_folder();
    put_plan(folder, "plan.json", "40", TWO);
    ablate_well(folder, "plan.json", "whole", NULL);
    char *checkpoint = mem_string(files_path(folder, "cut/runs/discquant/checkpoint")),
         *plan = mem_string(files_path(folder, "plan.json")), *cut = mem_string(files_path(folder, "cut"));
    process_kill_at(PROGRAM, checkpoint,
                    (const char *[]){"ablate", plan, "--out", cut, "--threads", "1", "--quiet", NULL});
    assert_true(files_has(cut, "runs/rtn/result.json"));
    assert_false(files_has(cut, "runs/discquant/result.json"));
    int64_t before = written(cut, "runs/rtn/result.json");
    ablate_well(folder, "plan.json", "cut", NULL);
    assert_true(written(cut, "runs/rtn/result.json") == before);
    json_t *about = json_of(cut, "discquant", "run.json");
    assert_int_equal(json_integer_value(json_object_get(about, "resumed")), 1);
    json_decref(about);
    check_same_tables(folder, "whole", "cut");
    free(checkpoint);
    free(plan);
    free(cut);
    files_remove(folder);
}

static void runs_at_once_give_the_same_table(void **state) {
    (void)state;
    char *folder = files_folder();
    put_plan(folder, "plan.json", "4", TWO);
    ablate_well(folder, "plan.json", "one", NULL);
    char *plan = mem_string(files_path(folder, "plan.json"));
    struct process process = process_call(PROGRAM, "ablate", plan, "--out", files_path(folder, "three"), "--jobs", "3",
                                          "--threads", "6", "--quiet");
    assert_int_equal(process.code, 0);
    process_free(&process);
    json_t *about = json_of(files_path(folder, "three"), "discquant", "run.json");
    assert_int_equal(json_integer_value(json_object_get(about, "threads")), 2);
    json_decref(about);
    check_same_tables(folder, "one", "three");
    free(plan);
    files_remove(folder);
}

// Rows are known by their command line and by what stands in the files it names.
static void only_rows_that_changed_are_done_again(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *rows =
        "\"axes\": {\"method\": [\"rtn\", \"discquant\"]}, \"rows\": [{\"name\": \"again\", \"options\": "
        "{\"model\": \"{runs}/discquant/model\", \"method\": \"rtn\"}}]";
    put_plan(folder, "plan.json", "3", rows);
    ablate_well(folder, "plan.json", "out", NULL);
    char *out = mem_string(files_path(folder, "out"));
    static const char *const names[] = {"texts/c.jsonl", "runs/rtn/result.json", "runs/discquant/result.json",
                                        "runs/again/result.json"};
    int64_t before[4], same[4], changed[4], forced[4];
    for (int i = 0; i < 4; i++) before[i] = written(out, names[i]);
    ablate_well(folder, "plan.json", "out", NULL);
    for (int i = 0; i < 4; i++) assert_true((same[i] = written(out, names[i])) == before[i]);
    // the same options for rtn, other ones for discquant
    put_plan(
        folder, "plan.json", "3",
        "\"axes\": {\"method\": {\"rtn\": {\"method\": \"rtn\"}, \"discquant\": {\"method\": \"discquant\", \"steps\": "
        "5}}}, "
        "\"rows\": [{\"name\": \"again\", \"options\": {\"model\": \"{runs}/discquant/model\", \"method\": \"rtn\"}}]");
    ablate_well(folder, "plan.json", "out", NULL);
    for (int i = 0; i < 4; i++) changed[i] = written(out, names[i]);
    assert_true(changed[0] == same[0] && changed[1] == same[1]);
    assert_true(changed[2] > same[2] && changed[3] > same[3]); // the row and the one that reads its model
    ablate_well(folder, "plan.json", "out", "--force");
    for (int i = 0; i < 4; i++) assert_true((forced[i] = written(out, names[i])) > changed[i]);
    // other bytes in a file that a command line names
    char *copy = mem_string(files_path(folder, "v.jsonl")), *option = mem_format("validation=%s", copy),
         *text = files_bytes(files_path(out, "texts/v.jsonl"), NULL),
         *plan = mem_string(files_path(folder, "plan.json"));
    int64_t kept = 0;
    for (int round = 0; round < 3; round++) {
        if (round == 2) text[20] ^= 1;
        files_put(copy, text, strlen(text));
        struct process process =
            process_call(PROGRAM, "ablate", plan, "--out", out, "--threads", "1", "--quiet", "--option", option);
        assert_int_equal(process.code, 0);
        process_free(&process);
        if (round == 1) assert_true(written(out, names[1]) == kept);
        if (round == 2) assert_true(written(out, names[1]) > kept);
        kept = written(out, names[1]);
    }
    free(copy);
    free(option);
    free(text);
    free(plan);
    free(out);
    files_remove(folder);
}

// ---- failures ----

static void a_row_that_fails_does_not_stop_the_others(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *rows = "\"axes\": {\"t\": {\"long\": {\"seq-len\": 4096}, \"good\": {}}},\n"
                       "\"rows\": [{\"name\": \"on-top\", \"options\": {\"model\": \"{runs}/long/model\"}},"
                       "{\"name\": \"last\", \"options\": {\"method\": \"rtn\"}}]";
    put_plan(folder, "plan.json", "2", rows);
    process_check_error(ablate(folder, "plan.json", "out", NULL), 1, "2 of 4 rows failed");
    char *out = mem_string(files_path(folder, "out"));
    struct csv csv = csv_open(files_path(out, "table.csv"));
    assert_int_equal(csv.n_lines, 5);
    assert_string_equal(csv_get(&csv, "long", "status"), "failed");
    assert_non_null(strstr(csv_get(&csv, "long", "error"), "4096"));
    assert_string_equal(csv_get(&csv, "long", "kl"), "");
    assert_non_null(strstr(csv_get(&csv, "on-top", "error"), "needs long"));
    assert_string_equal(csv_get(&csv, "good", "status"), "done");
    assert_string_equal(csv_get(&csv, "last", "status"), "done");
    assert_true(strtod(csv_get(&csv, "last", "kl"), NULL) == result_of(out, "last", "kl"));
    char *log = files_bytes(files_path(out, "runs/long.log"), NULL),
         *summary = files_bytes(files_path(out, "summary.md"), NULL);
    assert_non_null(strstr(log, "discquant: error: "));
    assert_non_null(strstr(summary, "failed: long: "));
    assert_non_null(strstr(summary, "0 of 1"));
    // mended, only what had failed is done
    int64_t before = written(out, "runs/good/result.json");
    put_plan(folder, "plan.json", "2",
             "\"axes\": {\"t\": {\"long\": {\"seq-len\": 64}, \"good\": {}}},\n"
             "\"rows\": [{\"name\": \"on-top\", \"options\": {\"model\": \"{runs}/long/model\"}}]");
    ablate_well(folder, "plan.json", "out", NULL);
    assert_true(written(out, "runs/good/result.json") == before);
    free(csv.bytes);
    free(log);
    free(summary);
    free(out);
    files_remove(folder);
}

static void a_folder_of_somebody_else_is_left_alone(void **state) {
    (void)state;
    char *folder = files_folder();
    put_plan(folder, "plan.json", "2", "\"axes\": {\"method\": [\"rtn\"]}");
    process_check_error(ablate(folder, "plan.json", ".", NULL), 1, "holds no ablation");
    assert_false(files_has(folder, "runs"));
    ablate_well(folder, "plan.json", "out", NULL);
    process_check_error(ablate(folder, "plan.json", "out/runs/rtn", NULL), 1, "holds no ablation");
    files_remove(folder);
}

static void wrong_plans_are_refused_before_anything_runs(void **state) {
    (void)state;
    static const struct {
        const char *rest, *text;
    } cases[] = {
        {"\"axes\": {\"bits\": [3]", "not valid JSON"},
        {"\"axis\": {\"bits\": [3]}", "\"axis\": there is no such key"},
        {"\"columns\": \"kl\"", "neither \"axes\" nor \"rows\""},
        {"\"axes\": {\"bits\": []}", "axis 'bits': is empty"},
        {"\"axes\": {}", "is empty"},
        {"\"axes\": {\"bits\": 3}", "must be a list of values"},
        {"\"axes\": {\"bits\": [[3]]}", "holds an array"},
        {"\"axes\": {\"bits\": [3, 3]}", "two rows of this name"},
        {"\"axes\": {\"a/b\": [3]}", "axis 'a/b'"},
        {"\"axes\": {\"lambda\": [\"a b\"]}", "label 'a b'"},
        {"\"axes\": {\"bits\": [3, 9]}", "row '9': --bits 9: must be from 2 to 8"},
        {"\"axes\": {\"bit\": [3]}", "row '3': discquant has no option --bit"},
        {"\"axes\": {\"m\": {\"x\": {\"engine\": \"zone\"}}}", "discquant has no option --engine"},
        {"\"axes\": {\"m\": {\"x\": {\"recompute\": 3}}}", "takes no value"},
        {"\"axes\": {\"m\": {\"x\": {\"lambda\": true}}}", "needs a value"},
        {"\"axes\": {\"m\": {\"x\": {\"lambda\": {}}}}", "option \"lambda\" is an object"},
        {"\"axes\": {\"m\": {\"x\": {\"out\": \"y\"}}}", "--out: is for `ablate` to give"},
        {"\"axes\": {\"m\": {\"x\": {\"command\": \"discquant-wlak\"}}}", "command 'discquant-wlak'"},
        {"\"axes\": {\"m\": {\"x\": {\"command\": \"discquant-bench eval\"}}}", "has no option --calibration"},
        {"\"axes\": {\"m\": {\"x\": {\"model\": null}}}", "--model is missing"},
        {"\"axes\": {\"m\": {\"x\": {\"model\": \"{runs}/y/model\"}}}", "no row of this name"},
        {"\"axes\": {\"m\": {\"x\": {\"model\": \"{runs}\"}}}", "no row of this name"},
        {"\"axes\": {\"m\": {\"x\": {\"calibration\": \"{texts}/d.jsonl\"}}}", "no text of this name"},
        {"\"axes\": {\"m\": {\"x\": {\"model\": \"{home}/model\"}}}", "{home} is no axis"},
        {"\"axes\": {\"m\": {\"x\": {\"model\": \"{m\"}}}", "{ without }"},
        {"\"axes\": {\"m\": {\"x\": {\"model\": \"{runs}/x/model\"}}}", "needs itself"},
        {"\"axes\": {\"m\": {\"x\": {\"model\": \"{runs}/y/model\"}, \"y\": {\"model\": \"{runs}/x/model\"}}}",
         "needs itself"},
        {"\"axes\": {\"bits\": [3]}, \"exclude\": [{\"seed\": 0}]", "there is no axis 'seed'"},
        {"\"axes\": {\"bits\": [3]}, \"exclude\": [{\"bits\": 4}]", "'4' is no label"},
        {"\"axes\": {\"bits\": [3]}, \"exclude\": [{\"bits\": 3}]", "every row is excluded"},
        {"\"axes\": {\"bits\": [3]}, \"over\": \"seed\"", "\"over\": there is no axis 'seed'"},
        {"\"rows\": [{\"name\": \"a\"}, {\"name\": \"a\"}]", "two rows of this name"},
        {"\"rows\": [{\"options\": {}}]", "row 1: \"name\" is missing"},
        {"\"rows\": [{\"name\": \"a\", \"steps\": 3}]", "row 'a': \"steps\": there is no such key"},
        {"\"rows\": [{\"name\": \"../a\"}]", "name '../a'"},
        {"\"rows\": [{\"name\": \"a\", \"evaluate\": 3}]", "\"evaluate\" is an integer"},
        {"\"rows\": [{\"name\": \"a\", \"evaluate\": \"../x\"}]", "evaluate '../x'"},
        {"\"rows\": [{\"name\": \"a\"}], \"evaluations\": {\"x\": {\"tsk\": 1}}", "has no option --tsk"},
        {"\"rows\": [{\"name\": \"a\"}], \"evaluations\": {\"x\": {}}", "--data is missing"},
        {"\"rows\": [{\"name\": \"a\"}], \"evaluations\": {\"x\": {\"command\": \"discquant\"}}",
         "has no option --command"},
        {"\"rows\": [{\"name\": \"a\", \"options\": {\"command\": \"none\", \"model\": null}}], \"evaluations\": "
         "{\"x\": {}}",
         "needs the option \"model\""},
    };
    char *folder = files_folder();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_plan(folder, "plan.json", "2", cases[i].rest);
        process_check_error(ablate(folder, "plan.json", "out", NULL), 1, cases[i].text);
        process_check_error(ablate(folder, "plan.json", "out", "--dry-run"), 1, "plan.json");
        assert_false(files_has(folder, "out"));
    }
    process_check_error(ablate(folder, "absent.json", "out", NULL), 1, "absent.json");
    put_plan(folder, "plan.json", "2", "\"axes\": {\"bits\": [3]}");
    char *plan = mem_string(files_path(folder, "plan.json"));
#define REFUSED(code, text, ...) process_check_error(process_call(PROGRAM, "ablate", __VA_ARGS__), code, text)
    REFUSED(2, "PLAN.json is missing", "--dry-run");
    REFUSED(2, "--out is missing", plan);
    REFUSED(2, "one PLAN.json", plan, plan);
    REFUSED(2, "want NAME=VALUE", plan, "--dry-run", "--option", "=3");
    REFUSED(2, "--jobs", plan, "--dry-run", "--jobs", "0");
    REFUSED(1, "has no option --stesp", plan, "--dry-run", "--option", "stesp=3");
    REFUSED(1, "has no evaluation 'choice'", plan, "--dry-run", "--option", "choice.data=x");
#undef REFUSED
    free(plan);
    files_remove(folder);
}

// ---- overrides, and the plans of the repository ----

static void shared_options_can_be_replaced_and_rows_keep_their_own(void **state) {
    (void)state;
    char *folder = files_folder(), rest[800];
    snprintf(
        rest, sizeof rest,
        "\"axes\": {\"seed\": [4]}, \"rows\": [{\"name\": \"x\", \"evaluate\": \"merged\", \"options\": {\"model\": "
        "\"{runs}/4/model\"}}, {\"name\": \"y\", \"evaluate\": false}], %s",
        QUESTIONS);
    put_plan(folder, "plan.json", "2", rest);
    char *plan = mem_string(files_path(folder, "plan.json"));
    struct process p = process_call(PROGRAM, "ablate", plan, "--dry-run", "--model", "M", "--calibration", "A",
                                    "--calibration", "B", "--validation", "V", "--option", "steps=99", "--option",
                                    "recompute", "--option", "choice.data=Q.x=y");
    if (p.code) fail_msg("%s", p.err);
    assert_string_equal(
        p.out,
        "discquant --model M --calibration A --calibration B --validation V --seq-len 32 --batch-size 2 --steps 99 "
        "--validation-samples 4 --report-every 0 --checkpoint-every 2 --bits 3 --recompute --seed 4 --out OUT/runs/4\n"
        "discquant-bench eval --model OUT/runs/4/model --task multiple-choice --data Q.x=y --out OUT/runs/4.choice\n"
        "discquant --model OUT/runs/4/model --calibration A --calibration B --validation V --seq-len 32 --batch-size 2 "
        "--steps 99 --validation-samples 4 --report-every 0 --checkpoint-every 2 --bits 3 --recompute --out "
        "OUT/runs/x\n"
        "discquant-bench eval --model OUT/runs/x/merged --task multiple-choice --data Q.x=y --out OUT/runs/x.choice\n"
        "discquant --model M --calibration A --calibration B --validation V --seq-len 32 --batch-size 2 --steps 99 "
        "--validation-samples 4 --report-every 0 --checkpoint-every 2 --bits 3 --recompute --out OUT/runs/y\n"
        "# 5 runs, 3 rows\n");
    process_free(&p);
    free(plan);
    files_remove(folder);
}

// Every command line of every plan, as the commands' parsers see it.
static void the_plans_of_the_repository_are_right(void **state) {
    (void)state;
    char plans[4096];
    check_source("bench/plans", plans, sizeof plans);
    DIR *folder = opendir(plans);
    assert_non_null(folder);
    int n = 0;
    for (const struct dirent *entry; (entry = readdir(folder));) {
        if (!strstr(entry->d_name, ".json")) continue;
        char *plan = mem_format("%s/%s", plans, entry->d_name);
        struct process process = process_call(PROGRAM, "ablate", plan, "--dry-run");
        free(plan);
        if (process.code != 0) fail_msg("%s: %s", entry->d_name, process.err);
        assert_non_null(strstr(process.out, "# "));
        process_free(&process);
        n++;
    }
    closedir(folder);
    assert_true(n > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_holds_what_the_result_files_say),
        cmocka_unit_test(a_row_is_what_the_program_gives),
        cmocka_unit_test(the_summary_gives_means_and_students_intervals),
        cmocka_unit_test(rows_with_names_have_them_where_a_label_is_missing),
        cmocka_unit_test(a_killed_ablation_keeps_what_is_done_and_goes_on),
        cmocka_unit_test(runs_at_once_give_the_same_table),
        cmocka_unit_test(only_rows_that_changed_are_done_again),
        cmocka_unit_test(a_row_that_fails_does_not_stop_the_others),
        cmocka_unit_test(a_folder_of_somebody_else_is_left_alone),
        cmocka_unit_test(wrong_plans_are_refused_before_anything_runs),
        cmocka_unit_test(shared_options_can_be_replaced_and_rows_keep_their_own),
        cmocka_unit_test(the_plans_of_the_repository_are_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
