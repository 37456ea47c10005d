#include "data/folder.h"

#include "core/base/mem.h"
#include "data/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static enum status io_failed(const char *path, const char *what) {
    return status_set(STATUS_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

// The name comes into being, or is known to have done so, only when its folder is on disk. File systems that cannot
// sync a folder say EINVAL; there is nothing better to do there.
static enum status parent_sync(const char *path) {
    char *parent = mem_string(path);
    char *slash = strrchr(parent, '/');
    if (slash) slash[slash == parent] = 0; // "/name" has the parent "/"
    int fd = open(slash ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum status status = STATUS_OK;
    if (fd >= 0 && fsync(fd) != 0 && errno != EINVAL) status = io_failed(path, "write its folder");
    if (fd >= 0) close(fd);
    free(parent);
    return status;
}

// A file in the folder while it is made, so that what a killed run left is known as such and cleared away.
static const char MARKER[] = ".discquant-unfinished";

struct folder_writer {
    char *path, *aside; // aside: path + ".part"
    int fd;             // of `aside`, locked; -1 when there is nothing of ours at that name
    bool replaces;      // something worth keeping until the end stands at `path`
};

static bool marker_is_in(const char *folder) {
    char *marker = mem_format("%s/%s", folder, MARKER);
    bool found = file_exists(marker);
    free(marker);
    return found;
}

static enum status marker_put(const char *folder) {
    char *marker = mem_format("%s/%s", folder, MARKER);
    int fd = open(marker, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    enum status status = fd < 0 ? io_failed(marker, "create") : STATUS_OK;
    if (fd >= 0) close(fd);
    free(marker);
    return status;
}

static int entry_remove(const char *path, const struct stat *about, int kind, struct FTW *place) {
    (void)about, (void)kind, (void)place;
    remove(path);
    return 0;
}

static void folder_remove(const char *path) { nftw(path, entry_remove, 16, FTW_DEPTH | FTW_PHYS); }

static bool folder_is_empty(const char *path) {
    DIR *folder = opendir(path);
    if (!folder) return false;
    bool empty = true;
    for (struct dirent *entry; empty && (entry = readdir(folder));)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    closedir(folder);
    return empty;
}

// What may be done to whatever stands at writer->path now.
static enum status target_check(struct folder_writer *writer, bool overwrite, const char *mark) {
    struct stat about;
    const char *path = writer->path;
    if (lstat(path, &about) != 0) return errno == ENOENT ? STATUS_OK : io_failed(path, "look at");
    if (!S_ISDIR(about.st_mode)) return status_set(STATUS_INVALID, "%s: exists and is not a folder", path);
    if (folder_is_empty(path)) return STATUS_OK;
    if (!overwrite)
        return status_set(STATUS_INVALID, "%s: exists already; choose another name or allow replacing it", path);
    char *marked = mem_format("%s/%s", path, mark);
    writer->replaces = file_exists(marked);
    free(marked);
    if (writer->replaces) return STATUS_OK;
    return status_set(STATUS_INVALID, "%s: is not replaced: it holds files but no %s", path, mark);
}

static enum status folder_lock(const char *path, int *out) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return io_failed(path, "open");
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return status_set(STATUS_IO, "%s: another process is writing this folder", path);
    }
    *out = fd;
    return STATUS_OK;
}

static enum status aside_make(struct folder_writer *writer) {
    enum status status = STATUS_OK;
    int old = -1;
    if (mkdir(writer->aside, 0777) != 0) {
        if (errno != EEXIST) TRY(io_failed(writer->aside, "create"));
        TRY(folder_lock(writer->aside, &old));
        if (!marker_is_in(writer->aside) && !folder_is_empty(writer->aside))
            TRY(status_set(STATUS_INVALID, "%s: is in the way of making %s; move it", writer->aside, writer->path));
        folder_remove(writer->aside);
        if (mkdir(writer->aside, 0777) != 0) TRY(io_failed(writer->aside, "create"));
    }
    TRY(folder_lock(writer->aside, &writer->fd));
    TRY(marker_put(writer->aside));
done:
    if (old >= 0) close(old);
    return status;
}

enum status folder_writer_new(const char *path, bool overwrite, const char *mark, struct folder_writer **out) {
    enum status status = STATUS_OK;
    struct folder_writer *writer = mem_new(1, sizeof *writer);
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    writer->fd = -1;
    writer->path = mem_string_n(path, length);
    writer->aside = mem_format("%s.part", writer->path);
    TRY(target_check(writer, overwrite, mark));
    TRY(aside_make(writer));
    *out = writer;
    writer = NULL;
done:
    folder_writer_free(writer);
    return status;
}

const char *folder_writer_path(const struct folder_writer *writer) { return writer->aside; }

// Afterwards the new folder is at `path` and the old one at `aside`. Where the file system cannot swap two names there
// is a moment at which nothing stands at `path`, but never a part.
static enum status folder_swap(struct folder_writer *writer) {
    enum status status = STATUS_OK;
    char *old = NULL;
    if (renameat2(AT_FDCWD, writer->aside, AT_FDCWD, writer->path, RENAME_EXCHANGE) == 0) goto done;
    old = mem_format("%s.old", writer->aside);
    if (rename(writer->path, old) != 0) TRY(io_failed(writer->path, "rename"));
    if (rename(writer->aside, writer->path) != 0) {
        status = io_failed(writer->path, "rename the finished folder");
        rename(old, writer->path);
        goto done;
    }
    if (rename(old, writer->aside) != 0) folder_remove(old);
done:
    free(old);
    return status;
}

// The marker goes last, and the old folder gets one first: wherever the process is killed, what lies at `aside` is known
// to be no more than a leftover.
enum status folder_writer_finish(struct folder_writer *writer) {
    enum status status = STATUS_OK;
    char *marker = mem_format("%s/%s", writer->path, MARKER);
    if (fsync(writer->fd) != 0 && errno != EINVAL) TRY(io_failed(writer->path, "write"));
    if (writer->replaces) {
        TRY(marker_put(writer->path));
        TRY(folder_swap(writer));
        folder_remove(writer->aside);
    } else if (rename(writer->aside, writer->path) != 0) {
        TRY(io_failed(writer->path, "rename the finished folder"));
    }
    unlink(marker);
    close(writer->fd);
    writer->fd = -1;
    TRY(parent_sync(writer->path));
done:
    free(marker);
    return status;
}

void folder_writer_free(struct folder_writer *writer) {
    if (!writer) return;
    if (writer->fd >= 0) {
        folder_remove(writer->aside);
        close(writer->fd);
    }
    free(writer->aside);
    free(writer->path);
    free(writer);
}
