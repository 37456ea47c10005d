#include "walk/state.h"
enum status gsw_run(struct walk_state *s, int64_t stop, bool landing, int64_t *moves, int64_t *kept) {
    (void)s, (void)stop, (void)landing;
    *moves = 0, *kept = s->rank;
    return STATUS_OK;
}
