// What methods that finish one layer of a network after the other have in common: their windows, and the state of a run that was
// interrupted between two layers.
#ifndef DQ_DISCQUANT_LAYERS_DONE_H
#define DQ_DISCQUANT_LAYERS_DONE_H

#include "discquant/run.h"

// The rounded matrices of the layers before `end`, in the order of the network, beginning with *i = 0; NULL at the end.
struct weight *layers_done_next(struct transformer *model, int64_t end, int64_t *i);

// Adds x of these matrices to a state ("x.INDEX"), or takes it from there and gives them the form. The state holds "layers" too.
enum status layers_done_save(struct transformer *model, int64_t layers, struct checkpoint *state);
enum status layers_done_load(struct transformer *model, const struct checkpoint *state, enum weight_form form,
                             int64_t *layers);

// Tokens of all calibration windows [windows, seq_len]; free with mem_buffer_free.
enum status layers_done_tokens(const struct run *run, int32_t **out);

#endif
