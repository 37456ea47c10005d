// Many texts behind key/value caches, scored and continued, against one text at a time: small models of every architecture, among
// them longrope, whose factors depend on a text's length.
#include "tests/check.h"

#include "bench/scorer.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/nn/generate.h"

static const char *const names[] = {"llama_gqa2_tied",     "llama_llama3",       "phi3_window",
                                    "phi3_longrope_short", "phi3_longrope_long", "phi3_longrope_f16"};
enum { MODELS = sizeof names / sizeof *names, LONGEST = 60 };

static void model_begin(struct model *model, const char *name) {
    char root[4096];
    char *path = mem_format("%s/%s", check_source("tests/golden/models", root, sizeof root), name);
    *model = (struct model){0};
    check_ok(model_folder_open(path, &model->folder));
    check_ok(backend_open("cpu", &model->backend));
    check_ok(step_new(model->backend, &model->step));
    check_ok(transformer_new(model->backend, model_folder_config(model->folder), DTYPE_F32,
                             model_folder_source(model->folder), &model->transformer));
    model->transformer->config.n_eos = 0;
    free(path);
}

static void model_end(struct model *model) {
    transformer_free(model->transformer);
    step_free(model->step);
    backend_close(model->backend);
    model_folder_free(model->folder);
}

struct texts {
    int32_t tokens[LONGEST];
    uint64_t at;
};

static int64_t draw(struct texts *texts, int64_t n) {
    return (int64_t)((double)n * rng_uniform((struct rng){.seed = 3, .stream = RNG_TEST}, texts->at++));
}

// The next text has a random part of the last one and goes on otherwise; n tokens of it.
static int32_t *next_text(struct texts *texts, const struct model *model, int64_t n) {
    for (int64_t t = draw(texts, 4) ? draw(texts, LONGEST) : LONGEST; t < LONGEST; t++)
        texts->tokens[t] = (int32_t)draw(texts, model->transformer->config.vocab);
    int32_t *copy = mem_new((size_t)n, sizeof *copy);
    memcpy(copy, texts->tokens, (size_t)n * sizeof *copy);
    return copy;
}

static double whole_pass(struct model *model, const struct scored_text *text) {
    int64_t n = text->n - 1;
    double losses[LONGEST], sum = 0;
    struct value *hidden = NULL;
    int32_t *tokens = (int32_t *)text->tokens;
    step_begin(model->step, (struct step_options){.seq_len = n});
    check_ok(transformer_forward(model->transformer, model->step, view_new(tokens, DTYPE_I32, n, 1), &hidden));
    struct transformer_loss what = {.targets = view_new(tokens + 1, DTYPE_I32, n, 1),
                                    .cross_entropy = view_new(losses, DTYPE_F64, n, 1)};
    check_ok(transformer_loss(model->transformer, model->step, hidden, &what));
    for (int64_t t = text->first; t <= n; t++) sum -= losses[t - 1];
    return sum;
}

// The last call has more tokens than one pass.
static void texts_scored_together_score_as_whole_passes(void **state) {
    (void)state;
    static const int64_t counts[] = {1, 17, 5, 150};
    for (int k = 0; k < MODELS; k++) {
        struct model model;
        struct scorer *scorer = NULL;
        struct texts draws = {.at = (uint64_t)k << 32};
        model_begin(&model, names[k]);
        check_ok(scorer_new(&model, &scorer));
        for (int call = 0; call < 4; call++) {
            struct scored_text texts[150];
            int64_t n_read = 0;
            for (int64_t i = 0; i < counts[call]; i++) {
                struct scored_text *text = &texts[i];
                text->n = i % 5 ? 2 + draw(&draws, LONGEST - 1) : 2 + draw(&draws, 3);
                text->first = draw(&draws, 2) ? text->n - 1 : 1 + draw(&draws, text->n - 1);
                text->tokens = next_text(&draws, &model, text->n);
                n_read += text->n - 1;
            }
            if (call == 3) assert_true(n_read > transformer_pass_tokens(model.transformer));
            check_ok(scorer_loglikelihoods(scorer, texts, counts[call]));
            for (int64_t i = 0; i < counts[call]; i++) {
                // fp32: products with other numbers of rows round differently.
                check_near(texts[i].loglikelihood, whole_pass(&model, &texts[i]), 2e-5, 1e-5);
                free((int32_t *)texts[i].tokens);
            }
        }
        scorer_free(scorer);
        model_end(&model);
    }
}

struct ended {
    const struct continuation *texts;
    int64_t n, last; // that ended; the newest of them
    bool in_order;
};

// Texts end at a token that three divides, or with their number.
static enum status ends_at_threes(void *context, int64_t i, bool *ends) {
    struct ended *ended = context;
    const struct continuation *text = &ended->texts[i];
    *ends = text->tokens[text->n_prompt + text->made - 1] % 3 == 0;
    if (*ends || text->made == text->most) {
        ended->in_order = ended->in_order && i > ended->last;
        ended->last = i;
        ended->n++;
    }
    return STATUS_OK;
}

static void texts_continued_together_are_those_continued_alone(void **state) {
    (void)state;
    enum { TEXTS = 14, MOST = 25 };
    static const int64_t slots[] = {1, 3, 0};
    bool any_out_of_order = false;
    for (int k = 0; k < MODELS; k++) {
        struct model model;
        struct texts draws = {.at = (uint64_t)(100 + k) << 32};
        struct continuation texts[TEXTS];
        int32_t *want[TEXTS];
        int64_t n_want[TEXTS], positions;
        model_begin(&model, names[k]);
        positions = model.transformer->config.max_positions;
        for (int64_t i = 0; i < TEXTS; i++) {
            struct continuation *text = &texts[i];
            text->n_prompt = 1 + draw(&draws, LONGEST - MOST);
            text->most = i == 2 ? positions + 1 - text->n_prompt : 1 + draw(&draws, MOST);
            text->tokens = next_text(&draws, &model, text->n_prompt);
            text->tokens = mem_resize(text->tokens, (size_t)(text->n_prompt + text->most), sizeof *text->tokens);
            want[i] = mem_new((size_t)text->most, sizeof *want[i]);
            check_ok(
                generate(model.transformer, model.step, text->tokens, text->n_prompt, text->most, want[i], &n_want[i]));
            assert_int_equal(n_want[i], text->most);
            for (n_want[i] = 1; n_want[i] < text->most && want[i][n_want[i] - 1] % 3;) n_want[i]++;
        }
        for (int s = 0; s < 3; s++) {
            struct ended ended = {.texts = texts, .last = -1, .in_order = true};
            struct generate_options options = {.slots = slots[s], .check = ends_at_threes, .context = &ended};
            check_ok(generate_texts(model.transformer, model.step, texts, TEXTS, &options));
            assert_int_equal(ended.n, TEXTS);
            if (slots[s] == 1) assert_true(ended.in_order);
            any_out_of_order = any_out_of_order || !ended.in_order;
            for (int i = 0; i < TEXTS; i++) {
                assert_int_equal(texts[i].made, n_want[i]);
                assert_memory_equal(texts[i].tokens + texts[i].n_prompt, want[i], (size_t)n_want[i] * sizeof *want[i]);
            }
        }
        for (int i = 0; i < TEXTS; i++) {
            free(texts[i].tokens);
            free(want[i]);
        }
        model_end(&model);
    }
    assert_true(any_out_of_order);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_scored_together_score_as_whole_passes),
        cmocka_unit_test(texts_continued_together_are_those_continued_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
