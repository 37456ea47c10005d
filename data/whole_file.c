#include "data/whole_file.h"

#include "core/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct whole_file {
    int fd;     // of `aside`, locked
    char *path; // what it becomes
    char *aside;
    char *buffer; // [BUFFER_BYTES]
    size_t used;  // bytes waiting in buffer
};

enum { BUFFER_BYTES = 1 << 18 };

static int64_t fail_at = -1;

void whole_file_fail_at(int64_t k) { fail_at = k; }

static int injected_failure(void) {
    if (fail_at < 0 || fail_at-- > 0) return 0;
    errno = ENOSPC;
    return 1;
}

static enum status cannot(const char *what, const char *path) {
    return status_set(STATUS_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

void whole_file_sync_folder(const char *folder) {
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

static void sync_parent(const char *path) {
    const char *slash = strrchr(path, '/');
    char *parent = !slash ? mem_string(".") : mem_string_n(path, slash == path ? 1 : (size_t)(slash - path));
    whole_file_sync_folder(parent);
    free(parent);
}

// Opens NAME.part and locks it. Between open and lock another writer may have renamed its file away, so the name is
// looked up again once the lock is held. A file system without locks is used without.
static enum status open_aside(struct whole_file *file) {
    for (;;) {
        int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
        file->fd = injected_failure() ? -1 : open(file->aside, flags, 0666);
        if (file->fd < 0) return cannot("create", file->aside);
        int locked = flock(file->fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
        struct stat by_fd, by_name;
        if (locked && fstat(file->fd, &by_fd) == 0 && stat(file->aside, &by_name) == 0 &&
            by_fd.st_ino == by_name.st_ino)
            break;
        close(file->fd);
        file->fd = -1;
        if (!locked) return status_set(STATUS_IO, "%s: another process is writing this file", file->path);
    }
    if (ftruncate(file->fd, 0) != 0) return cannot("write", file->aside);
    return STATUS_OK;
}

enum status whole_file_open(const char *path, struct whole_file **out) {
    enum status status = STATUS_OK;
    struct whole_file *file = mem_new(1, sizeof *file);
    file->fd = -1;
    file->path = mem_string(path);
    file->aside = mem_format("%s.part", path);
    file->buffer = mem_new(BUFFER_BYTES, 1);
    TRY(open_aside(file));
    *out = file;
    file = NULL;
done:
    whole_file_free(file);
    return status;
}

static enum status write_out(struct whole_file *file, const char *bytes, size_t n) {
    while (n > 0) {
        ssize_t written = injected_failure() ? -1 : write(file->fd, bytes, n);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return cannot("write", file->path);
        bytes += written;
        n -= (size_t)written;
    }
    return STATUS_OK;
}

enum status whole_file_write(struct whole_file *file, const void *bytes, size_t n) {
    enum status status = STATUS_OK;
    if (file->used + n > BUFFER_BYTES) {
        TRY(write_out(file, file->buffer, file->used));
        file->used = 0;
    }
    if (n > BUFFER_BYTES) return write_out(file, bytes, n);
    if (n > 0) memcpy(file->buffer + file->used, bytes, n);
    file->used += n;
done:
    return status;
}

enum status whole_file_map(struct whole_file *file, int64_t bytes, void **out) {
    // Room first: a full disk would otherwise be a signal at some write to the mapping.
    int error = injected_failure() ? ENOSPC : posix_fallocate(file->fd, 0, bytes);
    if (error == 0) {
        void *map = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, 0);
        if (map != MAP_FAILED) {
            *out = map;
            return STATUS_OK;
        }
        error = errno;
    }
    errno = error;
    return cannot("make room for this file", file->path);
}

enum status whole_file_commit(struct whole_file *file) {
    enum status status = STATUS_OK;
    TRY(write_out(file, file->buffer, file->used));
    file->used = 0;
    if (injected_failure() || fsync(file->fd) != 0) return cannot("write", file->path);
    // Renamed while locked: a second writer either finds the lock or a name that is no longer its file.
    if (injected_failure() || rename(file->aside, file->path) != 0)
        return cannot("rename the finished file", file->path);
    close(file->fd);
    file->fd = -1;
    sync_parent(file->path);
done:
    return status;
}

void whole_file_free(struct whole_file *file) {
    if (!file) return;
    if (file->fd >= 0) {
        unlink(file->aside);
        close(file->fd);
    }
    free(file->path);
    free(file->aside);
    free(file->buffer);
    free(file);
}

enum status whole_file_put(const char *path, const void *bytes, size_t n) {
    enum status status = STATUS_OK;
    struct whole_file *file = NULL;
    TRY(whole_file_open(path, &file));
    TRY(whole_file_write(file, bytes, n));
    TRY(whole_file_commit(file));
done:
    whole_file_free(file);
    return status;
}

enum status whole_file_copy(const char *from, const char *to) {
    enum status status = STATUS_OK;
    struct whole_file *file = NULL;
    char *block = mem_new(BUFFER_BYTES, 1);
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0) TRY(cannot("open", from));
    TRY(whole_file_open(to, &file));
    for (ssize_t n; (n = read(fd, block, BUFFER_BYTES)) != 0;) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) TRY(cannot("read", from));
        TRY(whole_file_write(file, block, (size_t)n));
    }
    TRY(whole_file_commit(file));
done:
    if (fd >= 0) close(fd);
    whole_file_free(file);
    free(block);
    return status;
}

enum status whole_file_folder(const char *path) {
    enum status status = STATUS_OK;
    char *part = mem_string(path);
    for (char *at = part;; at++) {
        if (*at && (*at != '/' || at == part)) continue;
        char kept = *at;
        struct stat info;
        *at = 0;
        if ((injected_failure() || mkdir(part, 0777) != 0) && errno != EEXIST)
            status = cannot("make this folder", part);
        else if (stat(part, &info) != 0 || !S_ISDIR(info.st_mode))
            status = status_set(STATUS_IO, "%s: is no folder", part);
        *at = kept;
        if (status != STATUS_OK || !kept) break;
    }
    free(part);
    return status;
}
