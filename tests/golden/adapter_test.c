// Adapter folders against PEFT: its own files and logits (make_adapters.py); what we write is read back.
#include "tests/files.h"

#include "core/base/threads.h"
#include "data/adapter.h"
#include "data/json.h"
#include "data/model_folder.h"

static const struct {
    const char *name, *model;
    int64_t n_weights;
} cases[] = {{"llama_some", "llama_gqa2_tied", 12},
             {"llama_all", "llama_headdim_sharded", 28},
             {"llama_one_layer", "llama_mha", 4},
             {"phi3_fused", "phi3_window", 16}};
enum { CASES = sizeof cases / sizeof *cases };

struct golden {
    struct backend *backend;
    struct step *step;
    struct model_folder *folder;
    struct transformer *model;
    struct lora *lora;
    struct safetensors *file;
    int64_t n, seq_len; // logits; tokens of a sequence
    char *adapter;      // folder
};

static void golden_open(struct golden *g, int k) {
    *g = (struct golden){0};
    threads_set(2);
    char *model = mem_format("tests/golden/models/%s", cases[k].model), path[4096];
    char *adapter = mem_format("tests/golden/adapters/%s", cases[k].name);
    g->adapter = mem_string(check_source(adapter, path, sizeof path));
    check_ok(model_folder_open(check_source(model, path, sizeof path), &g->folder));
    check_ok(safetensors_open(files_path(g->adapter, "golden.safetensors"), &g->file));
    check_ok(backend_open("cpu", &g->backend));
    check_ok(step_new(g->backend, &g->step));
    check_ok(transformer_new(g->backend, model_folder_config(g->folder), DTYPE_F32, model_folder_source(g->folder),
                             &g->model));
    const struct safetensors_tensor *logits = safetensors_find(g->file, "logits");
    g->n = logits->n_elements;
    g->seq_len = logits->shape[1];
    free(model);
    free(adapter);
}

static void golden_close(struct golden *g) {
    lora_free(g->lora);
    transformer_free(g->model);
    step_free(g->step);
    backend_close(g->backend);
    safetensors_free(g->file);
    model_folder_free(g->folder);
    free(g->adapter);
}

static float *logits_of(struct golden *g) {
    const struct safetensors_tensor *tokens = safetensors_find(g->file, "tokens");
    struct value *hidden = NULL;
    int32_t *copy = mem_new((size_t)tokens->n_elements, sizeof *copy);
    float *logits = mem_new((size_t)g->n, sizeof *logits);
    memcpy(copy, tokens->data, (size_t)tokens->n_bytes);
    step_begin(g->step, (struct step_options){.seq_len = g->seq_len});
    check_ok(transformer_forward(g->model, g->step, view_new(copy, DTYPE_I32, tokens->n_elements, 1), &hidden));
    check_ok(transformer_logits(g->model, g->step, hidden->data,
                                view_new(logits, DTYPE_F32, tokens->n_elements, g->model->config.vocab)));
    free(copy);
    return logits;
}

static void check_logits(struct golden *g, const char *name) {
    float *got = logits_of(g), *want = mem_new((size_t)g->n, sizeof *want);
    check_ok(safetensors_to_float(g->file, safetensors_find(g->file, name), want));
    check_all_near(got, want, g->n, 0, 1e-4);
    free(got);
    free(want);
}

static void adapters_of_peft_give_its_logits(void **state) {
    (void)state;
    for (int k = 0; k < CASES; k++) {
        struct golden g;
        golden_open(&g, k);
        check_logits(&g, "base");
        check_ok(adapter_open(g.adapter, g.model, &g.lora));
        assert_int_equal(g.lora->n_weights, cases[k].n_weights);
        check_logits(&g, "logits");
        golden_close(&g);
    }
}

static void merging_gives_the_logits_of_peft_s_merge(void **state) {
    (void)state;
    for (int k = 0; k < CASES; k++) {
        struct golden g;
        golden_open(&g, k);
        check_ok(adapter_open(g.adapter, g.model, &g.lora));
        for (int64_t i = 0; i < g.model->n_weights; i++)
            check_ok(lora_merge(g.lora, &g.model->weights[i], g.model->weights[i].stored.data));
        lora_free(g.lora);
        g.lora = NULL;
        check_logits(&g, "merged");
        golden_close(&g);
    }
}

// Tensors with PEFT's names and values; the configuration leads to the same factor.
static void what_is_written_is_what_peft_wrote(void **state) {
    (void)state;
    for (int k = 0; k < CASES; k++) {
        struct golden g;
        struct safetensors *ours = NULL, *theirs = NULL;
        struct lora *again = NULL;
        char *folder = files_folder(), *out = mem_format("%s/adapter", folder);
        golden_open(&g, k);
        check_ok(adapter_open(g.adapter, g.model, &g.lora));
        check_ok(adapter_save(g.lora, "base", out));
        check_ok(adapter_save(g.lora, "base", out)); // over one that is there
        check_ok(safetensors_open(files_path(out, "adapter_model.safetensors"), &ours));
        check_ok(safetensors_open(files_path(g.adapter, "adapter_model.safetensors"), &theirs));
        assert_int_equal(safetensors_n_tensors(ours), safetensors_n_tensors(theirs));
        for (int64_t i = 0; i < safetensors_n_tensors(theirs); i++) {
            const struct safetensors_tensor *want = safetensors_at(theirs, i);
            const struct safetensors_tensor *got = safetensors_find(ours, want->name);
            if (!got) fail_msg("no tensor %s", want->name);
            // B went through a factor and back.
            check_all_near((const float *)(const void *)got->data, (const float *)(const void *)want->data,
                           want->n_elements, 2e-7, 0);
        }
        float *want = logits_of(&g);
        lora_free(g.lora);
        g.lora = NULL;
        check_ok(adapter_open(out, g.model, &again));
        g.lora = again;
        float *got = logits_of(&g);
        check_all_near(got, want, g.n, 1e-5, 1e-5);
        free(want);
        free(got);
        safetensors_free(ours);
        safetensors_free(theirs);
        golden_close(&g);
        free(out);
        files_remove(folder);
    }
}

// Kinds of matrices where all layers have them, modules where only some do: PEFT attaches to what is listed.
static void targets_are_listed_as_peft_needs_them(void **state) {
    (void)state;
    const char *const want[CASES][2] = {{"q_proj", "layers.0"},
                                        {"gate_proj", "layers.0"},
                                        {"model.layers.1.self_attn.o_proj", "layers.0"},
                                        {"qkv_proj", "q_proj\""}};
    for (int k = 0; k < CASES; k++) {
        struct golden g;
        char *folder = files_folder(), *out = mem_format("%s/adapter", folder);
        golden_open(&g, k);
        check_ok(adapter_open(g.adapter, g.model, &g.lora));
        check_ok(adapter_save(g.lora, "base", out));
        char *text = files_bytes(files_path(out, "adapter_config.json"), NULL);
        assert_non_null(strstr(text, want[k][0]));
        assert_null(strstr(text, want[k][1]));
        free(text);
        golden_close(&g);
        free(out);
        files_remove(folder);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapters_of_peft_give_its_logits),
        cmocka_unit_test(merging_gives_the_logits_of_peft_s_merge),
        cmocka_unit_test(what_is_written_is_what_peft_wrote),
        cmocka_unit_test(targets_are_listed_as_peft_needs_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
