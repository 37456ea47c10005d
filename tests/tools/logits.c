// Logits of a model folder on the first windows of a text, as an array [windows * T, V]: what other software is compared with.
//
//     logits MODEL TEXT T WINDOWS OUT.npy [ADAPTER]
#include "data/corpus.h"
#include "data/model.h"
#include "data/npy.h"

#include "core/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

static enum status write_logits(struct model *model, const int32_t *tokens, int64_t rows, int64_t seq_len,
                                const char *path) {
    enum status status = STATUS_OK;
    struct value *hidden = NULL;
    void *logits = NULL;
    int64_t vocab = model->transformer->config.vocab;
    struct view view = view_new((void *)(uintptr_t)tokens, DTYPE_I32, rows, 1);
    TRY(mem_buffer_new(rows * vocab * (int64_t)sizeof(float), "logits", &logits));
    step_begin(model->step, (struct step_options){.seq_len = seq_len});
    TRY(transformer_forward(model->transformer, model->step, view, &hidden));
    TRY(transformer_logits(model->transformer, model->step, hidden->data, view_new(logits, DTYPE_F32, rows, vocab)));
    TRY(npy_write(path, NPY_F32, logits, rows, vocab));
done:
    mem_buffer_free(logits);
    return status;
}

int main(int argc, char **argv) {
    enum status status = STATUS_OK;
    struct model *model = NULL;
    struct corpus *corpus = NULL;
    int64_t n_windows = 0;
    if (argc < 6) return fprintf(stderr, "logits MODEL TEXT T WINDOWS OUT.npy [ADAPTER]\n"), 2;
    const char *text = argv[2];
    int64_t seq_len = atoll(argv[3]), windows = atoll(argv[4]);
    TRY(model_open(argv[1], "cpu", DTYPE_F32, NULL, &model));
    TRY(model_adapt(model, argv[6]));
    TRY(corpus_read(model->tokenizer, &text, 1, model->transformer->config.vocab, &corpus));
    TRY(corpus_windows(corpus, seq_len, &n_windows));
    if (windows < n_windows) n_windows = windows;
    TRY(write_logits(model, corpus_window(corpus, seq_len, 0), n_windows * seq_len, seq_len, argv[5]));
done:
    if (status != STATUS_OK) fprintf(stderr, "discquant: error: %s\n", status_message());
    corpus_free(corpus);
    model_free(model);
    return status != STATUS_OK;
}
