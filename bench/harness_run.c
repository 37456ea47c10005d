#include "bench/harness_run.h"

#include "bench/choice.h"
#include "bench/harness_tokens.h"
#include "core/base/clock.h"
#include "core/base/mem.h"
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
    struct answers *answers;
    bool *right, *right_norm; // [n]; gsm8k_cot: strict, flexible
    double loglikelihood;     // wikitext: of all pages
};

// A failure at an item, named.
static enum status item_failed(const struct harness *self, int64_t i) {
    char *why = mem_string(status_message());
    enum status status = status_set(STATUS_INVALID, "%s: item %lld: %s", self->settings->data, (long long)i, why);
    free(why);
    return status;
}

static struct record *line_of(struct harness *self, int64_t i) {
    struct record *line = answers_line(self->answers, i);
    if (self->docs->docs[i].group) record_string(line, "group", self->docs->docs[i].group);
    return line;
}

static enum status answered(struct harness *self, int64_t i) {
    if (self->settings->task != HARNESS_WIKITEXT)
        record_bool(answers_line(self->answers, i), "correct", self->right[i]);
    return answers_done(self->answers, i, self->right[i]);
}

// ---- choices ----

static enum status question_begin(void *context, int64_t i, struct choice_question *question) {
    enum status status = STATUS_OK;
    struct harness *self = context;
    const struct harness_doc *doc = &self->docs->docs[i];
    struct item_choice *choices = mem_new((size_t)doc->n_requests, sizeof *choices);
    *question = (struct choice_question){.choices = choices, .n_choices = doc->n_requests, .gold = doc->gold};
    for (int64_t c = 0; c < doc->n_requests; c++) {
        choices[c].n_characters = doc->requests[c].n_characters;
        TRY(harness_encode_pair(&self->how, &doc->requests[c], &choices[c].tokens, &choices[c].first));
    }
done:
    return status == STATUS_OK ? status : item_failed(self, i);
}

static enum status question_answered(void *context, int64_t i, const struct choice_question *question) {
    struct harness *self = context;
    char *where = mem_format("%s: item %lld", self->settings->data, (long long)i);
    enum status status = choice_line(question, "loglikelihood", where, line_of(self, i));
    free(where);
    if (status != STATUS_OK) return status;
    self->right[i] = question->best == question->gold;
    self->right_norm[i] = question->best_norm == question->gold;
    return answered(self, i);
}

static void question_end(struct choice_question *question) {
    for (int64_t c = 0; c < question->n_choices; c++) token_list_free(&question->choices[c].tokens);
    free(question->choices);
}

static enum status choices_ask(struct harness *self) {
    const struct choice_asker asker = {question_begin, question_answered, question_end, self};
    return choice_ask(self->scorer, &asker, self->docs->n);
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

struct solving {
    struct harness *harness;
    struct continuation *texts; // [n], of the documents
};

static enum status prompt_of(struct harness *self, int64_t i, struct continuation *text) {
    enum status status = STATUS_OK;
    struct token_list prompt = {0};
    int64_t most = self->settings->tokens, positions = self->model->transformer->config.max_positions;
    TRY(harness_encode(&self->how, self->docs->docs[i].requests[0].context, &prompt));
    int64_t skip = prompt.n_tokens > positions - most ? prompt.n_tokens - (positions - most) : 0;
    *text = (struct continuation){.n_prompt = prompt.n_tokens - skip, .most = most};
    if (positions - most < 1 || text->n_prompt < 1)
        TRY(status_set(STATUS_INVALID, "the model's %lld positions leave no room for a question and --tokens %lld",
                       (long long)positions, (long long)most));
    text->tokens = mem_new((size_t)(text->n_prompt + most), sizeof *text->tokens);
    memcpy(text->tokens, prompt.tokens + skip, (size_t)text->n_prompt * sizeof *text->tokens);
done:
    token_list_free(&prompt);
    return status == STATUS_OK ? status : item_failed(self, i);
}

static enum status solved(struct harness *self, int64_t i, const char *text) {
    const struct harness_doc *doc = &self->docs->docs[i];
    struct record *line = line_of(self, i);
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
    return answered(self, i);
}

static enum status solving_check(void *context, int64_t i, bool *ends) {
    enum status status = STATUS_OK;
    const struct solving *solving = context;
    struct harness *self = solving->harness;
    const struct continuation *made = &solving->texts[i];
    int32_t newest = made->tokens[made->n_prompt + made->made - 1];
    char *text = NULL;
    TRY(text_of(self, made->tokens + made->n_prompt, made->made, &text));
    *ends = cut_at_stops(text) || generate_ends(&self->model->transformer->config, newest) ||
            newest == self->how.prefix || made->made == made->most;
    if (*ends) TRY(solved(self, i, text));
done:
    free(text);
    return status;
}

static enum status gsm8k_ask(struct harness *self) {
    enum status status = STATUS_OK;
    int64_t n = self->docs->n;
    struct solving solving = {.harness = self, .texts = mem_new((size_t)n, sizeof *solving.texts)};
    for (int64_t i = 0; i < n; i++) TRY(prompt_of(self, i, &solving.texts[i]));
    TRY(generate_texts(self->model->transformer, self->model->step, solving.texts, n,
                       &(struct generate_options){.check = solving_check, .context = &solving}));
done:
    for (int64_t i = 0; i < n; i++) free(solving.texts[i].tokens);
    free(solving.texts);
    return status;
}

// ---- pages ----

// Windows of L = the model's positions: the first predicts its L tokens from the prefix and one another, each later one L tokens that no
// other predicts, from the token before them; a shorter last one from as many before it as fit.
static enum status page_score(struct harness *self, const struct token_list *page, double *sum) {
    enum status status = STATUS_OK;
    int64_t length = self->model->transformer->config.max_positions, n = 0;
    int64_t n_windows = (page->n_tokens + length - 1) / length;
    struct scored_text *windows = mem_new((size_t)n_windows, sizeof *windows);
    int32_t *begin = mem_new((size_t)length + 1, sizeof *begin); // of the first window
    for (int64_t done_tokens = 0, more; done_tokens < page->n_tokens; done_tokens += more) {
        int64_t left = page->n_tokens - done_tokens;
        more = left < length ? left : length;
        if (done_tokens == 0) {
            begin[0] = self->how.prefix;
            memcpy(begin + 1, page->tokens, (size_t)more * sizeof *begin);
            windows[n++] = (struct scored_text){.tokens = begin, .n = more + 1, .first = 1};
        } else {
            int64_t start = done_tokens + more - length - 1;
            windows[n++] =
                (struct scored_text){.tokens = page->tokens + start, .n = length + 1, .first = done_tokens - start};
        }
    }
    TRY(scorer_loglikelihoods(self->scorer, windows, n));
    for (int64_t i = 0; i < n; i++) *sum += windows[i].loglikelihood;
done:
    free(windows);
    free(begin);
    return status;
}

static enum status page_ask(struct harness *self, int64_t i) {
    enum status status = STATUS_OK;
    const struct harness_doc *doc = &self->docs->docs[i];
    struct record *line = line_of(self, i);
    struct token_list page = {0};
    double sum = 0;
    TRY(harness_encode(&self->how, doc->requests[0].continuation, &page));
    TRY(page_score(self, &page, &sum));
    self->loglikelihood += sum;
    record_number(line, "loglikelihood", sum);
    record_integer(line, "words", doc->words);
    record_integer(line, "bytes", doc->bytes);
done:
    token_list_free(&page);
    return status == STATUS_OK ? answered(self, i) : item_failed(self, i);
}

static enum status wikitext_ask(struct harness *self) {
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < self->docs->n; i++) TRY(page_ask(self, i));
done:
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
    enum status (*ask)(struct harness *self);
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
    self->answers = answers_new(self->folder, harness_task_names[s->task], self->docs->n);
    TRY(tasks[s->task].ask(self));
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
    answers_free(self.answers);
    harness_docs_free(self.docs);
    model_free(self.model);
    run_folder_free(self.folder);
    record_free(about);
    free(self.right);
    free(self.right_norm);
    return status;
}
