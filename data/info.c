#include "data/info.h"

#include "data/file.h"
#include "data/model_folder.h"

#include <string.h>

// Names come from the file and must not steer the terminal; they are valid UTF-8.
static void text_print(FILE *out, const char *text) {
    for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
        bool c1 = s[0] == 0xC2 && s[1] >= 0x80 && s[1] < 0xA0;
        fputc(*s < 0x20 || *s == 0x7F || c1 ? '?' : *s, out);
        s += c1;
    }
}

struct totals {
    int64_t tensors, elements, bytes;
    int64_t bytes_of[SAFETENSORS_DTYPE_COUNT];
};

static void file_print(FILE *out, const struct safetensors *file, const char *name, struct totals *totals) {
    text_print(out, name);
    for (int64_t i = 0; i < safetensors_n_metadata(file); i++) {
        struct safetensors_pair pair = safetensors_metadata(file, i);
        fputs(i ? ", " : "  (", out);
        text_print(out, pair.key);
        fputs(": ", out);
        text_print(out, pair.value);
    }
    fputs(safetensors_n_metadata(file) ? ")\n" : "\n", out);
    for (int64_t i = 0; i < safetensors_n_tensors(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        fputs("  ", out);
        text_print(out, tensor->name);
        fprintf(out, "  %s  [", safetensors_dtype_name(tensor->dtype));
        for (int64_t d = 0; d < tensor->rank; d++) fprintf(out, d ? ", %lld" : "%lld", (long long)tensor->shape[d]);
        fprintf(out, "]  %lld bytes\n", (long long)tensor->n_bytes);
        totals->tensors++;
        totals->elements += tensor->n_elements;
        totals->bytes += tensor->n_bytes;
        totals->bytes_of[tensor->dtype] += tensor->n_bytes;
    }
}

static void totals_print(FILE *out, const struct totals *totals) {
    fprintf(out, "total: %lld tensors, %lld elements, %lld bytes", (long long)totals->tensors,
            (long long)totals->elements, (long long)totals->bytes);
    int n = 0;
    for (int i = 0; i < SAFETENSORS_DTYPE_COUNT; i++) {
        if (!totals->bytes_of[i]) continue;
        fprintf(out, "%s%s %lld", n++ ? ", " : " (", safetensors_dtype_name((enum safetensors_dtype)i),
                (long long)totals->bytes_of[i]);
    }
    fputs(n ? ")\n" : "\n", out);
}

static void rope_print(FILE *out, const struct rope_config *rope) {
    static const char *const kinds[] = {"default", "linear", "llama3", "longrope"};
    fprintf(out, "  rope: %s, theta %g", kinds[rope->kind], rope->theta);
    if (rope->kind == ROPE_LINEAR || rope->kind == ROPE_LLAMA3) fprintf(out, ", factor %g", rope->factor);
    if (rope->kind == ROPE_LLAMA3)
        fprintf(out, " (frequencies %g to %g)", rope->low_freq_factor, rope->high_freq_factor);
    if (rope->kind == ROPE_LONGROPE) fprintf(out, ", attention factor %.6g", rope->attention_factor);
    if (rope->original_max_positions)
        fprintf(out, ", original positions %lld", (long long)rope->original_max_positions);
    fputc('\n', out);
}

static void config_print(FILE *out, const struct transformer_config *config) {
    fprintf(out, "%s, %lld layers\n", config->architecture == ARCHITECTURE_PHI3 ? "phi3" : "llama",
            (long long)config->layers);
    fprintf(out, "  hidden %lld, intermediate %lld, vocabulary %lld%s\n", (long long)config->hidden,
            (long long)config->intermediate, (long long)config->vocab,
            config->tied ? ", head tied to the embedding" : "");
    fprintf(out, "  heads %lld of size %lld, key/value heads %lld, rms eps %g\n", (long long)config->heads,
            (long long)config->head_dim, (long long)config->kv_heads, config->rms_eps);
    fprintf(out, "  positions %lld", (long long)config->max_positions);
    if (config->window) fprintf(out, ", sliding window %lld", (long long)config->window);
    fputc('\n', out);
    rope_print(out, &config->rope);
    if (config->bos >= 0)
        fprintf(out, "  bos %lld", (long long)config->bos);
    else
        fputs("  no bos", out);
    fputs(config->n_eos ? ", eos" : ", no eos", out);
    for (int i = 0; i < config->n_eos; i++) fprintf(out, " %lld", (long long)config->eos[i]);
    fputc('\n', out);
}

enum status info_print(const char *path, FILE *out) {
    enum status status = STATUS_OK;
    struct model_folder *folder = NULL;
    struct safetensors *file = NULL;
    struct totals totals = {0};
    if (folder_exists(path)) {
        TRY(model_folder_open(path, &folder));
        config_print(out, model_folder_config(folder));
        for (int64_t i = 0; i < model_folder_n_files(folder); i++)
            file_print(out, model_folder_file(folder, i), model_folder_file_name(folder, i), &totals);
    } else {
        TRY(safetensors_open(path, &file));
        file_print(out, file, path, &totals);
    }
    totals_print(out, &totals);
    if (fflush(out) != 0) TRY(status_set(STATUS_IO, "cannot write what %s holds", path));
done:
    safetensors_free(file);
    model_folder_free(folder);
    return status;
}
