// The induction circuit, with C = hidden, d = head width, K key/value heads, n numbers of a code, x the normalized state:
//
//     embedding   column 0 is 1 for every token, columns 1 .. C/2 - 1 differ by token and have norm 1, the others are empty; were the
//                 norms not equal, normalization would turn column 0 into a matter of the token, and the scores with it
//     layer 0     q, k of head h see column 0 and score LOOK cos((t - s - h - 1) theta_p) over the FAST fastest pairs p;
//                 v makes the code c = V x, |c|^2 = n, and o puts c / sqrt(n) into columns C/2 + h n ..: |.|^2 = 2 + K
//     layer 1     head h: k = code from h + 1 back, q = code from h back (h = 0: of the token itself), in the slow pairs, where distance
//                 hardly turns it; a match scores MATCH
#include "data/trainer_start.h"

#include "core/base/mem.h"
#include "core/nn/random_source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FAST = 6 };
static const double LOOK = 40, MATCH = 10;

static bool ends_with(const char *name, const char *end) {
    size_t n = strlen(name), n_end = strlen(end);
    return n >= n_end && strcmp(name + n - n_end, end) == 0;
}

static bool is_of_layer(const char *name, int layer, const char *part) {
    char *whole = mem_format("model.layers.%d.self_attn.%s_proj.weight", layer, part);
    bool is = strcmp(name, whole) == 0;
    free(whole);
    return is;
}

static enum status matrix_draw(uint64_t seed, double gain, const char *name, int64_t rows, int64_t cols, float *out) {
    struct random_source random = {.seed = seed, .gain = gain};
    struct tensor_source source = random_source(&random);
    return source.read(source.self, name, rows, cols, out, NULL);
}

// The matrix of the same layer that ends in `end` instead.
static enum status sibling_draw(const struct trainer_start *start, double gain, const char *name, const char *end,
                                int64_t rows, int64_t cols, float *out) {
    char *other = mem_format("%.*s%s", (int)(strlen(name) - strlen(end)), name, end);
    enum status status = matrix_draw(start->seed, gain, other, rows, cols, out);
    free(other);
    return status;
}

// k [K d, C]: the rows of q that belong to the first query head of each group.
static enum status draw_k(const struct trainer_start *start, const char *name, int64_t rows, int64_t cols, float *out) {
    int64_t d = start->config->head_dim, group = start->config->heads / start->config->kv_heads;
    float *q = mem_new((size_t)(rows * group * cols), sizeof *q);
    enum status status = sibling_draw(start, 1, name, "q_proj.weight", rows * group, cols, q);
    for (int64_t i = 0; i < rows; i++)
        memcpy(out + i * cols, q + (i / d * d * group + i % d) * cols, (size_t)cols * sizeof *out);
    free(q);
    return status;
}

// o [C, H d]: v transposed.
static enum status draw_o(const struct trainer_start *start, const char *name, int64_t rows, int64_t cols, float *out) {
    int64_t d = start->config->head_dim, group = start->config->heads / start->config->kv_heads;
    float *v = mem_new((size_t)(cols / group * rows), sizeof *v);
    enum status status = sibling_draw(start, 0.5, name, "v_proj.weight", cols / group, rows, v);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) out[i * cols + j] = v[(j / d / group * d + j % d) * rows + i];
    free(v);
    return status;
}

static enum status draw(const struct trainer_start *start, const char *name, int64_t rows, int64_t cols, float *out) {
    double gain = 0.5;
    if (ends_with(name, "k_proj.weight")) return draw_k(start, name, rows, cols, out);
    if (ends_with(name, "o_proj.weight")) return draw_o(start, name, rows, cols, out);
    if (ends_with(name, "embed_tokens.weight") || ends_with(name, "q_proj.weight")) gain = 1;
    if (ends_with(name, "lm_head.weight")) gain = 0.02 * sqrt((double)cols);
    if (ends_with(name, "down_proj.weight")) gain /= sqrt(2 * (double)start->config->layers);
    return matrix_draw(start->seed, gain, name, rows, cols, out);
}

// ---- the induction circuit ----

struct circuit {
    const struct transformer_config *config;
    int64_t width, half, d, group, n; // C, C / 2, head width, query heads per key head, numbers of a code
    float *code;                      // V [n, C]
};

static bool circuit_fits(const struct circuit *c) {
    return c->config->layers >= 2 && c->d >= 8 && c->n >= 2 && c->half >= 4;
}

static enum status circuit_new(const struct trainer_start *start, struct circuit *out) {
    const struct transformer_config *config = start->config;
    struct circuit c = {.config = config,
                        .width = config->hidden,
                        .half = config->hidden / 2,
                        .d = config->head_dim,
                        .group = config->heads / config->kv_heads};
    c.n = (c.width - c.half) / config->kv_heads;
    if (c.n > c.d / 2) c.n = c.d / 2;
    c.code = mem_new((size_t)(c.n * c.width), sizeof *c.code);
    enum status status =
        matrix_draw(start->seed, sqrt((double)c.width / (double)c.half), "induction", c.n, c.width, c.code);
    for (int64_t i = 0; i < c.n; i++)
        for (int64_t j = 0; j < c.width; j++)
            if (j == 0 || j >= c.half) c.code[i * c.width + j] = 0;
    *out = c;
    return status;
}

static void scale(float *row, int64_t n, double by) {
    for (int64_t i = 0; i < n; i++) row[i] *= (float)by;
}

static void embed(const struct circuit *c, int64_t rows, float *out) {
    for (int64_t r = 0; r < rows; r++, out += c->width) {
        double norm2 = 0;
        for (int64_t i = 1; i < c->half; i++) norm2 += (double)out[i] * (double)out[i];
        if (norm2 > 0) scale(out, c->half, 1 / sqrt(norm2));
        memset(out + c->half, 0, (size_t)(c->width - c->half) * sizeof *out);
        out[0] = 1;
    }
}

// q (turn = false) or k of layer 0.
static void look_back(const struct circuit *c, bool turn, int64_t rows, float *out) {
    int64_t pairs = c->d / 2, fast = pairs < FAST ? pairs : FAST;
    double size = sqrt(LOOK * sqrt((double)c->d) / (double)(fast * c->half));
    for (int64_t r = 0; r < rows; r++, out += c->width) {
        int64_t pair = r % pairs, back = r / c->d + 1;
        double angle = turn ? (double)back * pow(c->config->rope.theta, -2.0 * (double)pair / (double)c->d) : 0;
        scale(out, c->width, 0.1);
        out[0] = pair < fast ? (float)(size * (r % c->d < pairs ? cos(angle) : sin(angle))) : 0;
    }
}

static void read_code(const struct circuit *c, int64_t rows, float *out) {
    for (int64_t r = 0; r < rows; r++, out += c->width) {
        scale(out, c->width, 0.1);
        if (r % c->d < c->n) memcpy(out, c->code + r % c->d * c->width, (size_t)c->width * sizeof *out);
    }
}

static void write_code(const struct circuit *c, int64_t cols, float *out) {
    double size = 1 / (sqrt((double)c->n) * (double)c->group);
    for (int64_t r = 0; r < c->width; r++, out += cols)
        for (int64_t j = 0; j < cols; j++) {
            int64_t to = c->half + j / c->d / c->group * c->n + j % c->d;
            out[j] = j % c->d < c->n ? (r == to ? (float)size : 0) : 0.1f * out[j];
        }
}

// q or k of layer 1: head h compares the codes of the tokens `nearest` + h back; that of 0 back is made from the token itself.
static void compare_codes(const struct circuit *c, int64_t nearest, int64_t rows, float *out) {
    int64_t pairs = c->d / 2, slow = pairs / 2;
    double norm2 = 2 + (double)c->config->kv_heads, root = sqrt((double)c->d);
    double written = sqrt(MATCH * root * norm2 / (double)c->width);
    double own = MATCH * root * norm2 / (written * sqrt(2 * (double)(c->n * c->width)));
    int64_t heads_per_code = nearest ? 1 : c->group;
    for (int64_t r = 0; r < rows; r++, out += c->width) {
        int64_t back = nearest + r / c->d / heads_per_code, pair = r % pairs;
        int64_t i = pair - slow + (r % c->d < pairs ? 0 : pairs - slow);
        scale(out, c->width, 0.1);
        if (pair < slow || i >= c->n) continue;
        memset(out, 0, (size_t)c->width * sizeof *out);
        if (back == 0)
            for (int64_t j = 0; j < c->width; j++) out[j] = (float)own * c->code[i * c->width + j];
        else
            out[c->half + (back - 1) * c->n + i] = (float)written;
    }
}

static void circuit_put(const struct circuit *c, const char *name, int64_t rows, int64_t cols, float *out) {
    if (ends_with(name, "embed_tokens.weight")) embed(c, rows, out);
    if (is_of_layer(name, 0, "q")) look_back(c, false, rows, out);
    if (is_of_layer(name, 0, "k")) look_back(c, true, rows, out);
    if (is_of_layer(name, 0, "v")) read_code(c, rows, out);
    if (is_of_layer(name, 0, "o")) write_code(c, cols, out);
    if (is_of_layer(name, 1, "q")) compare_codes(c, 0, rows, out);
    if (is_of_layer(name, 1, "k")) compare_codes(c, 1, rows, out);
}

static enum status start_read(void *self, const char *name, int64_t rows, int64_t cols, float *out, enum dtype *dtype) {
    enum status status = STATUS_OK;
    const struct trainer_start *start = self;
    struct circuit circuit = {0};
    if (dtype) *dtype = DTYPE_F32;
    TRY(draw(start, name, rows, cols, out));
    TRY(circuit_new(start, &circuit));
    if (circuit_fits(&circuit)) circuit_put(&circuit, name, rows, cols, out);
done:
    free(circuit.code);
    return status;
}

struct tensor_source trainer_start(const struct trainer_start *start) {
    return (struct tensor_source){.self = (void *)(uintptr_t)start, .read = start_read};
}
