// Folders that appear complete or not at all: filled beside their place (as PATH.part), then renamed to it. Whatever
// happens before leaves what stood there untouched. What a killed process left at PATH.part is cleared by the next
// writer; two writers at once are refused, and so is a PATH.part that is none of ours.
//
//     struct folder_writer *folder = NULL;
//     TRY(folder_writer_new(path, overwrite, "config.json", &folder));
//     … files are written into folder_writer_path(folder), each through data/whole_file.h …
//     TRY(folder_writer_finish(folder));
//   done:
//     folder_writer_free(folder);    // accepts NULL; removes what was not finished
#ifndef DQ_DATA_FOLDER_H
#define DQ_DATA_FOLDER_H

#include "core/base/status.h"

#include <stdbool.h>

struct folder_writer;

// `path` must not exist or be an empty folder (else STATUS_INVALID); with `overwrite` it may also be a folder that holds
// a file named `mark`, so that a mistyped name never costs somebody's other files. Its parent must exist.
enum status folder_writer_new(const char *path, bool overwrite, const char *mark, struct folder_writer **out);
const char *folder_writer_path(const struct folder_writer *writer);
enum status folder_writer_finish(struct folder_writer *writer);
void folder_writer_free(struct folder_writer *writer);

#endif
