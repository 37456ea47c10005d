// libFuzzer target for the safetensors reader: what it accepts tiles the data and can be read to the last byte.
// Input: 'w' + header text + zero byte + data, for which the length in front is made here, so that mutations reach the
// parser behind it; anything else is the file as it is.
#include "data/safetensors.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void file_check(const uint8_t *bytes, size_t n_bytes) {
    struct safetensors *file = NULL;
    if (safetensors_from_buffer(bytes, (int64_t)n_bytes, "input", &file) != STATUS_OK) {
        if (!status_message()[0] || strchr(status_message(), '\n')) abort();
        return;
    }
    const unsigned char *at = NULL;
    for (int64_t i = 0; i < safetensors_n_tensors(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        if (at && tensor->data != at) abort();
        at = tensor->data + tensor->n_bytes;
        if (safetensors_find(file, tensor->name) != tensor) abort();
        if (!safetensors_dtype_is_float(tensor->dtype, NULL)) continue;
        float *values = mem_new((size_t)tensor->n_elements, sizeof *values);
        if (safetensors_to_float(file, tensor, values) != STATUS_OK) abort();
        (void)safetensors_not_finite(values, tensor->n_elements);
        free(values);
    }
    if (at && at != bytes + n_bytes) abort();
    for (int64_t i = 0; i < safetensors_n_metadata(file); i++) {
        struct safetensors_pair pair = safetensors_metadata(file, i);
        if (strlen(pair.key) + strlen(pair.value) > n_bytes) abort();
    }
    safetensors_free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes) {
    if (n_bytes == 0 || bytes[0] != 'w') {
        file_check(bytes, n_bytes);
        return 0;
    }
    const uint8_t *end = memchr(bytes, 0, n_bytes);
    size_t n_header = end ? (size_t)(end - bytes) - 1 : n_bytes - 1, n_data = end ? n_bytes - n_header - 2 : 0;
    uint8_t *whole = mem_new(8 + n_header + n_data, 1);
    for (int i = 0; i < 8; i++) whole[i] = (uint8_t)((uint64_t)n_header >> (8 * i));
    memcpy(whole + 8, bytes + 1, n_header);
    if (n_data) memcpy(whole + 8 + n_header, end + 1, n_data);
    file_check(whole, 8 + n_header + n_data);
    free(whole);
    return 0;
}
