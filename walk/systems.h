// G, the Gram matrix of a walk's free rows, and the systems made of it, where the walk is: on the host (gram.h) or on a device
// (device.h).
//
//     TRY(system_keep(s, KEEP_START));
//     TRY(system_take_off(s, &sums, 0, s->n_leaving));     // leavers' rows off G
//     TRY(system_factor(s));                               // the trial system: G as it is now
//     TRY(system_trial_norm(s, 6, &norm));
//     system_swap(s);                                      // the trial system becomes the walk's
#ifndef DQ_WALK_SYSTEMS_H
#define DQ_WALK_SYSTEMS_H

#include "walk/state.h"

enum system_kept { KEEP_START, KEEP_BEFORE };

// G of a walk that begins: the first n_frozen of leave_ids are those that are not free. Sets the device up where asked for.
enum status system_start(struct walk_state *s, int64_t n_frozen, bool on_device);

// s->gram_trace.
enum status system_trace(struct walk_state *s);

// Copies of G, and G as it was at KEEP_START.
enum status system_keep(struct walk_state *s, enum system_kept which);
enum status system_back(struct walk_state *s);

// Leavers with slots first .. end - 1 off G; their sums are added.
enum status system_take_off(struct walk_state *s, const struct gram_sums *sums, int64_t first, int64_t end);

enum status system_factor(struct walk_state *s);
void system_swap(struct walk_state *s);

// Estimates of |G^-1| for the walk's system; of the largest eigenvalue of G^-1 K, G of the trial system, K of KEEP_BEFORE.
enum status system_inverse_norm(struct walk_state *s, int steps, double *out);
enum status system_trial_norm(struct walk_state *s, int steps, double *out);

// correct = G^-1 residual and, with `push`, push = G^-1 noise, for the coming pass.
enum status system_solve(struct walk_state *s, bool push);

// q_i . G^-1 q_i of the rows ids [n].
enum status system_leverages(struct walk_state *s, const int64_t *ids, int64_t n, double *out);

#endif
