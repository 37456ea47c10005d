// A decoder-only transformer of the Llama family, made of layers on a step.
//
//     TRY(transformer_new(backend, &config, DTYPE_F32, source, &model));
//     step_begin(step, (struct step_options){.seq_len = T, .dtype = model->dtype});
//     TRY(transformer_forward(model, step, tokens, &hidden));      // tokens I32 [B * T, 1] on the backend
//     TRY(transformer_loss(model, step, hidden, &loss));
//
// Architectures differ in the names of their tensors and in how many matrices fill the qkv and the gate | up buffer: data
// in a table of transformer.c, not code.
#ifndef DQ_CORE_NN_TRANSFORMER_H
#define DQ_CORE_NN_TRANSFORMER_H

#include "core/graph/layers.h"
#include "core/graph/output_tap.h"
#include "core/nn/config.h"
#include "core/nn/tensor_source.h"

struct layer {
    struct weight *attention_norm, *mlp_norm; // [1, C]
    struct weight *qkv[3];                    // q, k, v, or one fused matrix [(H + 2K) d, C]
    struct weight *o;                         // [C, H d]
    struct weight *gate_up[2];                // gate, up, or one fused matrix [2I, C]
    struct weight *down;                      // [C, I]
    struct output_tap *output;                // sees the hidden states behind the layer; NULL = nobody
};

struct transformer {
    struct transformer_config config;
    struct backend *backend;
    enum dtype dtype;       // of the matrices; a step that computes in it needs no copies of them
    struct weight *weights; // all of them, in the order of the network: embedding, layers, final norm, head
    int64_t n_weights;
    struct weight *embedding;  // [V, C]
    struct weight *final_norm; // [1, C]
    struct weight *head;       // [V, C]; the embedding where they are tied
    struct layer *layers;
    int64_t head_rows; // rows of logits that exist at once; 0 = chosen by the size of the vocabulary
    struct rope_table {
        struct view cos, sin; // [positions, d/2]
    } rope[2];                // the second for the long factors of longrope
};

// Reads every weight onto the backend: matrices as `dtype`, F32 or BF16 (rounded to nearest), gains of norms as F32. Host memory
// holds one tensor at a time. STATUS_FORMAT when a tensor is missing or has another shape.
enum status transformer_new(struct backend *backend, const struct transformer_config *config, enum dtype dtype,
                            struct tensor_source source, struct transformer **out);
void transformer_free(struct transformer *model); // accepts NULL

struct weight *transformer_weight(struct transformer *model, const char *name); // NULL when there is none

// The form of every weight that has a grid.
void transformer_set_form(struct transformer *model, enum weight_form form);

// Parameters in all weights.
int64_t transformer_parameters(const struct transformer *model);

// Makes the position tables for sequences of up to seq_len tokens; transformer_forward does so too, but not in a plan.
enum status transformer_prepare(struct transformer *model, int64_t seq_len);

// Tokens of a pass that fill the device; more of them cost memory only.
int64_t transformer_pass_tokens(const struct transformer *model);

// Keys and values of one sequence, for generation.
struct kv_cache {
    struct view *k, *v; // per layer [capacity, K d], of the model's dtype
    int64_t length, capacity, n_layers;
    struct backend *backend;
};
enum status kv_cache_new(struct transformer *model, int64_t capacity, struct kv_cache **out);
void kv_cache_free(struct kv_cache *cache); // accepts NULL
// Makes the first n tokens those of another cache; what came behind them is dropped.
enum status kv_cache_copy(const struct kv_cache *from, int64_t n, struct kv_cache *to);

// Tokens of one sequence in a pass: `rows` of them, which follow the first `past` that the cache holds and replace what came behind.
struct kv_span {
    struct kv_cache *cache;
    int64_t past, rows; // past <= cache->length when the span's turn comes, past + rows <= capacity, rows > 0
    int64_t
        length; // >= past + rows: of the sequence, for which longrope's factors are chosen; its earlier tokens had the same
};

// Hidden states after the final norm, [N, C], of whole sequences of step_options.seq_len tokens.
enum status transformer_forward(struct transformer *model, struct step *step, struct view tokens,
                                struct value **hidden);
// The same for the tokens of spans, one behind the other, which are added to their caches. A span sees what those before it left in its
// cache: texts with a common beginning can be read in one pass with one cache, each from where it leaves the one before. No gradients.
enum status transformer_extend(struct transformer *model, struct step *step, struct view tokens,
                               const struct kv_span *spans, int64_t n_spans, struct value **hidden);

// Layer by layer, as transformer_forward goes through them, for whole sequences whose positions are prepared. Layer l has two
// parts, each x [N, C] to x + inner W^T: W is o, inner [N, H d] what the heads give; or W is down, inner [N, I] is silu(gate) up.
enum layer_part { LAYER_ATTENTION, LAYER_MLP };
// Shows the input of the part's first matrices (q, k, v; gate, up) to their taps, without a product.
enum status transformer_part_tap(struct transformer *model, struct step *step, int64_t l, enum layer_part part,
                                 struct value *x);
enum status transformer_part_inner(struct transformer *model, struct step *step, int64_t l, enum layer_part part,
                                   struct value *x, struct value **inner);
// Without gradients the memory of x becomes y's.
enum status transformer_part_leave(struct transformer *model, struct step *step, int64_t l, enum layer_part part,
                                   struct value *inner, struct value *x, struct value **y);
enum status transformer_layer(struct transformer *model, struct step *step, int64_t l, struct value *x,
                              struct value **y);

// Bytes of step memory that transformer_loss takes for logits, where nothing asks for gradients of the head.
int64_t transformer_logits_bytes(const struct transformer *model, enum dtype dtype, int64_t rows);

// logits [N, V] = hidden W_head^T; F32 or of the step's dtype.
enum status transformer_logits(struct transformer *model, struct step *step, struct view hidden, struct view logits);

// The loss at the end of a pass. Logits exist for a few rows at a time only. With `gradient_weight` != 0 the gradient of
//   gradient_weight * sum over rows of (kl if there is a teacher, else cross entropy)
// is seeded at `hidden` and handed to the head's sink, so that step_backward can follow. Empty views are not computed.
struct transformer_loss {
    struct view teacher;               // hidden states [N, C] of the model to compare with
    struct transformer *teacher_model; // whose head turns them into logits; NULL = the model itself
    struct view targets;               // I32 [N, 1], -1 = no prediction
    double gradient_weight;
    double
        truth_weight; // with a teacher: truth_weight * sum of the cross entropy is added to that; needs `cross_entropy`
    // results
    struct view kl;                    // F64 [N, 1] KL(teacher || student)
    struct view agree;                 // I32 [N, 1] same most likely token
    struct view cross_entropy;         // F64 [N, 1]
    struct view cross_entropy_teacher; // F64 [N, 1]
    struct view tangent; // F64 [N, 1] directional derivative of kl or cross entropy; needs a tangent at hidden
};
enum status transformer_loss(struct transformer *model, struct step *step, struct value *hidden,
                             const struct transformer_loss *loss);

#endif
