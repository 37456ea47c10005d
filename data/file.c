#include "data/file.h"

#include "core/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum status io_failed(const char *path, const char *what) {
    return status_set(STATUS_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

bool file_exists(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 && !S_ISDIR(about.st_mode);
}

bool folder_exists(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

enum status file_open(const char *path, int *out, int64_t *n_bytes) {
    enum status status = STATUS_OK;
    // O_NONBLOCK: opening a named pipe must not wait for a writer; it has no effect on regular files.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return io_failed(path, "open");
    struct stat about;
    if (fstat(fd, &about) != 0) TRY(io_failed(path, "read"));
    if (S_ISDIR(about.st_mode)) TRY(status_set(STATUS_IO, "%s: is a folder, a file is needed", path));
    if (!S_ISREG(about.st_mode)) TRY(status_set(STATUS_IO, "%s: is not a regular file", path));
    *n_bytes = about.st_size;
    *out = fd;
    return STATUS_OK;
done:
    close(fd);
    return status;
}

enum status file_read_at(int fd, const char *path, int64_t from, char *bytes, int64_t n_bytes) {
    int64_t have = 0;
    while (have < n_bytes) {
        ssize_t got = pread(fd, bytes + have, (size_t)(n_bytes - have), (off_t)(from + have));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return io_failed(path, "read");
        if (got == 0) return status_set(STATUS_IO, "%s: became shorter while it was read", path);
        have += got;
    }
    return STATUS_OK;
}

enum status file_read(const char *path, int64_t max_bytes, char **bytes, int64_t *n_bytes) {
    enum status status = STATUS_OK;
    void *buffer = NULL;
    int64_t size = 0;
    int fd = -1;
    TRY(file_open(path, &fd, &size));
    if (size > max_bytes)
        TRY(status_set(STATUS_FORMAT, "%s: has %lld bytes, more than the %lld a file of this kind may have", path,
                       (long long)size, (long long)max_bytes));
    TRY(mem_buffer_new(size + 1, path, &buffer));
    TRY(file_read_at(fd, path, 0, buffer, size));
    ((char *)buffer)[size] = 0;
    *bytes = buffer;
    *n_bytes = size;
    buffer = NULL;
done:
    mem_buffer_free(buffer);
    if (fd >= 0) close(fd);
    return status;
}
