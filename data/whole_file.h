// Files that appear complete or not at all: written aside as NAME.part, synced, then renamed to NAME. Whatever happens
// before the rename (kill, crash, full disk) leaves the old file of that name as it was. A NAME.part left by a killed
// process is overwritten by the next writer; two writers at once are refused.
//
//     struct whole_file *file = NULL;
//     TRY(whole_file_open(path, &file));
//     TRY(whole_file_write(file, bytes, n));
//     TRY(whole_file_commit(file));
//   done:
//     whole_file_free(file);    // accepts NULL; removes NAME.part unless committed
#ifndef DQ_DATA_WHOLE_FILE_H
#define DQ_DATA_WHOLE_FILE_H

#include "core/base/status.h"

#include <stddef.h>
#include <stdint.h>

struct whole_file;

// All return STATUS_IO with the path and the system's reason.
enum status whole_file_open(const char *path, struct whole_file **out);
enum status whole_file_write(struct whole_file *file, const void *bytes, size_t n);
enum status whole_file_commit(struct whole_file *file);

// Instead of whole_file_write: gives the file `bytes` zeros on the disk, at least one, and maps them for writing; commit
// makes the file of what is there then. The mapping outlives `file`: the caller's to munmap.
enum status whole_file_map(struct whole_file *file, int64_t bytes, void **out);

void whole_file_free(struct whole_file *file);

// Open, write, commit at once.
enum status whole_file_put(const char *path, const void *bytes, size_t n);

// `to` becomes a byte-for-byte copy of the file `from`.
enum status whole_file_copy(const char *from, const char *to);

// Makes a folder and its parents; one that is there already is fine.
enum status whole_file_folder(const char *path);

// Makes a rename or unlink in `folder` last through a power cut. Errors are of no use to the caller and ignored.
void whole_file_sync_folder(const char *folder);

// Fault injection for tests: the k-th system call that creates, writes, syncs or renames from now on fails as on a full
// disk (k = 0: the next); -1 turns it off.
void whole_file_fail_at(int64_t k);

#endif
