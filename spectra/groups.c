#include "spectra/groups.h"

#include "core/base/mem.h"

#include <stdlib.h>

static bool belongs(const struct layer *layer, const struct weight *weight) {
    const struct weight *const all[] = {layer->attention_norm, layer->mlp_norm,   layer->qkv[0],
                                        layer->qkv[1],         layer->qkv[2],     layer->o,
                                        layer->gate_up[0],     layer->gate_up[1], layer->down};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] == weight) return true;
    return false;
}

// Place of a weight's layer in the network: 0 embedding, 1 + l, then final norm and head.
static int64_t place(const struct transformer *model, const struct weight *weight) {
    int64_t layers = model->config.layers;
    if (weight == model->embedding) return 0;
    for (int64_t l = 0; l < layers; l++)
        if (belongs(&model->layers[l], weight)) return 1 + l;
    return weight == model->final_norm ? layers + 1 : layers + 2;
}

static char *name_of(const struct transformer *model, int64_t place) {
    int64_t layers = model->config.layers;
    if (place == 0) return mem_string("embedding");
    if (place <= layers) return mem_format("layer %lld", (long long)(place - 1));
    return mem_string(place == layers + 1 ? "final_norm" : "head");
}

static bool chosen(const struct layer_set *layers, int64_t place) {
    if (!layers || layers->n == 0) return true;
    for (int i = 0; i < layers->n; i++)
        if (layers->ranges[i].first <= place - 1 && place - 1 <= layers->ranges[i].last) return true;
    return false;
}

struct groups *groups_new(const struct transformer *model, enum parameter_set set, const struct layer_set *layers,
                          bool per_layer) {
    struct groups *groups = mem_new(1, sizeof *groups);
    int64_t places = model->config.layers + 3;
    int64_t *group = mem_new((size_t)places, sizeof *group); // 1 + the group that stands at a place
    groups->n_weights = model->n_weights;
    groups->of = mem_new((size_t)model->n_weights, sizeof *groups->of);
    groups->names = mem_new((size_t)places, sizeof *groups->names);
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *weight = &model->weights[i];
        groups->of[i] = -1;
        if (set == PARAMETERS_LINEAR && !weight->is_linear) continue;
        int64_t p = place(model, weight);
        if (!chosen(layers, p)) continue;
        if (!per_layer) p = 0;
        if (!group[p]) {
            groups->names[groups->n] = per_layer ? name_of(model, p) : mem_string("whole");
            group[p] = ++groups->n;
        }
        groups->of[i] = group[p] - 1;
        groups->parameters += weight->rows * weight->cols;
    }
    REQUIRE(groups->n > 0, "a network has matrices");
    free(group);
    return groups;
}

void groups_free(struct groups *groups) {
    if (!groups) return;
    for (int64_t i = 0; i < groups->n; i++) free(groups->names[i]);
    free(groups->names);
    free(groups->of);
    free(groups);
}
