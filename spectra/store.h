// Records of samples in a file that only grows: number, loss, norms, inner products, sketches.
//
//     TRY(store_create("run/records", settings, 0, 4096, &store));          // or store_resume
//     TRY(store_append(store, &record));  …  TRY(store_sync(store));
//     store_free(store);
//
//     TRY(store_open("run/records", &store));
//     for (int64_t i = 0; i < store->samples; i++) TRY(store_read(store, i, &record));
//
// File, little endian: "DQSAMPLE" | u32 bytes of the text | u32 bytes of a record | u32 CRC of what stands before and of
// the text | u32 zero | the settings as JSON, with "first_sample" and "samples", filled up with spaces to a multiple of 8 |
// records. Record i is that of sample first_sample + i:
//     u64 sample | f64 loss | f64 norms [groups] | f64 inner [directions] | f32 sketches [groups, J, k] |
//     (zeros up to a multiple of 8, less 4) | u32 CRC of the file's CRC and of the record's bytes before this.
// A killed writer leaves whole records and perhaps a part of one, which store_resume cuts off.
#ifndef DQ_SPECTRA_STORE_H
#define DQ_SPECTRA_STORE_H

#include "spectra/settings.h"

#include <stdbool.h>

struct store_record {
    int64_t sample;        // place in the order of windows
    double loss;           // mean over the window's predictions, nats
    const double *norms;   // [groups] squared norms of the gradient
    const double *inner;   // [directions] inner products of the gradient with them
    const float *sketches; // [groups, J, k]
};

struct store {
    char *path;
    int fd;
    struct settings *settings;
    int64_t first, samples; // the range that belongs into it
    int64_t n;              // records that it holds
    int64_t header_bytes, record_bytes;
    uint32_t crc;  // of the header
    void *buffer;  // one record
    bool writable; // made by store_create or store_resume
};

// An empty store for samples first .. first + samples - 1; a file of that name is overwritten. Copies the settings.
enum status store_create(const char *path, const struct settings *settings, int64_t first, int64_t samples,
                         struct store **out);

// To go on writing: keeps the first `keep` records, which are checked, and cuts off what follows. STATUS_INVALID names the
// first setting that differs; STATUS_FORMAT: damaged, or fewer than `keep` whole records.
enum status store_resume(const char *path, const struct settings *settings, int64_t first, int64_t samples,
                         int64_t keep, struct store **out);

// To read. STATUS_FORMAT: damaged, or of another length than its header says. STATUS_INVALID: not all samples are there yet.
enum status store_open(const char *path, struct store **out);
void store_free(struct store *store); // accepts NULL

// record->sample must be the next one. On failure (STATUS_IO) the file ends with the last whole record, as far as the
// system allows.
enum status store_append(struct store *store, const struct store_record *record);
enum status store_sync(struct store *store); // what has been appended survives a power cut

// Record i; its arrays are valid until the next call. STATUS_FORMAT: damaged.
enum status store_read(struct store *store, int64_t i, struct store_record *record);

#endif
