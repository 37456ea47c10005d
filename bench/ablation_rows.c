// From the blocks of a plan to rows and runs: options merged, variables replaced, command lines, dependencies.
#include "bench/ablation_plan.h"

#include "core/base/mem.h"
#include "data/buffer.h"
#include "data/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What a row has for variables; {runs} and {texts} become these bytes first, so that what depends on them is found.
enum { MARK_RUNS = 1, MARK_TEXTS = 2 };
enum { ROWS_MAX = 10000, EXPANSIONS_MAX = 8 };

struct layout {
    struct ablation *to;
    const struct plan *plan;
    const char *folder;             // of the plan file
    const struct plan_block *block; // the row at hand
    int choice[PLAN_AXES_MAX];      // its labels
    const char *where;              // "PATH, row 'x'"
    int runs_room, rows_room;
};

static struct ablation_run *run_add(struct layout *l) {
    struct ablation *to = l->to;
    if (to->n_runs == l->runs_room) {
        l->runs_room = 2 * l->runs_room + 16;
        to->runs = mem_resize(to->runs, (size_t)l->runs_room, sizeof *to->runs);
    }
    struct ablation_run *run = &to->runs[to->n_runs++];
    *run = (struct ablation_run){.used = true};
    return run;
}

static int run_find(const struct ablation *to, const char *name, size_t n, bool text) {
    for (int i = 0; i < to->n_runs; i++) {
        const struct ablation_run *run = &to->runs[i];
        if (run->is_text == text && strncmp(run->name, name, n) == 0 && !run->name[n]) return i;
    }
    return -1;
}

// ---- variables ----

static enum status expand(const struct layout *l, const char *text, int depth, struct buffer *out);

static enum status expand_name(const struct layout *l, const char *name, int depth, struct buffer *out) {
    static const char marks[] = {MARK_RUNS, MARK_TEXTS};
    if (strcmp(name, "runs") == 0) return buffer_append(out, &marks[0], 1, "an option");
    if (strcmp(name, "texts") == 0) return buffer_append(out, &marks[1], 1, "an option");
    if (strcmp(name, "plan") == 0) return buffer_append(out, l->folder, (int64_t)strlen(l->folder), "an option");
    for (int a = 0; l->block && a < l->block->n_axes; a++) {
        const char *label = l->block->axes[a].labels[l->choice[a]];
        if (strcmp(l->block->axes[a].name, name) == 0)
            return buffer_append(out, label, (int64_t)strlen(label), "an option");
    }
    const char *shared = plan_text(l->to->arena, json_object_get(l->plan->shared, name));
    if (!shared)
        return status_set(STATUS_FORMAT,
                          "%s: {%s} is no axis of this row, no shared option with one value, and not {runs}, {texts} "
                          "or {plan}",
                          l->where, name);
    if (depth == EXPANSIONS_MAX) return status_set(STATUS_FORMAT, "%s: {%s} refers to itself", l->where, name);
    return expand(l, shared, depth + 1, out);
}

static enum status expand(const struct layout *l, const char *text, int depth, struct buffer *out) {
    enum status status = STATUS_OK;
    while (*text) {
        size_t plain = strcspn(text, "{");
        TRY(buffer_append(out, text, (int64_t)plain, "an option"));
        text += plain;
        if (!*text) break;
        const char *end = strchr(text, '}');
        if (!end) TRY(status_set(STATUS_FORMAT, "%s: '%s': { without }", l->where, text));
        TRY(expand_name(l, plan_format(l->to->arena, "%.*s", (int)(end - text - 1), text + 1), depth, out));
        text = end + 1;
    }
done:
    return status;
}

// *marked: with MARK_RUNS and MARK_TEXTS.
static enum status expand_all(const struct layout *l, const char *text, const char **marked) {
    enum status status = STATUS_OK;
    struct buffer out = {0};
    if (strpbrk(text, "\001\002")) TRY(status_set(STATUS_FORMAT, "%s: an option holds a control character", l->where));
    TRY(expand(l, text, 0, &out));
    *marked = plan_format(l->to->arena, "%.*s", (int)out.n_bytes, out.n_bytes ? out.bytes : "");
done:
    buffer_free(&out);
    return status;
}

// With the marks replaced: by folders, or, `said`, by {runs} and {texts}.
static char *unmark(const struct ablation *to, const char *marked, bool said) {
    char *text = arena_take(to->arena, strlen(marked) + strlen(marked) * (strlen(to->out) + 8) + 1, 1), *at = text;
    for (; *marked; marked++) {
        const char *folder = *marked == MARK_RUNS ? "runs" : *marked == MARK_TEXTS ? "texts" : NULL;
        if (!folder)
            *at++ = *marked;
        else
            at += said ? sprintf(at, "{%s}", folder) : sprintf(at, "%s/%s", to->out, folder);
    }
    *at = 0;
    return text;
}

// ---- command lines ----

// The words of a command line while they grow; marked.
struct words {
    struct arena *arena;
    const char **words;
    int n, room;
};

static void word_add(struct words *w, const char *word) {
    if (w->n == w->room) {
        w->room = 2 * w->room + 16;
        const char **grown = arena_take(w->arena, (size_t)w->room, sizeof *grown);
        for (int i = 0; i < w->n; i++) grown[i] = w->words[i];
        w->words = grown;
    }
    w->words[w->n++] = word;
}

static bool is_own(const char *name) {
    static const char *const own[] = {"out", "force", "resume", "quiet", "threads", "help", "usage", "version"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strcmp(name, own[i]) == 0) return true;
    return false;
}

static enum status option_add(const struct layout *l, const struct child_command *command, const char *name,
                              const json_t *value, struct words *words) {
    enum status status = STATUS_OK;
    const char *option = plan_format(l->to->arena, "--%s", name), *program = command->program,
               *space = command->word ? " " : "", *word = command->word ? command->word : "";
    bool takes_value = false;
    if (is_own(name))
        TRY(status_set(STATUS_FORMAT, "%s: %s: is for `ablate` to give, not for a plan", l->where, option));
    if (!child_command_option(command, name, &takes_value))
        TRY(status_set(STATUS_FORMAT, "%s: %s%s%s has no option %s", l->where, program, space, word, option));
    if (takes_value == json_is_boolean(value))
        TRY(status_set(STATUS_FORMAT, "%s: %s of %s%s%s %s", l->where, option, program, space, word,
                       takes_value ? "needs a value" : "takes no value: true or false"));
    if (json_is_true(value)) word_add(words, option);
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    for (size_t i = 0; takes_value && i < n; i++) {
        const char *text = plan_text(l->to->arena, json_is_array(value) ? json_array_get(value, i) : value), *marked;
        TRY(expand_all(l, text, &marked));
        word_add(words, option);
        word_add(words, marked);
    }
done:
    return status;
}

static void run_words(struct ablation *to, struct ablation_run *run, const struct words *words) {
    run->argc = words->n;
    run->argv = arena_take(to->arena, (size_t)words->n + 1, sizeof *run->argv);
    run->said = arena_take(to->arena, (size_t)words->n + 1, sizeof *run->said);
    run->needs = arena_take(to->arena, (size_t)words->n * 2 + 1, sizeof *run->needs);
    for (int i = 0; i < words->n; i++) {
        run->argv[i] = unmark(to, words->words[i], false);
        run->said[i] = unmark(to, words->words[i], true);
    }
}

static enum status run_build(const struct layout *l, struct ablation_run *run, const json_t *options) {
    enum status status = STATUS_OK;
    struct words words = {.arena = l->to->arena};
    const char *name;
    json_t *value;
    word_add(&words, run->command->program);
    if (run->command->word) word_add(&words, run->command->word);
    json_object_foreach((json_t *)options, name, value) if (!json_is_null(value))
        TRY(option_add(l, run->command, name, value, &words));
    run_words(l->to, run, &words);
done:
    return status;
}

// ---- rows ----

// Later options replace earlier ones; null takes one away.
static void options_merge(json_t *options, const json_t *more) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)more, name, value) {
        if (json_is_null(value))
            json_object_del(options, name);
        else
            json_object_set(options, name, value);
    }
}

static bool is_excluded(const struct layout *l) {
    size_t i, k;
    const char *key;
    json_t *rule, *value;
    json_array_foreach(l->block->exclude, i, rule) {
        bool all = true;
        json_object_foreach(rule, key, value) {
            bool one = false;
            for (int a = 0; a < l->block->n_axes; a++) {
                const struct plan_axis *axis = &l->block->axes[a];
                if (strcmp(axis->name, key) != 0) continue;
                for (k = 0; k < (json_is_array(value) ? json_array_size(value) : 1); k++)
                    one |=
                        strcmp(axis->labels[l->choice[a]],
                               plan_text(l->to->arena, json_is_array(value) ? json_array_get(value, k) : value)) == 0;
            }
            all = all && one;
        }
        if (all) return true;
    }
    return false;
}

static const char *row_name(const struct layout *l) {
    const char *name = l->block->name;
    for (int a = 0; a < l->block->n_axes; a++)
        name = plan_format(l->to->arena, "%s%s%s", name, *name ? "-" : "", l->block->axes[a].labels[l->choice[a]]);
    return name;
}

static enum status command_find(const struct layout *l, const json_t *options, const struct child_command **command) {
    const json_t *given = json_object_get(options, "command");
    const char *name = given ? json_string_value(given) : "discquant";
    *command = name ? child_command_find(name) : NULL;
    if (*command || (name && strcmp(name, "none") == 0)) return STATUS_OK;
    return status_set(STATUS_FORMAT, "%s: command '%s': there are %s, none", l->where, name ? name : json_kind(given),
                      child_command_names());
}

static enum status run_name(struct layout *l, const char *name, int *index) {
    if (strlen(name) > 200) return status_set(STATUS_FORMAT, "%s: the name is longer than 200 bytes", l->where);
    if (run_find(l->to, name, strlen(name), false) >= 0)
        return status_set(STATUS_FORMAT, "%s: there are two rows of this name", l->where);
    struct ablation_run *run = run_add(l);
    run->name = name;
    run->out = plan_format(l->to->arena, "%s/runs/%s", l->to->out, name);
    *index = l->to->n_runs - 1;
    return STATUS_OK;
}

// The model of a row: what its run leaves or, with the command none, the option.
static enum status evaluations_add(struct layout *l, struct ablation_row *row, const json_t *options) {
    enum status status = STATUS_OK;
    struct ablation *to = l->to;
    json_t *set = NULL;
    const json_t *given = json_object_get(options, "model");
    bool made = to->runs[row->run].command != NULL;
    if (to->n_evaluations && !made && !json_is_string(given))
        TRY(status_set(STATUS_FORMAT, "%s: command none needs the option \"model\": it is what is evaluated",
                       l->where));
    for (int e = 0; e < to->n_evaluations; e++) {
        TRY(run_name(l, plan_format(to->arena, "%s.%s", row->name, to->evaluations[e]), &row->evaluations[e]));
        to->runs[row->evaluations[e]].command = child_command_find("discquant-bench eval");
        json_decref(set);
        set = json_object();
        if (made)
            json_object_set_new(set, "model",
                                json_string(plan_format(to->arena, "{runs}/%s/%s", row->name, l->block->evaluated)));
        else
            json_object_set(set, "model", (json_t *)given);
        json_object_update(set, json_object_get(l->plan->evaluations, to->evaluations[e]));
        TRY(run_build(l, &to->runs[row->evaluations[e]], set));
    }
done:
    json_decref(set);
    return status;
}

static enum status row_add(struct layout *l) {
    enum status status = STATUS_OK;
    struct ablation *to = l->to;
    const char *name = row_name(l);
    json_t *options = json_object();
    l->where = plan_format(to->arena, "%s, row '%s'", to->plan, name);
    if (to->n_rows == ROWS_MAX) TRY(status_set(STATUS_FORMAT, "%s: more than %d rows", to->plan, (int)ROWS_MAX));
    if (to->n_rows == l->rows_room) {
        l->rows_room = 2 * l->rows_room + 16;
        to->rows = mem_resize(to->rows, (size_t)l->rows_room, sizeof *to->rows);
    }
    struct ablation_row *row = &to->rows[to->n_rows++];
    *row = (struct ablation_row){.name = name, .block = l->block->name};
    row->labels = arena_take(to->arena, (size_t)to->n_axes + 1, sizeof *row->labels);
    row->evaluations = arena_take(to->arena, (size_t)to->n_evaluations + 1, sizeof *row->evaluations);
    for (int e = 0; e < to->n_evaluations; e++) row->evaluations[e] = -1;
    options_merge(options, l->plan->shared);
    options_merge(options, l->block->options);
    for (int a = 0; a < l->block->n_axes; a++) {
        const struct plan_axis *axis = &l->block->axes[a];
        row->labels[axis->column] = axis->labels[l->choice[a]];
        options_merge(options, axis->sets[l->choice[a]]);
    }
    TRY(run_name(l, name, &row->run));
    TRY(command_find(l, options, &to->runs[row->run].command));
    json_object_del(options, "command");
    if (to->runs[row->run].command) TRY(run_build(l, &to->runs[row->run], options));
    if (l->block->evaluated) TRY(evaluations_add(l, row, options));
done:
    json_decref(options);
    return status;
}

// All combinations of labels, the last axis the fastest.
static enum status block_rows(struct layout *l) {
    enum status status = STATUS_OK;
    int before = l->to->n_rows, a = 0;
    memset(l->choice, 0, sizeof l->choice);
    while (a >= 0) {
        if (!is_excluded(l)) TRY(row_add(l));
        for (a = l->block->n_axes - 1; a >= 0 && ++l->choice[a] == l->block->axes[a].n_labels; a--) l->choice[a] = 0;
    }
    if (l->to->n_rows == before) TRY(status_set(STATUS_FORMAT, "%s: every row is excluded", l->block->where));
done:
    return status;
}

static enum status texts_add(struct layout *l) {
    enum status status = STATUS_OK;
    const char *name;
    json_t *options;
    json_object_foreach(l->plan->texts, name, options) {
        struct ablation_run *run = run_add(l);
        run->name = name;
        run->is_text = true;
        run->used = false;
        run->out = plan_format(l->to->arena, "%s/texts/%s", l->to->out, name);
        run->command = child_command_find("discquant-data corpus");
        l->where = plan_format(l->to->arena, "%s, text '%s'", l->to->plan, name);
        TRY(run_build(l, run, options));
    }
done:
    return status;
}

// ---- dependencies ----

// Every {runs}/NAME and {texts}/NAME of a command line.
static enum status needs_find(const struct ablation *to, struct ablation_run *run) {
    for (int i = 0; i < run->argc; i++) {
        for (const char *at = strchr(run->said[i], '{'); at; at = strchr(at + 1, '{')) {
            bool text = strncmp(at, "{texts}", 7) == 0;
            if (!text && strncmp(at, "{runs}", 6) != 0) continue; // part of a path
            const char *name = at + (text ? 7 : 6);
            size_t n = *name == '/' ? strcspn(name + 1, "/") : 0;
            int found = n > 0 ? run_find(to, name + 1, n, text) : -1;
            if (found < 0)
                return status_set(STATUS_FORMAT, "%s, row '%s': %s: there is no %s of this name", to->plan, run->name,
                                  run->said[i], text ? "text" : "row");
            if (!to->runs[found].command)
                return status_set(STATUS_FORMAT, "%s, row '%s': %s: this row runs nothing and leaves nothing", to->plan,
                                  run->name, run->said[i]);
            run->needs[run->n_needs++] = found;
        }
    }
    return STATUS_OK;
}

enum { UNSEEN, OPEN, CLOSED };

// Depth first; marks the texts that are needed.
static enum status run_visit(struct ablation *to, int index, char *seen) {
    enum status status = STATUS_OK;
    struct ablation_run *run = &to->runs[index];
    run->used = true;
    if (seen[index] == CLOSED) return STATUS_OK;
    if (seen[index] == OPEN)
        return status_set(STATUS_FORMAT, "%s: row '%s' needs itself, perhaps by way of others", to->plan, run->name);
    seen[index] = OPEN;
    for (int i = 0; i < run->n_needs; i++) TRY(run_visit(to, run->needs[i], seen));
    seen[index] = CLOSED;
done:
    return status;
}

static enum status needs_resolve(struct ablation *to) {
    enum status status = STATUS_OK;
    char *seen = mem_new((size_t)to->n_runs + 1, 1);
    for (int i = 0; i < to->n_runs; i++) TRY(needs_find(to, &to->runs[i]));
    for (int i = 0; i < to->n_runs; i++)
        if (!to->runs[i].is_text) TRY(run_visit(to, i, seen));
done:
    free(seen);
    return status;
}

enum status ablation_read(const struct ablation_options *options, struct ablation **out) {
    enum status status = STATUS_OK;
    struct ablation *to = mem_new(1, sizeof *to);
    struct plan plan = {0};
    struct layout layout = {.to = to, .plan = &plan};
    to->arena = arena_new();
    to->held = json_array();
    to->out = plan_format(to->arena, "%s", options->out);
    const char *slash = strrchr(options->plan, '/');
    layout.folder = slash ? plan_format(to->arena, "%.*s", (int)(slash - options->plan), options->plan) : ".";
    TRY(plan_read(options, to, &plan));
    TRY(texts_add(&layout));
    for (int b = 0; b < plan.n_blocks; b++) {
        layout.block = &plan.blocks[b];
        TRY(block_rows(&layout));
    }
    TRY(needs_resolve(to));
    *out = to;
    to = NULL;
done:
    plan_free(&plan);
    ablation_free(to);
    return status;
}

void ablation_free(struct ablation *ablation) {
    if (!ablation) return;
    for (int i = 0; i < ablation->n_runs; i++) {
        free(ablation->runs[i].error);
        free(ablation->runs[i].digest);
        json_decref(ablation->runs[i].result);
    }
    free(ablation->runs);
    free(ablation->rows);
    json_decref(ablation->held);
    arena_free(ablation->arena);
    free(ablation);
}
