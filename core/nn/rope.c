#include "core/nn/rope.h"

#include <math.h>

static const double two_pi = 6.283185307179586476925;

// Wavelengths beyond original/low are stretched by `factor`, those below original/high kept, the rest interpolated.
static double llama3_frequency(const struct rope_config *rope, double frequency) {
    double original = (double)rope->original_max_positions, wavelength = two_pi / frequency;
    if (wavelength < original / rope->high_freq_factor) return frequency;
    if (wavelength > original / rope->low_freq_factor) return frequency / rope->factor;
    double smooth = (original / wavelength - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return (1 - smooth) * frequency / rope->factor + smooth * frequency;
}

bool rope_is_long(const struct transformer_config *config, int64_t seq_len) {
    return config->rope.kind == ROPE_LONGROPE && seq_len > config->rope.original_max_positions;
}

static double rope_frequency(const struct transformer_config *config, int64_t seq_len, int64_t i) {
    const struct rope_config *rope = &config->rope;
    double frequency = pow(rope->theta, -2.0 * (double)i / (double)config->head_dim);
    switch (rope->kind) {
    case ROPE_DEFAULT: return frequency;
    case ROPE_LINEAR: return frequency / rope->factor;
    case ROPE_LLAMA3: return llama3_frequency(rope, frequency);
    case ROPE_LONGROPE: return frequency / (rope_is_long(config, seq_len) ? rope->long_factor : rope->short_factor)[i];
    }
    return frequency;
}

static double rope_amplitude(const struct transformer_config *config) {
    const struct rope_config *rope = &config->rope;
    if (rope->kind != ROPE_LONGROPE) return 1;
    if (rope->attention_factor > 0) return rope->attention_factor;
    double stretch = (double)config->max_positions / (double)rope->original_max_positions;
    return stretch <= 1 ? 1 : sqrt(1 + log(stretch) / log((double)rope->original_max_positions));
}

void rope_tables(const struct transformer_config *config, int64_t seq_len, int64_t n_positions, float *cos_out,
                 float *sin_out) {
    int64_t half = config->head_dim / 2;
    double amplitude = rope_amplitude(config);
    for (int64_t i = 0; i < half; i++) {
        double frequency = rope_frequency(config, seq_len, i);
        for (int64_t p = 0; p < n_positions; p++) {
            cos_out[p * half + i] = (float)(amplitude * cos((double)p * frequency));
            sin_out[p * half + i] = (float)(amplitude * sin((double)p * frequency));
        }
    }
}
