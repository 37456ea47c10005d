#include "data/bpe_learner.h"
#include "data/pretrain.h"

#include "core/base/mem.h"
#include "data/version.h"

#include <math.h>

struct pretrain_settings pretrain_settings = {
    .validation_samples = 64,
    .vocab_size = 512,
    .hidden = 128,
    .layers = 4,
    .heads = 4,
    .trainer = {.steps = 1000, .warmup = 100, .batch = 16, .seq_len = 256, .rate = 2e-3, .decay = 0.1, .clip = 1},
    .dtype = DTYPE_F32,
    .report_every = 100,
    .checkpoint_every = 100,
};

enum {
    KEY_CORPUS = 0x100,
    KEY_VALIDATION,
    KEY_VALIDATION_SAMPLES,
    KEY_VOCAB,
    KEY_HIDDEN,
    KEY_INTERMEDIATE,
    KEY_LAYERS,
    KEY_HEADS,
    KEY_KV_HEADS,
    KEY_TIED,
    KEY_DTYPE,
    KEY_STEPS,
    KEY_BATCH,
    KEY_SEQ_LEN,
    KEY_RATE,
    KEY_WARMUP,
    KEY_CLIP,
    KEY_DECAY,
    KEY_REPORT,
    KEY_CHECKPOINT,
};

const struct argp_option pretrain_options[] = {
    {0, 0, 0, 0, "Text (documents separated by blank lines, or .jsonl with \"text\"):", 1},
    {"corpus", KEY_CORPUS, "FILE", 0, "text to train on; may be given more than once", 1},
    {"validation", KEY_VALIDATION, "FILE", 0, "text to measure on", 1},
    {"validation-samples", KEY_VALIDATION_SAMPLES, "N", 0, "validation windows to use, 0 = all (default: 64)", 1},
    {0, 0, 0, 0, "Model:", 2},
    {"vocab-size", KEY_VOCAB, "V", 0, "tokens learnt from the corpus, at most; 260 or more (default: 512)", 2},
    {"hidden", KEY_HIDDEN, "C", 0, "width of the residual stream (default: 128)", 2},
    {"intermediate", KEY_INTERMEDIATE, "I", 0,
     "width inside the MLP (default: 8/3 of hidden, rounded up to a multiple of 128)", 2},
    {"layers", KEY_LAYERS, "L", 0, "layers (default: 4)", 2},
    {"heads", KEY_HEADS, "H", 0, "query heads (default: 4)", 2},
    {"kv-heads", KEY_KV_HEADS, "K", 0, "key and value heads (default: as many as query heads)", 2},
    {"tied", KEY_TIED, 0, 0, "the output matrix is the embedding", 2},
    {"dtype", KEY_DTYPE, "NAME", 0, "saved weights: float32 (default) or bfloat16", 2},
    {0, 0, 0, 0, "Training (AdamW with betas 0.9 and 0.95):", 3},
    {"steps", KEY_STEPS, "N", 0, "optimizer steps (default: 1000)", 3},
    {"batch-size", KEY_BATCH, "B", 0, "windows per step (default: 16)", 3},
    {"seq-len", KEY_SEQ_LEN, "T", 0, "tokens per window; also the model's greatest position (default: 256)", 3},
    {"lr", KEY_RATE, "R", 0, "learning rate after warmup; cosine to a tenth of it (default: 0.002)", 3},
    {"warmup", KEY_WARMUP, "W", 0, "steps of linear warmup (default: 100)", 3},
    {"clip", KEY_CLIP, "C", 0, "limit of the gradient's norm, 0 = none (default: 1)", 3},
    {"weight-decay", KEY_DECAY, "D", 0, "of AdamW, on matrices but not the embedding (default: 0.1)", 3},
    {0, 0, 0, 0, "Reports:", 4},
    {"report-every", KEY_REPORT, "N", 0, "steps between validations, 0 = only at the end (default: 100)", 4},
    {"checkpoint-every", KEY_CHECKPOINT, "N", 0, "steps between states that --resume can go on from (default: 100)", 4},
    {0},
};

static void finish(struct pretrain_settings *s) {
    if (!s->n_corpus) args_fail("--corpus is missing");
    if (!s->validation) args_fail("--validation is missing");
    if (s->intermediate == 0) s->intermediate = (s->hidden * 8 / 3 + 127) / 128 * 128;
    if (s->kv_heads == 0) s->kv_heads = s->heads;
    if (s->hidden % (2 * s->heads))
        args_fail("--hidden %lld: twice --heads %lld must divide it", (long long)s->hidden, (long long)s->heads);
    if (s->heads % s->kv_heads)
        args_fail("--kv-heads %lld must divide --heads %lld", (long long)s->kv_heads, (long long)s->heads);
    if (s->trainer.warmup > s->trainer.steps) s->trainer.warmup = s->trainer.steps / 8;
}

error_t pretrain_parse(int key, char *arg, struct argp_state *state) {
    struct pretrain_settings *s = state->input;
    struct trainer_options *o = &s->trainer;
    const int64_t many = INT64_C(1) << 40, wide = 1 << 16;
    switch (key) {
    case KEY_CORPUS:
        if (s->n_corpus == PRETRAIN_FILES_MAX) args_fail("--corpus: at most %d files", PRETRAIN_FILES_MAX);
        s->corpus[s->n_corpus++] = arg;
        return 0;
    case KEY_VALIDATION: s->validation = arg; return 0;
    case KEY_VALIDATION_SAMPLES: s->validation_samples = args_integer("--validation-samples", arg, 0, many); return 0;
    case KEY_VOCAB: s->vocab_size = args_integer("--vocab-size", arg, BPE_VOCAB_MIN, BPE_VOCAB_MAX); return 0;
    case KEY_HIDDEN: s->hidden = args_integer("--hidden", arg, 2, wide); return 0;
    case KEY_INTERMEDIATE: s->intermediate = args_integer("--intermediate", arg, 1, wide); return 0;
    case KEY_LAYERS: s->layers = args_integer("--layers", arg, 1, 1024); return 0;
    case KEY_HEADS: s->heads = args_integer("--heads", arg, 1, 1024); return 0;
    case KEY_KV_HEADS: s->kv_heads = args_integer("--kv-heads", arg, 1, 1024); return 0;
    case KEY_TIED: s->tied = true; return 0;
    case KEY_DTYPE: s->dtype = args_choice("--dtype", arg, "float32|bfloat16") ? DTYPE_BF16 : DTYPE_F32; return 0;
    case KEY_STEPS: o->steps = args_integer("--steps", arg, 1, 1 << 30); return 0;
    case KEY_BATCH: o->batch = args_integer("--batch-size", arg, 1, 1 << 20); return 0;
    case KEY_SEQ_LEN: o->seq_len = args_integer("--seq-len", arg, 2, 1 << 20); return 0;
    case KEY_RATE: o->rate = args_number("--lr", arg, 0, 1e6); return 0;
    case KEY_WARMUP: o->warmup = args_integer("--warmup", arg, 0, many); return 0;
    case KEY_CLIP: o->clip = args_number("--clip", arg, 0, 1e12); return 0;
    case KEY_DECAY: o->decay = args_number("--weight-decay", arg, 0, 1e6); return 0;
    case KEY_REPORT: s->report_every = args_integer("--report-every", arg, 0, many); return 0;
    case KEY_CHECKPOINT: s->checkpoint_every = args_integer("--checkpoint-every", arg, 1, many); return 0;
    case ARGP_KEY_END: finish(s); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

enum status pretrain_run(const struct program_common *common, void *settings) { return pretrain(common, settings); }

char *pretrain_card(const struct pretrain_facts *f) {
    const struct pretrain_settings *s = f->settings;
    const struct trainer_options *o = &s->trainer;
    const struct transformer_config *c = &f->model->config;
    char *documents =
        f->documents.n > 1
            ? mem_format("| validation documents | %.2f ± %.2f nats each, %lld of them read on their own |\n",
                         f->documents.nats, f->documents.nats_se, (long long)f->documents.n)
            : mem_format("%s", "");
    char *card = mem_format(
        "# A small language model of the Llama family\n\n"
        "Trained from random weights by\n\n"
        "    %s\n\n"
        "with discquant %s, seed %llu. The same command on the same text gives the same bits, whatever the number of\n"
        "threads.\n\n"
        "| | |\n|---|---|\n"
        "| parameters | %lld |\n"
        "| layers, width, inner width | %lld, %lld, %lld |\n"
        "| heads, key/value heads, head width | %lld, %lld, %lld |\n"
        "| vocabulary | %lld tokens, byte-fallback BPE learnt from the corpus, %s |\n"
        "| longest input | %lld tokens |\n"
        "| weights | %s |\n"
        "| corpus | %lld documents, %lld tokens, %lld bytes |\n"
        "| training | %lld steps of %lld windows of %lld tokens (%lld tokens in all) |\n"
        "| optimizer | AdamW, rate %g after %lld steps of warmup, cosine to a tenth, decay %g, gradient norm at most "
        "%g |\n"
        "| training loss | %.4f nats per token, mean since the last report |\n"
        "| validation loss | %.4f nats per token on %lld tokens, perplexity %.3f |\n"
        "%s\n"
        "A document is tokenized on its own; `<s>` stands before it and thereby ends the one before.\n",
        f->common->command_line, version_text(), (unsigned long long)f->common->seed,
        (long long)transformer_parameters(f->model), (long long)c->layers, (long long)c->hidden,
        (long long)c->intermediate, (long long)c->heads, (long long)c->kv_heads, (long long)c->head_dim,
        (long long)c->vocab, c->tied ? "output matrix tied to the embedding" : "output matrix of its own",
        (long long)c->max_positions, s->dtype == DTYPE_BF16 ? "bfloat16" : "float32", (long long)f->corpus_documents,
        (long long)f->corpus_tokens, (long long)f->corpus_bytes, (long long)o->steps, (long long)o->batch,
        (long long)o->seq_len, (long long)(o->steps * o->batch * o->seq_len), o->rate, (long long)o->warmup, o->decay,
        o->clip, f->loss_training, f->loss_validation, (long long)f->validation_tokens, exp(f->loss_validation),
        documents);
    free(documents);
    return card;
}
