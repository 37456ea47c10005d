// Shape rules and costs of the ops on quantization grids, and of adamw.
#include "core/ops/shape.h"

#include "core/quant/grid.h"

static bool is_scale(struct view scale, struct view w, const struct grid *grid) {
    return grid && is_f32_shape(scale, w.rows, grid_scale_cols(grid, w.cols));
}

static bool is_weight(struct view v, struct view w) { return is_float(v) && view_same_shape(v, w); }

#define WEIGHT_AND_SCALE(grid)                                                                                         \
    WANT(is_float(c->in[0]) && is_scale(c->in[1], c->in[0], grid), "w [O, I] and its scale [O, groups or 2 groups]");  \
    WANT(is_weight(c->out[0], c->in[0]), "the output has the shape of w")

const char *grid_offset_check(const struct op_call *c) {
    WEIGHT_AND_SCALE(c->params.grid);
    return NULL;
}
double grid_offset_flops(const struct op_call *c) { return 4 * elements(c->in[0]); }

const char *grid_interpolate_check(const struct op_call *c) {
    WEIGHT_AND_SCALE(c->params.grid);
    WANT(is_weight(c->in[2], c->in[0]), "grid_interpolate: x has the shape of w");
    return NULL;
}
double grid_interpolate_flops(const struct op_call *c) { return 5 * elements(c->in[0]); }

const char *grid_interpolate_grad_check(const struct op_call *c) {
    WEIGHT_AND_SCALE(c->params.grid);
    WANT(is_weight(c->in[2], c->in[0]), "grid_interpolate_grad: dy has the shape of w");
    return NULL;
}
double grid_interpolate_grad_flops(const struct op_call *c) { return 5 * elements(c->in[0]); }

const char *grid_round_check(const struct op_call *c) {
    WEIGHT_AND_SCALE(c->params.grid);
    WANT(is_weight(c->in[2], c->in[0]), "grid_round: x has the shape of w");
    return NULL;
}
double grid_round_flops(const struct op_call *c) { return 4 * elements(c->in[0]); }

const char *grid_nearest_check(const struct op_call *c) {
    WEIGHT_AND_SCALE(c->params.grid);
    return NULL;
}
double grid_nearest_flops(const struct op_call *c) { return 4 * elements(c->in[0]); }

const char *adamw_check(const struct op_call *c) {
    const struct adamw_params *p = &c->params.adamw;
    struct view x = c->in[0], w = c->in[4], scale = c->in[5];
    for (int i = 0; i < 3; i++) WANT(is_like(c->in[i], x), "adamw: p, m, v have one shape and one dtype");
    WANT(is_weight(c->in[3], x), "adamw: g has the shape of p");
    WANT(c->out[0].data == x.data && is_like(c->out[0], x), "adamw: p is updated in place");
    WANT(p->step >= 1 && p->low <= p->high && p->beta1 < 1 && p->beta2 < 1 && p->limit >= 0, "adamw: bad parameters");
    if (is_absent(w) && is_absent(scale)) return NULL;
    WANT(!p->random, "adamw: a random pull takes no w");
    WANT(is_weight(w, x) && is_scale(scale, w, p->grid),
         "adamw: w [O, I] and its scale [O, groups or 2 groups], or neither");
    return NULL;
}
double adamw_flops(const struct op_call *c) { return (is_absent(c->in[4]) ? 17 : 24) * elements(c->in[0]); }
