// Whole files of the outside world, read with a limit. Writing: data/whole_file.h, data/folder.h.
#ifndef DQ_DATA_FILE_H
#define DQ_DATA_FILE_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

// STATUS_IO unless `path` is a regular file that can be opened; the descriptor is the caller's to close.
enum status file_open(const char *path, int *fd, int64_t *n_bytes);

// Exactly n_bytes at offset `from`; `path` is for the message.
enum status file_read_at(int fd, const char *path, int64_t from, char *bytes, int64_t n_bytes);

// A whole file of at most `max_bytes` bytes, in a buffer with one zero byte behind it; free with mem_buffer_free.
// STATUS_IO: cannot be opened or read, or is no regular file. STATUS_FORMAT: larger than max_bytes.
enum status file_read(const char *path, int64_t max_bytes, char **bytes, int64_t *n_bytes);

bool file_exists(const char *path); // something that is no folder, or a link to it
bool folder_exists(const char *path);

#endif
