// Training from nothing: the optimizer step, and whole runs on a language whose entropy is known.
#include "tests/files.h"

#include "core/base/progress.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/evaluate.h"
#include "data/documents.h"
#include "data/json.h"
#include "data/model.h"
#include "data/pretrain.h"
#include "data/whole_file.h"

// ---- the step ----

enum { BATCH = 4, SEQ_LEN = 16, VOCAB = 40 };

struct setting {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    struct trainer *trainer;
};

static enum status setting_try(struct setting *s, const struct trainer_options *options) {
    enum status status = STATUS_OK;
    const struct transformer_config config = {.architecture = ARCHITECTURE_LLAMA,
                                              .hidden = 32,
                                              .intermediate = 44,
                                              .layers = 2,
                                              .heads = 4,
                                              .kv_heads = 2,
                                              .head_dim = 8,
                                              .vocab = VOCAB,
                                              .max_positions = SEQ_LEN,
                                              .rms_eps = 1e-5,
                                              .rope = {.theta = 100},
                                              .bos = -1};
    const struct trainer_start start = {.seed = 5, .config = &config};
    TRY(transformer_new(s->backend, &config, DTYPE_F32, trainer_start(&start), &s->model));
    TRY(trainer_new(s->model, s->step, options, &s->trainer));
done:
    return status;
}

static void setting_open(struct setting *s) {
    *s = (struct setting){0};
    check_ok(backend_open("cpu", &s->backend));
    check_ok(step_new(s->backend, &s->step));
}

static void setting_close(struct setting *s) {
    trainer_free(s->trainer);
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

static const struct trainer_options defaults = {
    .steps = 20, .warmup = 4, .batch = BATCH, .seq_len = SEQ_LEN, .rate = 1e-3, .decay = 0.1, .clip = 0.01};

static void draw_tokens(int64_t step, int32_t *tokens) {
    struct rng rng = {.seed = 2, .stream = RNG_TEST + (uint64_t)step};
    for (int k = 0; k < BATCH * SEQ_LEN; k++) tokens[k] = (int32_t)(rng_bits(rng, (uint64_t)k) % VOCAB);
}

// Of the gradient that the first update took: the first moment is 1 - beta1 of it.
static double first_gradient_norm(const struct trainer *trainer) {
    double squares = 0;
    for (int64_t i = 0; i < trainer->model->n_weights; i++)
        for (int64_t k = 0; k < view_count(trainer->adamw->m[i]); k++) {
            double g = 10 * (double)((const float *)trainer->adamw->m[i].data)[k];
            squares += g * g;
        }
    return sqrt(squares);
}

static void the_gradient_of_all_weights_is_clipped_together(void **state) {
    (void)state;
    for (int clips = 0; clips < 2; clips++) {
        struct setting s;
        struct trainer_options options = defaults;
        int32_t tokens[BATCH * SEQ_LEN];
        double loss = 0;
        options.clip = clips ? 0.01 : 0;
        setting_open(&s);
        check_ok(setting_try(&s, &options));
        draw_tokens(0, tokens);
        check_ok(trainer_step(s.trainer, tokens, &loss));
        check_near(loss, log(VOCAB), 0.02, 0); // small weights in the head: nearly uniform
        assert_true(s.trainer->norm > 0.02);
        check_near(first_gradient_norm(s.trainer), clips ? 0.01 : s.trainer->norm, 1e-5, 0);
        setting_close(&s);
    }
}

// The loss with which the gradient was taken falls along it as the norm says: f(w - h g) = f(w) - h |g|^2 + O(h^2).
static void the_gradient_is_that_of_the_mean_loss(void **state) {
    (void)state;
    struct setting s;
    struct trainer_options options = defaults;
    int32_t tokens[BATCH * SEQ_LEN];
    double before = 0, after = 0, h = 1e-3;
    options.clip = options.rate = options.decay = 0;
    setting_open(&s);
    check_ok(setting_try(&s, &options));
    draw_tokens(0, tokens);
    check_ok(trainer_step(s.trainer, tokens, &before));
    double norm = s.trainer->norm;
    for (int64_t i = 0; i < s.model->n_weights; i++) {
        float *w = s.model->weights[i].stored.data;
        const float *g = s.model->weights[i].grad.data;
        for (int64_t k = 0; k < view_count(s.model->weights[i].stored); k++) w[k] -= (float)h * g[k];
    }
    check_ok(trainer_step(s.trainer, tokens, &after));
    check_near((before - after) / (h * norm * norm), 1, 0.02, 0);
    setting_close(&s);
}

static void the_rate_warms_up_and_ends_at_a_tenth(void **state) {
    (void)state;
    struct trainer_options o = {.steps = 100, .warmup = 10, .rate = 2};
    check_near(trainer_rate(&o, 0), 0.2, 1e-12, 0);
    check_near(trainer_rate(&o, 9), 2, 1e-12, 0);
    check_near(trainer_rate(&o, 10), 2, 1e-12, 0);
    check_near(trainer_rate(&o, 55), 1.1, 1e-12, 0);
    check_near(trainer_rate(&o, 100), 0.2, 1e-12, 0);
}

static void a_training_that_diverges_is_an_error(void **state) {
    (void)state;
    struct setting s;
    struct trainer_options options = defaults;
    int32_t tokens[BATCH * SEQ_LEN];
    enum status status = STATUS_OK;
    double loss = 0;
    options.rate = 1e38;
    setting_open(&s);
    check_ok(setting_try(&s, &options));
    for (int i = 0; i < 4 && status == STATUS_OK; i++) {
        draw_tokens(i, tokens);
        status = trainer_step(s.trainer, tokens, &loss);
    }
    assert_int_equal(status, STATUS_INVALID);
    assert_non_null(strstr(status_message(), "--lr"));
    setting_close(&s);
}

static void the_plan_is_what_a_step_takes(void **state) {
    (void)state;
    struct setting s;
    int32_t tokens[BATCH * SEQ_LEN];
    double loss = 0;
    setting_open(&s);
    check_ok(setting_try(&s, &defaults));
    int64_t before = mem_buffer_bytes();
    step_peak_reset(s.step);
    draw_tokens(0, tokens);
    check_ok(trainer_step(s.trainer, tokens, &loss));
    assert_int_equal(step_peak_bytes(s.step), s.trainer->activation_bytes);
    assert_int_equal(mem_buffer_bytes(), before);
    setting_close(&s);
}

static void every_allocation_of_a_step_may_fail(void **state) {
    (void)state;
    int64_t k = 0;
    for (bool failed = true; failed; k++) {
        struct setting s;
        enum status status = STATUS_OK;
        int64_t before = mem_buffer_bytes();
        int32_t tokens[BATCH * SEQ_LEN] = {0};
        double loss;
        setting_open(&s);
        mem_fail_at(k);
        TRY(setting_try(&s, &defaults));
        TRY(trainer_step(s.trainer, tokens, &loss));
    done:
        mem_fail_at(-1);
        failed = status != STATUS_OK;
        if (failed) assert_int_equal(status, STATUS_NO_MEMORY);
        setting_close(&s);
        assert_int_equal(mem_buffer_bytes(), before);
    }
    assert_true(k > 50);
}

// ---- whole runs ----

// Documents "the name of the NOUN is NAME", one of four names at random: ln 4 nats each.
struct text {
    char *folder, *train, *valid;
};

static void text_write(const char *path, uint64_t stream, int n) {
    static const char *const names[] = {"kim", "lou", "max", "ned"};
    struct rng rng = {.seed = 3, .stream = RNG_TEST + stream};
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < n; i++)
        fprintf(file, "the name is %s\n%s", names[rng_bits(rng, (uint64_t)i) % 4], i % 3 ? "\n" : " \n\n");
    fclose(file);
}

static void text_open(struct text *text) {
    text->folder = files_folder();
    text->train = mem_format("%s/train.txt", text->folder);
    text->valid = mem_format("%s/valid.txt", text->folder);
    text_write(text->train, 0, 1000);
    text_write(text->valid, 1, 400);
    progress_set_quiet(true);
}

static void text_close(struct text *text) {
    files_remove(text->folder);
    free(text->train);
    free(text->valid);
}

static enum status run(const struct text *text, const char *name, bool resume, int64_t steps, enum dtype dtype) {
    const struct pretrain_settings settings = {
        .corpus = {text->train},
        .n_corpus = 1,
        .validation = text->valid,
        .vocab_size = 300,
        .hidden = 32,
        .intermediate = 64,
        .layers = 2,
        .heads = 2,
        .kv_heads = 1,
        .tied = true,
        .dtype = dtype,
        .trainer = {.steps = steps, .warmup = 5, .batch = 8, .seq_len = 24, .rate = 1e-2, .decay = 0.1, .clip = 1},
        .report_every = 4,
        .checkpoint_every = 3};
    struct program_common common = {.name = "discquant-data pretrain",
                                    .command_line = "discquant-data pretrain …",
                                    .seed = 7,
                                    .device = "cpu",
                                    .out = files_path(text->folder, name),
                                    .quiet = true,
                                    .resume = resume};
    return pretrain(&common, &settings);
}

static double result_of(const struct text *text, const char *name, const char *key) {
    char *path = mem_format("%s/%s/result.json", text->folder, name);
    json_t *root = NULL;
    double value = 0;
    check_ok(json_read_file(path, &root));
    check_ok(json_get_number(root, path, key, &value));
    json_decref(root);
    free(path);
    return value;
}

static void check_same_file(const struct text *text, const char *a, const char *b, const char *name) {
    size_t n_a, n_b;
    char *path_a = mem_format("%s/%s/%s", text->folder, a, name),
         *path_b = mem_format("%s/%s/%s", text->folder, b, name);
    char *bytes_a = files_bytes(path_a, &n_a), *bytes_b = files_bytes(path_b, &n_b);
    assert_non_null(bytes_a);
    assert_non_null(bytes_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(bytes_a, bytes_b, n_a);
    free(bytes_a);
    free(bytes_b);
    free(path_a);
    free(path_b);
}

// Only the names are free. A window of 24 tokens has 23 predictions; tokens per document follow from the run.
static void a_model_learns_all_there_is_to_learn(void **state) {
    (void)state;
    struct text text;
    text_open(&text);
    check_ok(run(&text, "run", false, 150, DTYPE_F32));
    double per_document = result_of(&text, "run", "corpus_tokens") / result_of(&text, "run", "corpus_documents");
    double best = log(4) / per_document;
    check_near(result_of(&text, "run", "loss_validation"), best, 0.15, 0);
    check_near(result_of(&text, "run", "nats_per_document"), log(4), 0.15, 0);
    assert_int_equal((int)result_of(&text, "run", "corpus_documents"), 1000);
    text_close(&text);
}

static void the_saved_folder_has_the_recorded_loss(void **state) {
    (void)state;
    for (int half = 0; half < 2; half++) {
        struct text text;
        struct model *model = NULL;
        struct document_stream stream = {0};
        struct evaluation *e = NULL;
        text_open(&text);
        check_ok(run(&text, "run", false, 8, half ? DTYPE_BF16 : DTYPE_F32));
        check_ok(model_open(files_path(text.folder, "run/model"), "cpu", DTYPE_F32, NULL, &model));
        for (int64_t i = 0; i < model->transformer->n_weights; i++)
            assert_int_equal(model->transformer->weights[i].file_dtype, half ? DTYPE_BF16 : DTYPE_F32);
        check_ok(documents_encode(model->tokenizer, (const char *const *)&text.valid, 1, &stream));
        check_ok(evaluate(model->transformer, model->step, stream.tokens, stream.n_tokens / 24, 24,
                          &(struct evaluate_options){.form = WEIGHT_STORED}, &e));
        check_near(evaluation_mean(e, e->loss, NULL), result_of(&text, "run", "loss_validation"), 1e-15, 0);
        assert_true(files_has(text.folder, "run/model/README.md"));
        evaluation_free(e);
        document_stream_free(&stream);
        model_free(model);
        text_close(&text);
    }
}

// A run is stopped where the k-th system call that writes fails, until one gets through.
static void a_stopped_run_resumes_to_the_same_bits(void **state) {
    (void)state;
    struct text text;
    text_open(&text);
    check_ok(run(&text, "whole", false, 14, DTYPE_F32));
    int stops = 0;
    for (int64_t k = 12; k < 90; k += 13) {
        bool again = files_has(text.folder, "stopped/run.json");
        whole_file_fail_at(k);
        enum status status = run(&text, "stopped", again, 14, DTYPE_F32);
        whole_file_fail_at(-1);
        if (status == STATUS_OK) break;
        stops++;
        assert_int_equal(status, STATUS_IO);
    }
    assert_true(stops > 1);
    check_ok(run(&text, "stopped", true, 14, DTYPE_F32));
    check_same_file(&text, "whole", "stopped", "model/model.safetensors");
    check_same_file(&text, "whole", "stopped", "model/tokenizer.json");
    assert_true(result_of(&text, "whole", "loss_training") == result_of(&text, "stopped", "loss_training"));
    text_close(&text);
}

static void threads_do_not_change_the_bits(void **state) {
    (void)state;
    struct text text;
    text_open(&text);
    threads_set(1);
    check_ok(run(&text, "one", false, 8, DTYPE_F32));
    threads_set(3);
    check_ok(run(&text, "three", false, 8, DTYPE_F32));
    threads_set(0);
    check_same_file(&text, "one", "three", "model/model.safetensors");
    text_close(&text);
}

static void a_text_too_short_is_refused(void **state) {
    (void)state;
    struct text text;
    text_open(&text);
    files_put(text.valid, " \n\n\t\n", 5);
    check_fails(run(&text, "blank", false, 2, DTYPE_F32), STATUS_FORMAT);
    files_put(text.valid, "the name\n", 9);
    check_fails(run(&text, "short", false, 2, DTYPE_F32), STATUS_INVALID);
    files_put(text.train, "a\xFF", 2);
    check_fails(run(&text, "bytes", false, 2, DTYPE_F32), STATUS_FORMAT);
    text_close(&text);
}

static void the_program_says_what_is_wrong(void **state) {
    (void)state;
    const char *program = "data/discquant-data";
    process_check_error(process_call(program, "pretrain", "--out", "x", "--validation", "y"), 2, "--corpus");
    process_check_error(
        process_call(program, "pretrain", "--out", "x", "--validation", "y", "--corpus", "z", "--heads", "3"), 2,
        "--hidden");
    process_check_error(process_call(program, "pretrain", "--out", "x", "--vocab-size", "259"), 2, "--vocab-size");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_gradient_of_all_weights_is_clipped_together),
        cmocka_unit_test(the_gradient_is_that_of_the_mean_loss),
        cmocka_unit_test(the_rate_warms_up_and_ends_at_a_tenth),
        cmocka_unit_test(a_training_that_diverges_is_an_error),
        cmocka_unit_test(the_plan_is_what_a_step_takes),
        cmocka_unit_test(every_allocation_of_a_step_may_fail),
        cmocka_unit_test(a_model_learns_all_there_is_to_learn),
        cmocka_unit_test(the_saved_folder_has_the_recorded_loss),
        cmocka_unit_test(a_stopped_run_resumes_to_the_same_bits),
        cmocka_unit_test(threads_do_not_change_the_bits),
        cmocka_unit_test(a_text_too_short_is_refused),
        cmocka_unit_test(the_program_says_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
