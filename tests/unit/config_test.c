#include "tests/check.h"

#include "core/base/mem.h"
#include "data/config.h"

static struct transformer_config parsed(const char *text) {
    struct transformer_config config;
    check_ok(config_read_buffer(text, (int64_t)strlen(text), "config.json", &config));
    return config;
}

#define SIZES                                                                                                          \
    "\"hidden_size\":64,\"intermediate_size\":172,\"num_hidden_layers\":5,\"num_attention_heads\":8,\"vocab_size\":"   \
    "512,"                                                                                                             \
    "\"rms_norm_eps\":1e-05"
#define LLAMA "{\"model_type\":\"llama\"," SIZES ",\"max_position_embeddings\":131072"
#define PHI3                                                                                                           \
    "{\"model_type\":\"phi3\"," SIZES ",\"max_position_embeddings\":131072,\"original_max_position_embeddings\":4096"
#define FACTORS "\"long_factor\":[1,2,3.5,64.25],\"short_factor\":[1,1.1,1.25,1.5]"

static void defaults_are_those_of_transformers(void **state) {
    (void)state;
    struct transformer_config config = parsed(LLAMA "}");
    assert_int_equal(config.architecture, ARCHITECTURE_LLAMA);
    assert_int_equal(config.layers, 5);
    assert_int_equal(config.kv_heads, 8);
    assert_int_equal(config.head_dim, 8);
    assert_int_equal(config.window, 0);
    assert_false(config.tied);
    assert_int_equal(config.rope.kind, ROPE_DEFAULT);
    check_near(config.rope.theta, 10000, 0, 0);
    check_near(config.rms_eps, 1e-5, 0, 0);
    assert_int_equal(config.bos, 1);
    assert_int_equal(config.n_eos, 1);
    assert_int_equal(config.eos[0], 2);
    config = parsed(PHI3 "}");
    assert_int_equal(config.eos[0], 32000);
    config = parsed(LLAMA ",\"head_dim\":16,\"num_key_value_heads\":2,\"tie_word_embeddings\":true}");
    assert_int_equal(config.head_dim, 16);
    assert_int_equal(config.kv_heads, 2);
    assert_true(config.tied);
    config =
        parsed(LLAMA ",\"head_dim\":null,\"num_key_value_heads\":null,\"rope_scaling\":null,\"sliding_window\":4}");
    assert_int_equal(config.head_dim, 8);
    assert_int_equal(config.kv_heads, 8);
    assert_int_equal(config.window, 0);
}

static void end_tokens_may_be_one_several_or_none(void **state) {
    (void)state;
    struct transformer_config config =
        parsed(LLAMA ",\"bos_token_id\":128000,\"eos_token_id\":[128001,128008,128009]}");
    assert_int_equal(config.bos, 128000);
    assert_int_equal(config.n_eos, 3);
    assert_int_equal(config.eos[2], 128009);
    config = parsed(LLAMA ",\"bos_token_id\":null,\"eos_token_id\":null}");
    assert_int_equal(config.bos, -1);
    assert_int_equal(config.n_eos, 0);
    assert_int_equal(parsed(LLAMA ",\"eos_token_id\":[]}").n_eos, 0);
}

// A pair of files that differ in key style only.
static void both_check(const char *old_style, const char *new_style) {
    struct transformer_config a = parsed(old_style), b = parsed(new_style);
    assert_memory_equal(&a.rope, &b.rope, sizeof a.rope);
}

static void both_key_styles_give_the_same(void **state) {
    (void)state;
    both_check(LLAMA ",\"rope_theta\":500000.0}",
               LLAMA ",\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"default\"}}");
    both_check(LLAMA ",\"rope_theta\":500000.0}", LLAMA ",\"rope_theta\":500000,\"rope_parameters\":{}}");
    both_check(LLAMA ",\"rope_theta\":1e4,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}}",
               LLAMA ",\"rope_parameters\":{\"rope_theta\":1e4,\"rope_type\":\"linear\",\"factor\":4.0}}");
    both_check(PHI3 ",\"rope_scaling\":{\"type\":\"su\"," FACTORS "}}",
               PHI3 ",\"rope_parameters\":{\"rope_type\":\"longrope\",\"partial_rotary_factor\":1.0," FACTORS "}}");
    both_check(PHI3 ",\"rope_scaling\":{\"type\":\"yarn\"," FACTORS "}}",
               PHI3 ",\"rope_scaling\":{\"rope_type\":\"longrope\",\"type\":\"su\"," FACTORS "}}");
}

static void llama3_settings_are_read(void **state) {
    (void)state;
    struct rope_config rope =
        parsed(LLAMA ",\"rope_theta\":500000.0,\"rope_scaling\":{\"factor\":8.0,\"low_freq_factor\":1.0,"
                     "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192,"
                     "\"rope_type\":\"llama3\"}}")
            .rope;
    assert_int_equal(rope.kind, ROPE_LLAMA3);
    check_near(rope.factor, 8, 0, 0);
    check_near(rope.low_freq_factor, 1, 0, 0);
    check_near(rope.high_freq_factor, 4, 0, 0);
    assert_int_equal(rope.original_max_positions, 8192);
}

// 1.190238 for 131072 / 4096 is what Transformers computes for Phi-3-mini-128k.
static void longrope_attention_factor_is_that_of_transformers(void **state) {
    (void)state;
    struct rope_config rope = parsed(PHI3 ",\"rope_scaling\":{\"type\":\"longrope\"," FACTORS "}}").rope;
    assert_int_equal(rope.kind, ROPE_LONGROPE);
    assert_int_equal(rope.original_max_positions, 4096);
    assert_int_equal(rope.n_factors, 4);
    check_near(rope.long_factor[3], 64.25, 0, 0);
    check_near(rope.short_factor[1], 1.1, 0, 0);
    check_near(rope.attention_factor, 1.190238, 0, 5e-7);
    check_near(rope.attention_factor, sqrt(1 + log(32.0) / log(4096.0)), 1e-15, 0);
    check_near(parsed(PHI3 ",\"rope_scaling\":{\"type\":\"longrope\",\"attention_factor\":1.3," FACTORS "}}")
                   .rope.attention_factor,
               1.3, 0, 0);
    // Without longer positions nothing is scaled; without an original length the factor is the file's.
    check_near(parsed("{\"model_type\":\"phi3\"," SIZES
                      ",\"max_position_embeddings\":4096,\"rope_scaling\":{\"type\":\"su\"," FACTORS "}}")
                   .rope.attention_factor,
               1, 0, 0);
    rope = parsed(LLAMA ",\"rope_scaling\":{\"type\":\"longrope\",\"factor\":16," FACTORS "}}").rope;
    assert_int_equal(rope.original_max_positions, 131072);
    check_near(rope.attention_factor, sqrt(1 + log(16.0) / log(131072.0)), 1e-15, 0);
    // Transformers 5 lets a given factor go before the ratio, version 4 does not look at it.
    check_near(parsed(PHI3 ",\"rope_parameters\":{\"rope_type\":\"longrope\",\"factor\":16," FACTORS "}}")
                   .rope.attention_factor,
               sqrt(1 + log(16.0) / log(4096.0)), 1e-15, 0);
    check_near(
        parsed(PHI3 ",\"rope_scaling\":{\"rope_type\":\"longrope\",\"factor\":16," FACTORS "}}").rope.attention_factor,
        sqrt(1 + log(32.0) / log(4096.0)), 1e-15, 0);
}

static void window_counts_the_keys_a_query_sees(void **state) {
    (void)state;
    assert_int_equal(parsed(PHI3 ",\"sliding_window\":2047}").window, 2047);
    assert_int_equal(parsed(PHI3 ",\"sliding_window\":262144}").window, 0); // longer than any sequence
    assert_int_equal(parsed(PHI3 ",\"sliding_window\":null}").window, 0);
}

static void golden_configurations_are_read(void **state) {
    (void)state;
    static const struct {
        const char *name;
        enum rope_kind kind;
        int64_t head_dim, kv_heads, window;
    } cases[] = {
        {"llama_gqa2_tied", ROPE_DEFAULT, 8, 2, 0},
        {"llama_headdim_sharded", ROPE_DEFAULT, 12, 1, 0},
        {"llama_linear_bf16", ROPE_LINEAR, 8, 2, 0},
        {"llama_llama3", ROPE_LLAMA3, 16, 1, 0},
        {"llama_llama3_v5_tied_bf16", ROPE_LLAMA3, 16, 2, 0},
        {"llama_mha", ROPE_DEFAULT, 8, 4, 0},
        {"llama_mqa8_f16", ROPE_DEFAULT, 8, 1, 0},
        {"phi3_gqa_bf16", ROPE_DEFAULT, 8, 2, 0},
        {"phi3_longrope_f16", ROPE_LONGROPE, 8, 1, 0},
        {"phi3_longrope_long", ROPE_LONGROPE, 8, 4, 0},
        {"phi3_longrope_short", ROPE_LONGROPE, 8, 4, 0},
        {"phi3_window", ROPE_DEFAULT, 8, 4, 11},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct transformer_config config;
        char path[4096], *name = mem_format("tests/golden/models/%s/config.json", cases[i].name);
        check_ok(config_read_file(check_source(name, path, sizeof path), &config));
        assert_int_equal(config.rope.kind, cases[i].kind);
        assert_int_equal(config.head_dim, cases[i].head_dim);
        assert_int_equal(config.kv_heads, cases[i].kv_heads);
        assert_int_equal(config.window, cases[i].window);
        assert_int_equal(config.architecture,
                         strncmp(cases[i].name, "phi3", 4) == 0 ? ARCHITECTURE_PHI3 : ARCHITECTURE_LLAMA);
        free(name);
    }
}

static void a_pretrained_configuration_is_read(void **state) {
    (void)state;
    char path[4096];
    struct transformer_config config;
    check_ok(config_read_file(check_shared("models/stories260K/config.json", path, sizeof path), &config));
    assert_int_equal(config.hidden, 64);
    assert_int_equal(config.intermediate, 172);
    assert_int_equal(config.layers, 5);
    assert_int_equal(config.heads, 8);
    assert_int_equal(config.kv_heads, 4);
    assert_int_equal(config.vocab, 512);
    assert_true(config.tied);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_transformers),
        cmocka_unit_test(end_tokens_may_be_one_several_or_none),
        cmocka_unit_test(both_key_styles_give_the_same),
        cmocka_unit_test(llama3_settings_are_read),
        cmocka_unit_test(longrope_attention_factor_is_that_of_transformers),
        cmocka_unit_test(window_counts_the_keys_a_query_sees),
        cmocka_unit_test(golden_configurations_are_read),
        cmocka_unit_test(a_pretrained_configuration_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
