// The device that the tests of this folder run on: $DISCQUANT_DEVICE, "cuda" when that is not set.
#ifndef DQ_TESTS_GPU_DEVICE_H
#define DQ_TESTS_GPU_DEVICE_H

#include "core/backend/backend.h"

#include <stdio.h>
#include <stdlib.h>

// Exit status by which a test program says that it was skipped.
enum { SKIPPED = 77 };

static inline const char *device_name(void) {
    const char *name = getenv("DISCQUANT_DEVICE");
    return name ? name : "cuda";
}

// NULL, after a line saying why, where there is no such device.
static inline struct backend *device_open_or_say(void) {
    struct backend *backend = NULL;
    enum status status = backend_open(device_name(), &backend);
    if (status == STATUS_OK) return backend;
    printf("skipped: %s\n", status_message());
    return NULL;
}

#endif
