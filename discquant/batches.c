#include "discquant/batches.h"

#include "core/base/mem.h"
#include "core/base/rng.h"

#include <stdlib.h>
#include <string.h>

struct batches {
    struct batches_options options;
    int64_t *order; // [windows] permutation of `epoch`
    int64_t epoch;
    int32_t *tokens; // [batch, seq_len]
};

enum status batches_new(const struct batches_options *options, struct batches **out) {
    enum status status = STATUS_OK;
    void *tokens = NULL;
    struct batches *self = mem_new(1, sizeof *self);
    *self = (struct batches){.options = *options, .epoch = -1};
    self->order = mem_new((size_t)options->windows, sizeof *self->order);
    TRY(mem_buffer_new(options->batch * options->seq_len * (int64_t)sizeof *self->tokens, "a batch of tokens",
                       &tokens));
    self->tokens = tokens;
    *out = self;
    self = NULL;
done:
    batches_free(self);
    return status;
}

void batches_free(struct batches *self) {
    if (!self) return;
    mem_buffer_free(self->tokens);
    free(self->order);
    free(self);
}

const int32_t *batches_load(struct batches *self, int64_t step) {
    const struct batches_options *o = &self->options;
    for (int64_t i = 0; i < o->batch; i++) {
        int64_t k = step * o->batch + i;
        if (k / o->windows != self->epoch) {
            self->epoch = k / o->windows;
            rng_permutation((struct rng){.seed = o->seed, .stream = RNG_ORDER + (uint64_t)self->epoch}, self->order,
                            o->windows);
        }
        memcpy(self->tokens + i * o->seq_len, corpus_window(o->corpus, o->seq_len, self->order[k % o->windows]),
               (size_t)o->seq_len * sizeof *self->tokens);
    }
    return self->tokens;
}
