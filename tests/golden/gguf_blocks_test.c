// GGUF blocks against the package `gguf` (make_gguf_blocks.py).
#include "tests/files.h"

#include "core/tensor/dtype.h"
#include "data/gguf_blocks.h"
#include "data/json.h"

static int64_t bytes_of_hex(const char *hex, uint8_t *out) {
    int64_t n = 0;
    for (unsigned byte; sscanf(hex + 2 * n, "%2x", &byte) == 1; n++) out[n] = (uint8_t)byte;
    return n;
}

static json_t *golden_read(void) {
    char path[4096];
    json_t *root = NULL;
    check_ok(json_read_file(check_source("tests/golden/gguf_blocks.json", path, sizeof path), &root));
    return root;
}

static void blocks_mean_what_the_gguf_package_says(void **state) {
    (void)state;
    json_t *root = golden_read(), *entry;
    size_t i;
    json_array_foreach(root, i, entry) {
        int64_t type = json_integer_value(json_object_get(entry, "type"));
        const json_t *floats = json_object_get(entry, "floats");
        struct gguf_type_facts facts = gguf_type_facts_of(type);
        assert_string_equal(facts.name, json_string_value(json_object_get(entry, "name")));
        static uint8_t bytes[4096];
        static float got[2048];
        int64_t n_bytes = bytes_of_hex(json_string_value(json_object_get(entry, "bytes")), bytes);
        int64_t n = n_bytes / facts.bytes * facts.weights;
        assert_int_equal(n, json_array_size(floats));
        gguf_to_float((enum gguf_type)type, bytes, n, got);
        for (int64_t k = 0; k < n; k++) {
            float want = float_from_bits((uint32_t)json_integer_value(json_array_get(floats, (size_t)k)));
            if (got[k] == want) continue; // both zeros are one value
            print_error("%s[%lld] = %.9g, want %.9g\n", facts.name, (long long)k, (double)got[k], (double)want);
            fail();
        }
    }
    json_decref(root);
}

// Numbers and scales taken out of a block by its value: what packing makes of them is the block again.
static void packing_gives_the_bytes_back(void **state) {
    (void)state;
    json_t *root = golden_read(), *entry;
    size_t i;
    json_array_foreach(root, i, entry) {
        int64_t type = json_integer_value(json_object_get(entry, "type"));
        struct gguf_type_facts facts = gguf_type_facts_of(type);
        static uint8_t bytes[4096];
        int64_t n_bytes = bytes_of_hex(json_string_value(json_object_get(entry, "bytes")), bytes);
        if (facts.weights == 1) continue;
        for (int64_t b = 0; b < n_bytes / facts.bytes; b++) {
            const uint8_t *block = bytes + b * facts.bytes;
            uint8_t again[110], q[256], sc[16];
            int8_t q8[32];
            for (int e = 0; e < 32; e++) { // of the 32-weight types, from their definition
                int at = (type == GGUF_Q4_1 ? 4 : type == GGUF_MXFP4 ? 1 : 2) + e % 16;
                q[e] = (uint8_t)(e < 16 ? block[at] & 15 : block[at] >> 4);
            }
            uint16_t d = (uint16_t)(block[0] | block[1] << 8), m = (uint16_t)(block[2] | block[3] << 8);
            if (type == GGUF_Q4_0) gguf_q4_0_pack(d, q, again);
            if (type == GGUF_Q4_1) gguf_q4_1_pack(d, m, q, again);
            if (type == GGUF_MXFP4) gguf_mxfp4_pack(block[0], q, again);
            if (type == GGUF_Q8_0) {
                memcpy(q8, block + 2, 32);
                gguf_q8_0_pack(d, q8, again);
            }
            if (type == GGUF_Q3_K) {
                // With d = 1 the value is (sc - 32) (q - 4); llama.cpp's picture of the scales: low halves IIIIAAAA …, high MMIIEEAA …
                const uint8_t *s = block + 96;
                for (int k = 0; k < 16; k++)
                    sc[k] = (uint8_t)((k < 8 ? s[k] & 15 : s[k - 8] >> 4) | (s[8 + k % 4] >> 2 * (k / 4) & 3) << 4);
                for (int e = 0; e < 256; e++)
                    q[e] = (uint8_t)((block[32 + e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3) +
                                     4 * (block[e % 32] >> e / 32 & 1));
                gguf_q3_k_pack((uint16_t)(block[108] | block[109] << 8), sc, q, again);
            }
            assert_memory_equal(again, block, (size_t)facts.bytes);
        }
    }
    json_decref(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_mean_what_the_gguf_package_says),
        cmocka_unit_test(packing_gives_the_bytes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
