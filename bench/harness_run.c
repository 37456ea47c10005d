#include "bench/harness_run.h"

#include "bench/harness_tokens.h"
#include "bench/scorer.h"
#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/progress.h"
#include "core/nn/generate.h"
#include "data/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct harness {
    const struct program_common *common;
    const struct harness_settings *settings;
    struct model *model;
    struct harness_tokens how;
    struct scorer *scorer;
    struct harness_docs *docs;
    struct run_folder *folder;
    bool *right, *right_norm; // [n]; gsm8k_cot: strict, flexible
    double loglikelihood;     // wikitext: of all pages
};

// ---- choices ----

static int64_t best_of(const struct harness_doc *doc, const double *scores, bool norm) {
    int64_t best = 0;
    double best_score = -INFINITY;
    for (int64_t i = 0; i < doc->n_requests; i++) {
        double score = norm ? scores[i] / (double)doc->requests[i].n_characters : scores[i];
        if (score > best_score) best = i, best_score = score;
    }
    return best;
}

// A choice behind its context.
struct asked {
    struct token_list tokens;
    int64_t first, choice;
};

static int by_tokens(const void *left, const void *right) {
    const struct token_list *a = &((const struct asked *)left)->tokens, *b = &((const struct asked *)right)->tokens;
    for (int64_t i = 0; i < a->n_tokens && i < b->n_tokens; i++)
        if (a->tokens[i] != b->tokens[i]) return a->tokens[i] < b->tokens[i] ? -1 : 1;
    return (a->n_tokens > b->n_tokens) - (a->n_tokens < b->n_tokens);
}

// scores [n_requests]. Sequences are read in the order of their tokens, where neighbours share most: choices of different lengths have
// different windows of a text that is longer than the model's positions.
static enum status choices_score(struct harness *self, const struct harness_doc *doc, double *scores) {
    enum status status = STATUS_OK;
    struct asked *asked = mem_new((size_t)doc->n_requests, sizeof *asked);
    for (int64_t k = 0; k < doc->n_requests; k++) {
        asked[k].choice = k;
        TRY(harness_encode_pair(&self->how, &doc->requests[k], &asked[k].tokens, &asked[k].first));
    }
    qsort(asked, (size_t)doc->n_requests, sizeof *asked, by_tokens);
    for (int64_t k = 0; k < doc->n_requests; k++) {
        double *score = &scores[asked[k].choice];
        TRY(scorer_loglikelihood(self->scorer, asked[k].tokens.tokens, asked[k].tokens.n_tokens, asked[k].first,
                                 score));
        if (!isfinite(*score)) TRY(status_set(STATUS_INVALID, "the model's probability of a choice is not a number"));
    }
done:
    for (int64_t k = 0; k < doc->n_requests; k++) token_list_free(&asked[k].tokens);
    free(asked);
    return status;
}

static enum status choices_ask(struct harness *self, int64_t i, struct record *line) {
    enum status status = STATUS_OK;
    const struct harness_doc *doc = &self->docs->docs[i];
    double *scores = mem_new((size_t)doc->n_requests, sizeof *scores);
    TRY(choices_score(self, doc, scores));
    for (int64_t k = 0; k < doc->n_requests; k++) {
        char *key = mem_format("loglikelihood_%lld", (long long)k);
        record_number(line, key, scores[k]);
        free(key);
    }
    int64_t best = best_of(doc, scores, false), best_norm = best_of(doc, scores, true);
    self->right[i] = best == doc->gold;
    self->right_norm[i] = best_norm == doc->gold;
    record_integer(line, "gold", doc->gold);
    record_integer(line, "best", best);
    record_integer(line, "best_norm", best_norm);
    record_bool(line, "correct_norm", self->right_norm[i]);
done:
    free(scores);
    return status;
}

// ---- generation ----

static const char *const stops[] = {"Q:", "</s>", "<|im_end|>"};

// Cuts the text at every stop in turn; whether there was one.
static bool cut_at_stops(char *text) {
    bool found = false;
    for (size_t s = 0; s < sizeof stops / sizeof *stops; s++) {
        char *at = strstr(text, stops[s]);
        if (at) *at = 0, found = true;
    }
    return found;
}

// The text of generated tokens alone, without special ones.
static enum status text_of(const struct harness *self, const int32_t *tokens, int64_t n, char **out) {
    char *text = NULL;
    int64_t n_bytes = 0;
    enum status status = tokenizer_decode(self->model->tokenizer, tokens, n, true, &text, &n_bytes);
    if (status == STATUS_OK) *out = mem_string(text);
    mem_buffer_free(text);
    return status;
}

static enum status generate_text(struct harness *self, const struct token_list *prompt, char **out) {
    enum status status = STATUS_OK;
    const struct transformer_config *config = &self->model->transformer->config;
    int64_t most = self->settings->tokens, room = config->max_positions - most;
    int64_t skip = prompt->n_tokens > room ? prompt->n_tokens - room : 0, n = prompt->n_tokens - skip, made = 0;
    int32_t *all = mem_new((size_t)(n + most), sizeof *all);
    char *text = mem_string("");
    if (n) memcpy(all, prompt->tokens + skip, (size_t)n * sizeof *all);
    if (room < 1 || n < 1)
        TRY(status_set(STATUS_INVALID, "the model's %lld positions leave no room for a question and --tokens %lld",
                       (long long)config->max_positions, (long long)most));
    for (bool ended = false; made < most && !ended; made++) {
        TRY(scorer_next(self->scorer, all, n + made, &all[n + made]));
        free(text);
        text = NULL;
        TRY(text_of(self, all + n, made + 1, &text));
        ended = cut_at_stops(text) || generate_ends(config, all[n + made]) || all[n + made] == self->how.prefix;
    }
    *out = text;
    text = NULL;
done:
    free(text);
    free(all);
    return status;
}

static enum status gsm8k_ask(struct harness *self, int64_t i, struct record *line) {
    enum status status = STATUS_OK;
    const struct harness_doc *doc = &self->docs->docs[i];
    struct token_list prompt = {0};
    char *text = NULL;
    TRY(harness_encode(&self->how, doc->requests[0].context, &prompt));
    TRY(generate_text(self, &prompt, &text));
    char *strict = harness_answer_strict(text), *flexible = harness_answer_flexible(text);
    self->right[i] = harness_answers_agree(strict, doc->target);
    self->right_norm[i] = harness_answers_agree(flexible, doc->target);
    record_string(line, "target", doc->target);
    record_string(line, "text", text);
    record_string(line, "answer_strict", strict);
    record_string(line, "answer_flexible", flexible);
    record_bool(line, "correct_flexible", self->right_norm[i]);
    free(strict);
    free(flexible);
done:
    token_list_free(&prompt);
    free(text);
    return status;
}

// ---- pages ----

// Windows of L = the model's positions: the first predicts its L tokens from the prefix and one another, each later one L tokens that no
// other predicts, from the token before them; a shorter last one from as many before it as fit.
static enum status wikitext_ask(struct harness *self, int64_t i, struct record *line) {
    enum status status = STATUS_OK;
    const struct harness_doc *doc = &self->docs->docs[i];
    int64_t length = self->model->transformer->config.max_positions;
    struct token_list page = {0};
    int32_t *window = mem_new((size_t)length + 1, sizeof *window);
    double sum = 0;
    TRY(harness_encode(&self->how, doc->requests[0].continuation, &page));
    for (int64_t done_tokens = 0; done_tokens < page.n_tokens;) {
        int64_t left = page.n_tokens - done_tokens, n = left < length ? left : length, end = done_tokens + n, begin;
        double part = 0;
        if (done_tokens == 0) {
            window[0] = self->how.prefix;
            memcpy(window + 1, page.tokens, (size_t)n * sizeof *window);
            TRY(scorer_loglikelihood(self->scorer, window, n + 1, 1, &part));
        } else {
            begin = end - length - 1;
            memcpy(window, page.tokens + begin, (size_t)(length + 1) * sizeof *window);
            TRY(scorer_loglikelihood(self->scorer, window, length + 1, done_tokens - begin, &part));
        }
        sum += part;
        done_tokens = end;
    }
    self->loglikelihood += sum;
    record_number(line, "loglikelihood", sum);
    record_integer(line, "words", doc->words);
    record_integer(line, "bytes", doc->bytes);
done:
    token_list_free(&page);
    free(window);
    return status;
}

// ---- summaries ----

struct mean {
    double value, error; // standard error: sample deviation over sqrt(n)
    int64_t n;
};

static struct mean mean_of(const struct harness *self, const bool *right, const char *group) {
    struct mean mean = {0};
    int64_t n_right = 0;
    for (int64_t i = 0; i < self->docs->n; i++)
        if (!group || self->docs->docs[i].group == group) mean.n++, n_right += right[i];
    double n = (double)mean.n, p = (double)n_right / n;
    mean.value = p;
    mean.error = mean.n > 1 ? sqrt(p * (1 - p) / (n - 1)) : 0;
    return mean;
}

static void record_mean(struct record *result, const char *key, struct mean mean) {
    char *error = mem_format("%s_stderr", key);
    record_number(result, key, mean.value);
    record_number(result, error, mean.error);
    free(error);
}

// Means weighted by size, errors pooled: sqrt((sum n (n - 1) e^2 / (N - K)) / N), as the harness does level by level.
static struct mean pool(const struct mean *means, int64_t k) {
    struct mean out = {0};
    double squares = 0;
    for (int64_t i = 0; i < k; i++) {
        double n = (double)means[i].n;
        out.n += means[i].n;
        out.value += n * means[i].value;
        squares += n * (n - 1) * means[i].error * means[i].error;
    }
    out.value /= (double)out.n;
    out.error = out.n > k ? sqrt(squares / (double)(out.n - k) / (double)out.n) : 0;
    return out;
}

static void mmlu_summary(const struct harness *self, struct record *result) {
    static const char *const categories[] = {"humanities", "other", "social_sciences", "stem"};
    const struct harness_docs *docs = self->docs;
    struct mean *members = mem_new((size_t)docs->n_groups, sizeof *members), of_category[5];
    int64_t n_categories = 0;
    for (size_t c = 0; c <= 4; c++) { // the last: subjects that are none of the benchmark's
        int64_t n = 0;
        for (int64_t g = 0; g < docs->n_groups; g++) {
            const char *category = harness_mmlu_category(docs->groups[g]);
            if (c < 4 ? !category || strcmp(category, categories[c]) != 0 : category != NULL) continue;
            char *key = mem_format("acc_%s", docs->groups[g]);
            members[n++] = mean_of(self, self->right, docs->groups[g]);
            record_mean(result, key, members[n - 1]);
            free(key);
        }
        if (!n) continue;
        of_category[n_categories++] = pool(members, n);
        char *key = mem_format("acc_%s", c < 4 ? categories[c] : "other_subjects");
        record_mean(result, key, of_category[n_categories - 1]);
        free(key);
    }
    record_mean(result, "acc", pool(of_category, n_categories));
    free(members);
}

static void choices_summary(const struct harness *self, struct record *result) {
    record_mean(result, "acc", mean_of(self, self->right, NULL));
    if (self->settings->task != HARNESS_WINOGRANDE)
        record_mean(result, "acc_norm", mean_of(self, self->right_norm, NULL));
}

static void gsm8k_summary(const struct harness *self, struct record *result) {
    record_mean(result, "exact_match_strict", mean_of(self, self->right, NULL));
    record_mean(result, "exact_match_flexible", mean_of(self, self->right_norm, NULL));
}

static void wikitext_summary(const struct harness *self, struct record *result) {
    int64_t words = 0, bytes = 0;
    for (int64_t i = 0; i < self->docs->n; i++) words += self->docs->docs[i].words, bytes += self->docs->docs[i].bytes;
    double per_byte = -self->loglikelihood / (double)bytes;
    record_number(result, "word_perplexity", exp(-self->loglikelihood / (double)words));
    record_number(result, "byte_perplexity", exp(per_byte));
    record_number(result, "bits_per_byte", per_byte / log(2));
    record_integer(result, "words", words);
    record_integer(result, "bytes", bytes);
}

// ---- the run ----

static const struct {
    enum status (*ask)(struct harness *self, int64_t i, struct record *line);
    void (*summary)(const struct harness *self, struct record *result);
} tasks[N_HARNESS_TASKS] = {
    [HARNESS_ARC_CHALLENGE] = {choices_ask, choices_summary},
    [HARNESS_PIQA] = {choices_ask, choices_summary},
    [HARNESS_HELLASWAG] = {choices_ask, choices_summary},
    [HARNESS_WINOGRANDE] = {choices_ask, choices_summary},
    [HARNESS_MMLU] = {choices_ask, mmlu_summary},
    [HARNESS_GSM8K] = {gsm8k_ask, gsm8k_summary},
    [HARNESS_WIKITEXT] = {wikitext_ask, wikitext_summary},
};

static enum status ask_all(struct harness *self) {
    enum status status = STATUS_OK;
    enum harness_task task = self->settings->task;
    struct record *line = record_new();
    struct progress *progress = progress_new(harness_task_names[task], "item", self->docs->n, 0);
    int64_t n_right = 0;
    for (int64_t i = 0; i < self->docs->n; i++) {
        record_clear(line);
        record_integer(line, "item", i);
        if (self->docs->docs[i].group) record_string(line, "group", self->docs->docs[i].group);
        if (tasks[task].ask(self, i, line) != STATUS_OK) {
            char *why = mem_string(status_message());
            status = status_set(STATUS_INVALID, "%s: item %lld: %s", self->settings->data, (long long)i, why);
            free(why);
            goto done;
        }
        if (task != HARNESS_WIKITEXT) record_bool(line, "correct", self->right[i]);
        TRY(run_folder_log(self->folder, line));
        n_right += self->right[i];
        progress_update(progress, i + 1, "%.3f right", (double)n_right / (double)(i + 1));
    }
done:
    progress_free(progress);
    record_free(line);
    return status;
}

static enum status open_docs(struct harness *self) {
    enum status status = STATUS_OK;
    const struct harness_settings *s = self->settings;
    struct harness_options options = {.limit = s->items, .shots = s->shots};
    char *prompt = NULL;
    int64_t n_bytes;
    if (s->prompt) TRY(file_read(s->prompt, 1 << 24, &prompt, &n_bytes));
    options.prompt = prompt;
    TRY(harness_read(s->task, s->data, &options, &self->docs));
    self->right = mem_new((size_t)self->docs->n, sizeof *self->right);
    self->right_norm = mem_new((size_t)self->docs->n, sizeof *self->right_norm);
done:
    mem_buffer_free(prompt);
    return status;
}

static enum status work(struct harness *self) {
    enum status status = STATUS_OK;
    const struct harness_settings *s = self->settings;
    TRY(open_docs(self));
    TRY(model_open(s->model, self->common->device, DTYPE_F32, NULL, &self->model));
    TRY(model_adapt(self->model, s->adapter));
    TRY(harness_tokens_open(self->model, s->bos, &self->how));
    TRY(scorer_new(self->model, &self->scorer));
    double start = clock_seconds();
    TRY(ask_all(self));
    double seconds = clock_seconds() - start;
    struct record *result = run_folder_result(self->folder);
    record_string(result, "task", harness_task_names[s->task]);
    record_string(result, "harness", "0.4.2");
    record_integer(result, "items", self->docs->n);
    tasks[s->task].summary(self, result);
    record_number(result, "seconds", seconds);
    record_number(result, "items_per_second", (double)self->docs->n / seconds);
    char *text = record_text(result, 0);
    printf("%s\n", text);
    free(text);
done:
    return status;
}

static enum status describe(const struct harness_settings *s, struct record *about) {
    enum status status = STATUS_OK;
    record_string(about, "task", harness_task_names[s->task]);
    record_integer(about, "items", s->items);
    record_bool(about, "bos", s->bos);
    if (s->task == HARNESS_MMLU) record_integer(about, "shots", s->shots);
    if (s->task == HARNESS_GSM8K) record_integer(about, "tokens", s->tokens);
    if (s->prompt) TRY(record_digest(about, "prompt", s->prompt));
    if (s->adapter) TRY(record_digest(about, "adapter", s->adapter));
    TRY(record_digest(about, "model", s->model));
    if (s->task != HARNESS_MMLU) TRY(record_digest(about, "data", s->data));
done:
    return status;
}

enum status harness_run(const struct program_common *common, const struct harness_settings *settings) {
    enum status status = STATUS_OK;
    struct harness self = {.common = common, .settings = settings};
    struct record *about = record_new();
    TRY(describe(settings, about));
    TRY(program_run_folder(common, about, &self.folder));
    status = run_folder_finish(self.folder, work(&self));
done:
    scorer_free(self.scorer);
    harness_docs_free(self.docs);
    model_free(self.model);
    run_folder_free(self.folder);
    record_free(about);
    free(self.right);
    free(self.right_norm);
    return status;
}
