#include "data/folder.h"

#include "core/base/mem.h"
#include "data/file.h"
#include "data/whole_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

// The name that a folder bound for `path` has while it is made; attempt counts up past leftovers of killed runs.
static char *aside_name(const char *path, int attempt) {
    return mem_format("%s.tmp-%ld-%d", path, (long)getpid(), attempt);
}

enum { ATTEMPTS = 1000 };

struct folder_writer {
    char *path, *aside; // aside: NULL once finished
    bool replaces;      // something worth keeping until the end stands at `path`
};

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

enum status folder_writer_new(const char *path, bool overwrite, const char *mark, struct folder_writer **out) {
    enum status status = STATUS_OK;
    struct folder_writer *writer = mem_new(1, sizeof *writer);
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    writer->path = mem_string_n(path, length);
    TRY(target_check(writer, overwrite, mark));
    for (int attempt = 0; !writer->aside; attempt++) {
        char *aside = aside_name(writer->path, attempt);
        int problem = mkdir(aside, 0777) == 0 ? 0 : errno;
        if (problem == 0)
            writer->aside = aside;
        else
            free(aside);
        errno = problem;
        if (problem && (problem != EEXIST || attempt == ATTEMPTS)) TRY(io_failed(path, "create"));
    }
    *out = writer;
    writer = NULL;
done:
    folder_writer_free(writer);
    return status;
}

const char *folder_writer_path(const struct folder_writer *writer) { return writer->aside; }

static int entry_remove(const char *path, const struct stat *about, int kind, struct FTW *place) {
    (void)about, (void)kind, (void)place;
    remove(path);
    return 0;
}

static void folder_remove(const char *path) { nftw(path, entry_remove, 16, FTW_DEPTH | FTW_PHYS); }

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

enum status folder_writer_finish(struct folder_writer *writer) {
    enum status status = STATUS_OK;
    int fd = open(writer->aside, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL)) TRY(io_failed(writer->path, "write"));
    if (writer->replaces) {
        TRY(folder_swap(writer));
        folder_remove(writer->aside);
    } else if (rename(writer->aside, writer->path) != 0) {
        TRY(io_failed(writer->path, "rename the finished folder"));
    }
    free(writer->aside);
    writer->aside = NULL;
    TRY(parent_sync(writer->path));
done:
    if (fd >= 0) close(fd);
    return status;
}

void folder_writer_free(struct folder_writer *writer) {
    if (!writer) return;
    if (writer->aside) folder_remove(writer->aside);
    free(writer->aside);
    free(writer->path);
    free(writer);
}
