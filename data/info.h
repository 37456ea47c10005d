// What `discquant-data info PATH` prints: the tensors of a safetensors file, or configuration and tensors of a model
// folder.
#ifndef DQ_DATA_INFO_H
#define DQ_DATA_INFO_H

#include "core/base/status.h"

#include <stdio.h>

// A path that is neither fails with the reason; nothing is printed then. Control characters in names become '?'.
enum status info_print(const char *path, FILE *out);

#endif
