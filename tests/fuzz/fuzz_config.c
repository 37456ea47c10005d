// libFuzzer target for config.json: what is accepted is a transformer whose sizes can be multiplied without a thought.
#include "data/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void must(bool condition) {
    if (!condition) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes) {
    struct transformer_config config;
    if (config_read_buffer(bytes, (int64_t)n_bytes, "input", &config) != STATUS_OK) {
        must(status_message()[0] && !strchr(status_message(), '\n'));
        return 0;
    }
    int64_t widths = 0, weights = 0;
    must(config.hidden > 0 && config.intermediate > 0 && config.layers > 0 && config.vocab > 0 &&
         config.max_positions > 0);
    must(config.kv_heads > 0 && config.heads % config.kv_heads == 0 && config.head_dim > 0 && config.head_dim % 2 == 0);
    must(config.window >= 0 && config.window < config.max_positions);
    must(config.rms_eps > 0 && config.rms_eps <= 1 && config.rope.theta >= 1 && isfinite(config.rope.theta));
    must(config.n_eos >= 0 && config.n_eos <= EOS_MAX && config.bos >= -1);
    widths = config.heads * config.head_dim * 2 + config.kv_heads * config.head_dim * 2 + config.intermediate * 3;
    must(!__builtin_mul_overflow(widths * config.hidden, config.layers, &weights));
    must(!__builtin_add_overflow(weights, 2 * config.vocab * config.hidden, &weights));
    must(!__builtin_mul_overflow(weights, (int64_t)sizeof(double), &weights));
    if (config.rope.kind == ROPE_LONGROPE) {
        must(config.rope.n_factors == config.head_dim / 2 && config.rope.n_factors <= ROPE_FACTORS_MAX);
        must(config.rope.attention_factor > 0 && isfinite(config.rope.attention_factor));
        for (int i = 0; i < config.rope.n_factors; i++)
            must(config.rope.long_factor[i] > 0 && config.rope.short_factor[i] > 0);
    }
    return 0;
}
