// The state of an interrupted run: named arrays and numbers in one file, every byte under a CRC-32.
//
//     struct checkpoint *state = checkpoint_new();
//     checkpoint_add_integer(state, "step", step);
//     checkpoint_add_floats(state, "x", x, n);                // keeps x until checkpoint_free
//     TRY(run_folder_checkpoint_save(run, state));
//     …
//     TRY(run_folder_checkpoint_load(run, &state));           // state = NULL: no checkpoint, begin at the beginning
//     TRY(checkpoint_integer(state, "step", 0, steps, &step));
//     TRY(checkpoint_floats(state, "x", x, n));
//
// File, little endian: "DQCHKPT1" | u32 entries | u32 table bytes | u64 file bytes | u32 CRC of the table |
// u32 CRC of the 28 bytes before it | table | data. The table holds for each entry: u32 name bytes, u32 kind,
// u64 elements, u32 CRC of its data, name. Data stand in the order of the table without gaps.
// Reading checks all of it before it returns; a file that is cut short, damaged or made up gives STATUS_FORMAT.
#ifndef DQ_DATA_CHECKPOINT_H
#define DQ_DATA_CHECKPOINT_H

#include "core/backend/backend.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct checkpoint;

struct checkpoint *checkpoint_new(void);
void checkpoint_free(struct checkpoint *checkpoint); // accepts NULL

// Names are unique, 1 to 255 bytes. Arrays are borrowed until checkpoint_free; n may be 0.
void checkpoint_add_integer(struct checkpoint *checkpoint, const char *name, int64_t value);
void checkpoint_add_number(struct checkpoint *checkpoint, const char *name, double value);
void checkpoint_add_floats(struct checkpoint *checkpoint, const char *name, const float *values, int64_t n);
void checkpoint_add_doubles(struct checkpoint *checkpoint, const char *name, const double *values, int64_t n);
void checkpoint_add_bytes(struct checkpoint *checkpoint, const char *name, const void *bytes, int64_t n);
// A matrix of the backend, F32 as floats, BF16 as bytes; borrowed where the host can read it, else copied.
enum status checkpoint_add_view(struct checkpoint *checkpoint, const char *name, struct backend *backend,
                                struct view view);

// Written aside, synced, renamed (data/whole_file.h): on failure (STATUS_IO) the checkpoint that was there before is still whole.
enum status checkpoint_write(const struct checkpoint *checkpoint, const char *path);

// Opens and verifies. The arrays stay in the file until they are asked for.
enum status checkpoint_read(const char *path, struct checkpoint **out);

// What a checkpoint that was read holds. STATUS_FORMAT when there is no such entry, when it is of another kind, has
// another number of elements, or (integers) lies outside [min, max].
enum status checkpoint_integer(const struct checkpoint *checkpoint, const char *name, int64_t min, int64_t max,
                               int64_t *out);
enum status checkpoint_number(const struct checkpoint *checkpoint, const char *name, double *out);
enum status checkpoint_floats(const struct checkpoint *checkpoint, const char *name, float *out, int64_t n);
enum status checkpoint_doubles(const struct checkpoint *checkpoint, const char *name, double *out, int64_t n);
enum status checkpoint_bytes(const struct checkpoint *checkpoint, const char *name, void *out, int64_t n);
enum status checkpoint_view(const struct checkpoint *checkpoint, const char *name, struct backend *backend,
                            struct view out);
bool checkpoint_has(const struct checkpoint *checkpoint, const char *name);

#endif
