// Whole files and folders of the outside world: read with a limit, written so that they appear complete or not at all.
#ifndef DQ_DATA_FILE_H
#define DQ_DATA_FILE_H

#include "core/base/status.h"

#include <stdint.h>

// Reads a regular file of at most `max_bytes` bytes into a buffer with one zero byte behind it; free with
// mem_buffer_free. STATUS_IO: cannot be opened or read, or is no regular file. STATUS_FORMAT: larger than max_bytes.
enum status file_read(const char *path, int64_t max_bytes, char **bytes, int64_t *n_bytes);

#endif
