// Tasks of `discquant-bench eval` that are made of items, with the pretrained stories260K model, whose scores and texts come
// here from whole sequences without a cache and from generate().
#include "tests/check.h"
#include "tests/files.h"

#include "bench/choice.h"
#include "bench/exact_match.h"
#include "core/base/threads.h"
#include "core/nn/generate.h"
#include "data/json.h"

static const char program[] = "bench/discquant-bench";

struct setting {
    char path[4096]; // of the model
    char *folder, *file;
    struct model *model;
    struct scorer *scorer;
    struct items *items;
};

static void setting_open(struct setting *s) {
    *s = (struct setting){0};
    check_ok(
        model_open(check_shared("models/stories260K", s->path, sizeof s->path), "cpu", DTYPE_F32, NULL, &s->model));
    check_ok(scorer_new(s->model, &s->scorer));
    s->folder = files_folder();
    s->file = mem_format("%s/items.jsonl", s->folder);
}

// Nothing of earlier sequences.
static void scorer_renew(struct setting *s) {
    scorer_free(s->scorer);
    check_ok(scorer_new(s->model, &s->scorer));
}

static void setting_close(struct setting *s) {
    items_free(s->items);
    scorer_free(s->scorer);
    model_free(s->model);
    files_remove(s->folder);
    free(s->file);
}

static enum status read_items(struct setting *s, const char *text, size_t n, enum items_format format) {
    struct items_options how = {.format = format, .model = s->model};
    files_put(s->file, text, n);
    items_free(s->items);
    s->items = NULL;
    return items_read(s->file, &how, &s->items);
}

// ---- multiple choice ----

static const struct question {
    const char *query, *choices[4];
} questions[] = {
    {"Once upon a time, there was a little", {" girl", " boy who liked to play", " x", " car."}},
    {"Lily and Tom went to the", {" park", " park to play with the big red ball.", " zzz"}},
    {"The cat", {"s are happy", " is happy", "ch"}}, // tokens that reach across the border
    {"She said ", {"hello", "\"Yes!\" and ran", "no"}},
    {"One day\n", {"Tom saw a dog", "\nTom", " Tom"}},
    {"He saw a caf", {"é", " 🐉 and a dragon", "e"}}, // bytes of characters that the vocabulary lacks
    {"", {"Once", "zq", " upon a time"}},
};
enum { N_QUESTIONS = sizeof questions / sizeof *questions };

static int n_choices(const struct question *q) {
    int n = 0;
    while (n < 4 && q->choices[n]) n++;
    return n;
}

static char *questions_text(const int *gold, const char *const *kinds) {
    char *text = mem_string("");
    for (int i = 0; i < N_QUESTIONS; i++) {
        json_t *choices = json_array();
        for (int c = 0; c < n_choices(&questions[i]); c++)
            json_array_append_new(choices, json_string(questions[i].choices[c]));
        json_t *item = json_pack("{s:s, s:o, s:i, s:s*}", "query", questions[i].query, "choices", choices, "gold",
                                 gold ? gold[i] : 0, "kind", kinds ? kinds[i] : NULL);
        assert_non_null(item);
        char *line = json_dumps(item, JSON_COMPACT), *longer = mem_format("%s%s\n", text, line);
        json_decref(item);
        free(line);
        free(text);
        text = longer;
    }
    return text;
}

// The sum of log-probabilities, from one pass over query + choice; what is the choice's is said by the tokens of the
// query without white space at its end.
static double direct_score(struct model *model, const char *query, const char *choice) {
    struct token_list whole = {0}, context = {0};
    char *text = mem_format("%s%s", query, choice), *start = mem_string(query);
    size_t n_start = strlen(start);
    while (n_start > 0 && strchr(" \n", start[n_start - 1])) n_start--;
    check_ok(tokenizer_encode(model->tokenizer, text, (int64_t)strlen(text), true, &whole));
    check_ok(tokenizer_encode(model->tokenizer, start, (int64_t)n_start, true, &context));
    int64_t n = whole.n_tokens - 1, first = 0;
    while (first < context.n_tokens && first < n && context.tokens[first] == whole.tokens[first]) first++;
    struct view tokens, targets, out;
    struct value *hidden = NULL;
    step_begin(model->step, (struct step_options){.seq_len = n});
    check_ok(step_take(model->step, DTYPE_I32, n, 1, &tokens));
    check_ok(step_take(model->step, DTYPE_I32, n, 1, &targets));
    check_ok(step_take(model->step, DTYPE_F64, n, 1, &out));
    check_ok(backend_write(model->backend, tokens, whole.tokens));
    check_ok(backend_write(model->backend, targets, whole.tokens + 1));
    check_ok(transformer_forward(model->transformer, model->step, tokens, &hidden));
    check_ok(transformer_loss(model->transformer, model->step, hidden,
                              &(struct transformer_loss){.targets = targets, .cross_entropy = out}));
    double *loss = mem_new((size_t)n, sizeof *loss), score = 0;
    check_ok(backend_read(model->backend, out, loss));
    for (int64_t t = first; t <= n; t++) score -= loss[t - 1];
    free(loss);
    free(text);
    free(start);
    token_list_free(&whole);
    token_list_free(&context);
    return score;
}

static enum status one_begin(void *context, int64_t i, struct choice_question *question) {
    (void)i;
    *question = *(const struct choice_question *)context;
    question->scores = NULL;
    return STATUS_OK;
}

static enum status one_answered(void *context, int64_t i, const struct choice_question *question) {
    struct choice_question *kept = context;
    (void)i;
    kept->best = question->best;
    kept->best_norm = question->best_norm;
    memcpy(kept->scores, question->scores, (size_t)question->n_choices * sizeof *kept->scores);
    return STATUS_OK;
}

static void ask_one(struct setting *s, int64_t i, double *scores, struct choice_question *question) {
    const struct item *item = &s->items->items[i];
    const struct choice_asker asker = {.begin = one_begin, .answered = one_answered, .context = question};
    *question = (struct choice_question){
        .choices = item->choices, .n_choices = item->n_choices, .gold = item->gold, .scores = scores};
    check_ok(choice_ask(s->scorer, &asker, 1));
}

static void scores_are_those_of_whole_sequences(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s);
    char *text = questions_text(NULL, NULL);
    check_ok(read_items(&s, text, strlen(text), ITEMS_CHOICE));
    assert_int_equal(s.items->n_items, N_QUESTIONS);
    for (int i = 0; i < N_QUESTIONS; i++) {
        double scores[4];
        struct choice_question question;
        assert_int_equal(s.items->items[i].n_choices, n_choices(&questions[i]));
        ask_one(&s, i, scores, &question);
        for (int c = 0; c < n_choices(&questions[i]); c++) {
            assert_true(scores[c] < 0);
            // fp32 of two orders of summation in 5 layers; logits are below 30.
            check_near(scores[c], direct_score(s.model, questions[i].query, questions[i].choices[c]), 2e-5, 2e-5);
        }
    }
    free(text);
    setting_close(&s);
}

static void threads_do_not_change_scores(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s);
    char *text = questions_text(NULL, NULL);
    check_ok(read_items(&s, text, strlen(text), ITEMS_CHOICE));
    for (int i = 0; i < N_QUESTIONS; i++) {
        double one[4], three[4];
        struct choice_question question;
        threads_set(1);
        scorer_renew(&s);
        ask_one(&s, i, one, &question);
        threads_set(3);
        scorer_renew(&s);
        ask_one(&s, i, three, &question);
        assert_memory_equal(one, three, (size_t)n_choices(&questions[i]) * sizeof *one);
    }
    threads_set(0);
    free(text);
    setting_close(&s);
}

// What is scored of a choice is its text, where no token reaches across the border.
static void a_choice_is_what_follows_the_query(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s);
    char *text = questions_text(NULL, NULL);
    check_ok(read_items(&s, text, strlen(text), ITEMS_CHOICE));
    for (int i = 0; i < 2; i++)
        for (int c = 0; c < n_choices(&questions[i]); c++) {
            const struct item_choice *choice = &s.items->items[i].choices[c];
            char *query = NULL;
            int64_t n = 0;
            check_ok(tokenizer_decode(s.model->tokenizer, choice->tokens.tokens, choice->first, true, &query, &n));
            assert_string_equal(query, questions[i].query);
            mem_buffer_free(query);
        }
    const struct item_choice *dragon = &s.items->items[5].choices[1], *accent = &s.items->items[5].choices[0];
    assert_int_equal(dragon->n_characters, 14); // "🐉 and a dragon": code points, no leading space
    assert_int_equal(accent->n_characters, 1);
    free(text);
    setting_close(&s);
}

// Equal choices, of which the longer in characters is the better per character.
static void the_first_of_equal_choices_is_taken(void **state) {
    (void)state;
    struct setting s;
    double scores[4];
    struct choice_question question;
    static const char text[] = "{\"query\": \"The cat\", \"choices\": [\" is\", \" is\", \" is\"], \"gold\": 1}\n";
    setting_open(&s);
    check_ok(read_items(&s, text, strlen(text), ITEMS_CHOICE));
    ask_one(&s, 0, scores, &question);
    assert_true(scores[0] == scores[1] && scores[1] == scores[2]);
    assert_true(question.best == 0 && question.best_norm == 0);
    s.items->items[0].choices[1].n_characters = s.items->items[0].choices[2].n_characters = 6;
    ask_one(&s, 0, scores, &question);
    assert_true(question.best == 0 && question.best_norm == 1);
    setting_close(&s);
}

// ---- exact match ----

static const char *const starts[] = {
    "Once upon a time", "One day",    "Lily",        "Tom and Sue", "The dog",     "A big",     "Mom said",
    "In the park",      "The sun",    "He was sad.", "She ran",     "It was",      "There was", "Ben had a",
    "The little bird",  "\"Hello\",", "They played", "Timmy",       "The old man", "The end. ",
};
enum { N_STARTS = sizeof starts / sizeof *starts };

static char *prompts_text(char *const *answers) {
    char *text = mem_string("");
    for (int i = 0; i < N_STARTS; i++) {
        json_t *item = json_pack("{s:s, s:s}", "prompt", starts[i], "answer", answers ? answers[i] : "x");
        char *line = json_dumps(item, JSON_COMPACT), *longer = mem_format("%s%s\n", text, line);
        json_decref(item);
        free(line);
        free(text);
        text = longer;
    }
    return text;
}

// All `limit` tokens of generate(), decoded behind the prompt, first line, without spaces around it.
static char *direct_text(struct model *model, const char *prompt, int64_t limit, bool *cut) {
    struct token_list list = {0};
    char *text = NULL, *alone = NULL;
    int64_t made = 0, n = 0, n_alone = 0;
    check_ok(tokenizer_encode(model->tokenizer, prompt, (int64_t)strlen(prompt), true, &list));
    int32_t *all = mem_new((size_t)(list.n_tokens + limit), sizeof *all);
    memcpy(all, list.tokens, (size_t)list.n_tokens * sizeof *all);
    check_ok(generate(model->transformer, model->step, list.tokens, list.n_tokens, limit, all + list.n_tokens, &made));
    check_ok(tokenizer_decode(model->tokenizer, list.tokens, list.n_tokens, true, &alone, &n_alone));
    check_ok(tokenizer_decode(model->tokenizer, all, list.n_tokens + made, true, &text, &n));
    assert_true(strncmp(text, alone, (size_t)n_alone) == 0);
    *cut = strchr(text + n_alone, '\n');
    char *line = mem_string_n(text + n_alone, strcspn(text + n_alone, "\n"));
    size_t from = strspn(line, " "), length = strlen(line);
    while (length > from && line[length - 1] == ' ') length--;
    char *result = mem_string_n(line + from, length - from);
    free(line);
    free(all);
    mem_buffer_free(text);
    mem_buffer_free(alone);
    token_list_free(&list);
    return result;
}

struct texts {
    char *text[N_STARTS];
    int64_t n_tokens[N_STARTS];
    int n;
};

static enum status keep_text(void *context, int64_t i, const char *text, int64_t n_tokens) {
    struct texts *texts = context;
    assert_null(texts->text[i]);
    texts->text[i] = mem_string(text);
    texts->n_tokens[i] = n_tokens;
    texts->n++;
    return STATUS_OK;
}

static void texts_are_those_of_generate(void **state) {
    (void)state;
    struct setting s;
    int cut = 0;
    setting_open(&s);
    char *text = prompts_text(NULL);
    check_ok(read_items(&s, text, strlen(text), ITEMS_EXACT_MATCH));
    assert_int_equal(s.items->n_items, N_STARTS);
    for (int64_t limit = 12; limit <= 160; limit += 148) {
        struct texts got = {{0}};
        check_ok(exact_match_texts(s.model, s.items, limit, keep_text, &got));
        assert_int_equal(got.n, N_STARTS);
        for (int i = 0; i < N_STARTS; i++) {
            bool line_ends = false;
            char *want = direct_text(s.model, starts[i], limit, &line_ends);
            assert_string_equal(got.text[i], want);
            assert_true(line_ends ? got.n_tokens[i] <= limit : got.n_tokens[i] == limit);
            cut += line_ends && got.n_tokens[i] < limit;
            free(got.text[i]);
            free(want);
        }
    }
    assert_true(cut >= 3); // some stop at a newline, others at the limit
    assert_true(cut < 2 * N_STARTS);
    free(text);
    setting_close(&s);
}

// A prompt as long as the model's positions leaves room for one token: it is predicted and not read.
static void generation_ends_at_the_last_position(void **state) {
    (void)state;
    struct setting s;
    struct texts got = {{0}};
    setting_open(&s);
    char *text = prompts_text(NULL);
    check_ok(read_items(&s, text, strlen(text), ITEMS_EXACT_MATCH));
    struct transformer_config *config = &s.model->transformer->config;
    int64_t positions = config->max_positions, all = s.items->n_items;
    config->max_positions = s.items->items[0].prompt.n_tokens;
    s.items->n_items = 1;
    check_ok(exact_match_texts(s.model, s.items, 32, keep_text, &got));
    assert_int_equal(got.n_tokens[0], 1);
    config->max_positions = positions;
    s.items->n_items = all;
    free(got.text[0]);
    free(text);
    setting_close(&s);
}

// ---- accuracy ----

static void accuracy_is_counted_in_all_and_per_kind(void **state) {
    (void)state;
    struct item list[5] = {{.kind = 0}, {.kind = 1}, {.kind = 0}, {.kind = -1}, {.kind = 1}};
    char *kinds[2] = {mem_string("a"), mem_string("b")};
    struct items items = {.items = list, .n_items = 5, .kinds = kinds, .n_kinds = 2};
    const bool right[5] = {true, true, false, true, true};
    struct record *record = record_new();
    items_accuracy(&items, right, "accuracy", record);
    items_accuracy_by_kind(&items, right, "accuracy", record);
    const json_t *got = record_json(record);
    check_near(json_number_value(json_object_get(got, "accuracy")), 0.8, 1e-15, 0);
    check_near(json_number_value(json_object_get(got, "accuracy_se")), 0.2, 1e-15, 0); // sqrt(0.8 * 0.2 / 4)
    check_near(json_number_value(json_object_get(got, "accuracy_a")), 0.5, 1e-15, 0);
    check_near(json_number_value(json_object_get(got, "accuracy_b")), 1, 1e-15, 0);
    items.n_items = 1;
    items_accuracy(&items, right, "accuracy", record);
    assert_true(json_number_value(json_object_get(record_json(record), "accuracy_se")) == 0);
    record_free(record);
    free(kinds[0]);
    free(kinds[1]);
}

static json_t *run_eval(struct setting *s, const char *task) {
    json_t *result = NULL, *printed = NULL;
    char *out = mem_format("%s/%s", s->folder, task), *file = mem_format("%s/result.json", out);
    struct process p =
        process_call(program, "eval", "--task", task, "--model", s->path, "--data", s->file, "--out", out, "--quiet");
    if (p.code != 0) print_error("%s", p.err);
    assert_int_equal(p.code, 0);
    assert_string_equal(p.err, "");
    check_ok(json_read_file(file, &result));
    check_ok(json_read_buffer(p.out, (int64_t)strlen(p.out), "stdout", &printed));
    assert_true(json_equal(result, printed));
    assert_string_equal(json_string_value(json_object_get(result, "task")), task);
    json_decref(printed);
    process_free(&p);
    free(out);
    free(file);
    return result;
}

static double number(const json_t *result, const char *key) {
    assert_true(json_is_number(json_object_get(result, key)));
    return json_number_value(json_object_get(result, key));
}

// The gold of all but two items is what the model says.
static void the_program_counts_choices(void **state) {
    (void)state;
    struct setting s;
    static const char *const kinds[N_QUESTIONS] = {"x", "y", "x", "y", "x", "y", "x"};
    int gold[N_QUESTIONS], right_norm = 0;
    double chance = 0;
    setting_open(&s);
    char *text = questions_text(NULL, NULL);
    check_ok(read_items(&s, text, strlen(text), ITEMS_CHOICE));
    for (int i = 0; i < N_QUESTIONS; i++) {
        double scores[4];
        struct choice_question question;
        ask_one(&s, i, scores, &question);
        gold[i] = (int)((question.best + (i < 2)) % question.n_choices);
        right_norm += question.best_norm == gold[i];
        chance += 1.0 / (double)question.n_choices / N_QUESTIONS;
    }
    free(text);
    text = questions_text(gold, kinds);
    files_put(s.file, text, strlen(text));
    json_t *result = run_eval(&s, "multiple-choice");
    assert_true(number(result, "items") == N_QUESTIONS);
    check_near(number(result, "accuracy"), 5 / 7.0, 1e-12, 0);
    check_near(number(result, "accuracy_se"), sqrt(5 / 7.0 * (2 / 7.0) / 6), 1e-12, 0);
    check_near(number(result, "accuracy_x"), 3 / 4.0, 1e-12, 0);
    check_near(number(result, "accuracy_y"), 2 / 3.0, 1e-12, 0);
    check_near(number(result, "accuracy_norm"), right_norm / 7.0, 1e-12, 0);
    check_near(number(result, "chance"), chance, 1e-12, 0);
    char *lines = files_bytes(files_path(s.folder, "multiple-choice/metrics.jsonl"), NULL), *at = lines;
    int n = 0;
    for (; (at = strchr(at, '\n')); at++) n++;
    assert_int_equal(n, N_QUESTIONS);
    assert_non_null(strstr(lines, "\"score_2\""));
    free(lines);
    json_decref(result);
    free(text);
    setting_close(&s);
}

// More items than are asked at once: each line has its own item's scores.
static void every_item_of_many_has_its_own_scores(void **state) {
    (void)state;
    enum { TIMES = 40 };
    static const char *const keys[] = {"score_0", "score_1", "score_2", "score_3"};
    struct setting s;
    double scores[N_QUESTIONS][4];
    setting_open(&s);
    char *text = questions_text(NULL, NULL);
    check_ok(read_items(&s, text, strlen(text), ITEMS_CHOICE));
    for (int i = 0; i < N_QUESTIONS; i++) ask_one(&s, i, scores[i], &(struct choice_question){0});
    FILE *file = fopen(s.file, "w"); // which read_items has made
    for (int k = 0; k < TIMES; k++) fputs(text, file);
    fclose(file);
    json_decref(run_eval(&s, "multiple-choice"));
    char *lines = files_bytes(files_path(s.folder, "multiple-choice/metrics.jsonl"), NULL), *at = lines;
    for (int k = 0; k < TIMES * N_QUESTIONS; k++, at = strchr(at, '\n') + 1) {
        json_t *line = json_loads(at, JSON_DISABLE_EOF_CHECK, NULL);
        assert_true(number(line, "item") == k);
        for (int c = 0; c < n_choices(&questions[k % N_QUESTIONS]); c++)
            check_near(number(line, keys[c]), scores[k % N_QUESTIONS][c], 2e-5, 2e-5);
        json_decref(line);
    }
    assert_int_equal(*at, 0);
    free(lines);
    free(text);
    setting_close(&s);
}

static void the_program_counts_answers(void **state) {
    (void)state;
    struct setting s;
    char *answers[N_STARTS];
    setting_open(&s);
    for (int i = 0; i < N_STARTS; i++) {
        bool cut;
        char *answer = direct_text(s.model, starts[i], 32, &cut);
        answers[i] = i < 5 ? mem_format("%sx", answer) : mem_format(" %s ", answer);
        free(answer);
    }
    char *text = prompts_text(answers);
    files_put(s.file, text, strlen(text));
    json_t *result = run_eval(&s, "exact-match");
    check_near(number(result, "accuracy"), 0.75, 1e-12, 0);
    check_near(number(result, "accuracy_se"), sqrt(0.75 * 0.25 / 19), 1e-12, 0);
    assert_null(json_object_get(result, "accuracy_norm"));
    json_decref(result);
    free(text);
    for (int i = 0; i < N_STARTS; i++) free(answers[i]);
    setting_close(&s);
}

// ---- what is refused ----

#define GOOD "{\"query\": \"a\", \"choices\": [\" b\", \" c\"], \"gold\": 1}\n"

static void broken_items_are_refused_with_their_line(void **state) {
    (void)state;
    static const struct {
        enum items_format format;
        const char *line, *says;
    } cases[] = {
        {ITEMS_CHOICE, "{\"choices\": [\" b\", \" c\"], \"gold\": 1}", "\"query\" is missing"},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"gold\": 1}", "\"choices\" is missing"},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"choices\": [\" b\", \" c\"]}", "\"gold\" is missing"},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"choices\": [\" b\", \" c\"], \"gold\": 2}", "must be 0 to 1"},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"choices\": [\" b\", \" c\"], \"gold\": -1}", "must be 0 to 1"},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"choices\": [\" b\", \" c\"], \"gold\": \"0\"}", "must be an integer"},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"choices\": [], \"gold\": 0}", "\"choices\" has 0 entries"},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"choices\": \" b\", \"gold\": 0}", "must be an array"},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"choices\": [\" b\", 3], \"gold\": 0}", "\"choices\"[1] is an integer"},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"choices\": [\"\", \" c\"], \"gold\": 0}", "\"choices\"[0] is empty"},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"choices\": [\"b\", \" \"], \"gold\": 0}", "\"choices\"[1] is empty"},
        {ITEMS_CHOICE, "{\"query\": 1, \"choices\": [\" b\", \" c\"], \"gold\": 0}", "must be a string"},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 0, \"kind\": 1}", "\"kind\""},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 0, \"kind\": \"a b\"}", "\"kind\""},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 0, \"kind\": \"se\"}", "\"kind\""},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"choices\": [\"b\", ", "not valid JSON"},
        {ITEMS_CHOICE, "[1, 2]", "an object"},
        {ITEMS_CHOICE, "hello", "not valid JSON"},
        {ITEMS_CHOICE, "{\"query\": \"a\xff\", \"choices\": [\" b\", \" c\"], \"gold\": 0}", "not valid JSON"},
        {ITEMS_CHOICE, "{\"query\": \"a\", \"query\": \"b\", \"choices\": [\" b\", \" c\"], \"gold\": 0}", "duplicate"},
        {ITEMS_EXACT_MATCH, "{\"prompt\": \"a\"}", "\"answer\" is missing"},
        {ITEMS_EXACT_MATCH, "{\"answer\": \"a\"}", "\"prompt\" is missing"},
        {ITEMS_EXACT_MATCH, "{\"prompt\": \"a\", \"answer\": \" \"}", "\"answer\" is empty"},
        {ITEMS_EXACT_MATCH, "{\"prompt\": \"a\", \"answer\": \"b\\nc\"}", "two lines"},
        {ITEMS_EXACT_MATCH, "{\"prompt\": \"a\", \"answer\": \"b\\u0000\"}", "not valid JSON"},
        {ITEMS_EXACT_MATCH, "\xff\xfe", "not valid JSON"},
    };
    struct setting s;
    setting_open(&s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *before = cases[i].format == ITEMS_CHOICE ? GOOD : "{\"prompt\": \"a\", \"answer\": \"b\"}\n";
        char *text = mem_format("%s \n%s", before, cases[i].line);
        check_fails(read_items(&s, text, strlen(text), cases[i].format), STATUS_FORMAT);
        if (!strstr(status_message(), cases[i].says) || !strstr(status_message(), "items.jsonl:3: "))
            print_error("case %zu: %s\n", i, status_message());
        assert_non_null(strstr(status_message(), cases[i].says));
        assert_non_null(strstr(status_message(), "items.jsonl:3: "));
        free(text);
    }
    check_fails(read_items(&s, "\n \n", 3, ITEMS_CHOICE), STATUS_FORMAT);
    check_fails(read_items(&s, "", 0, ITEMS_CHOICE), STATUS_FORMAT);
    setting_close(&s);
}

static void items_longer_than_the_positions_are_refused(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s);
    char *many = mem_new(20001, 1);
    memset(many, 'z', 20000);
    char *choice = mem_format(GOOD "{\"query\": \"%s\", \"choices\": [\" b\", \" c\"], \"gold\": 1}", many);
    char *prompt = mem_format("{\"prompt\": \"%s\", \"answer\": \"b\"}", many);
    check_fails(read_items(&s, choice, strlen(choice), ITEMS_CHOICE), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "items.jsonl:2: "));
    assert_non_null(strstr(status_message(), "positions"));
    check_fails(read_items(&s, prompt, strlen(prompt), ITEMS_EXACT_MATCH), STATUS_INVALID);
    // Items behind the limit are not looked at.
    struct items_options how = {.format = ITEMS_CHOICE, .model = s.model, .limit = 1};
    files_put(s.file, choice, strlen(choice));
    check_ok(items_read(s.file, &how, &s.items));
    assert_int_equal(s.items->n_items, 1);
    free(many);
    free(choice);
    free(prompt);
    setting_close(&s);
}

static void the_program_says_what_is_wrong(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s);
    files_put(s.file, GOOD "{}", strlen(GOOD) + 2);
    process_check_error(process_call(program, "eval", "-t", "multiple-choice", "-m", s.path, "-d", s.file, "--quiet"),
                        1, "items.jsonl:2: \"query\" is missing");
    process_check_error(process_call(program, "eval", "-t", "exact-match", "-m", s.path, "-d", s.file, "--quiet"), 1,
                        "items.jsonl:1: \"prompt\" is missing");
    process_check_error(process_call(program, "eval", "-t", "exact-match", "-m", s.path, "-d", "none.jsonl", "--quiet"),
                        1, "none.jsonl");
    process_check_error(process_call(program, "eval", "-t", "riddles", "-m", s.path, "-d", s.file), 2, "--task");
    process_check_error(process_call(program, "eval", "-t", "multiple-choice", "-m", s.path, "-d", s.file, "-T", "64"),
                        2, "--seq-len");
    process_check_error(process_call(program, "eval", "-m", s.path, "-d", s.file, "--items", "3"), 2, "--items");
    process_check_error(
        process_call(program, "eval", "-t", "multiple-choice", "-m", s.path, "-d", s.file, "--tokens", "3"), 2,
        "--tokens");
    setting_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_those_of_whole_sequences),
        cmocka_unit_test(threads_do_not_change_scores),
        cmocka_unit_test(a_choice_is_what_follows_the_query),
        cmocka_unit_test(the_first_of_equal_choices_is_taken),
        cmocka_unit_test(texts_are_those_of_generate),
        cmocka_unit_test(generation_ends_at_the_last_position),
        cmocka_unit_test(accuracy_is_counted_in_all_and_per_kind),
        cmocka_unit_test(the_program_counts_choices),
        cmocka_unit_test(every_item_of_many_has_its_own_scores),
        cmocka_unit_test(the_program_counts_answers),
        cmocka_unit_test(broken_items_are_refused_with_their_line),
        cmocka_unit_test(items_longer_than_the_positions_are_refused),
        cmocka_unit_test(the_program_says_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
