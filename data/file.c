#include "data/file.h"

#include "core/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum status file_read(const char *path, int64_t max_bytes, char **bytes, int64_t *n_bytes) {
    enum status status = STATUS_OK;
    void *buffer = NULL;
    // O_NONBLOCK: opening a named pipe must not wait for a writer; it has no effect on regular files.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return status_set(STATUS_IO, "%s: cannot open: %s", path, strerror(errno));
    struct stat about;
    if (fstat(fd, &about) != 0) TRY(status_set(STATUS_IO, "%s: cannot read: %s", path, strerror(errno)));
    if (S_ISDIR(about.st_mode)) TRY(status_set(STATUS_IO, "%s: is a folder, a file is needed", path));
    if (!S_ISREG(about.st_mode)) TRY(status_set(STATUS_IO, "%s: is not a regular file", path));
    int64_t size = (int64_t)about.st_size;
    if (size > max_bytes)
        TRY(status_set(STATUS_FORMAT, "%s: has %lld bytes, more than the %lld a file of this kind may have", path,
                       (long long)size, (long long)max_bytes));
    TRY(mem_buffer_new(size + 1, path, &buffer));
    int64_t have = 0;
    while (have < size) {
        ssize_t got = read(fd, (char *)buffer + have, (size_t)(size - have));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) TRY(status_set(STATUS_IO, "%s: cannot read: %s", path, strerror(errno)));
        if (got == 0) TRY(status_set(STATUS_IO, "%s: became shorter while it was read", path));
        have += got;
    }
    ((char *)buffer)[size] = 0;
    *bytes = buffer;
    *n_bytes = size;
    buffer = NULL;
done:
    mem_buffer_free(buffer);
    close(fd);
    return status;
}
