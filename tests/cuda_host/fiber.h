// A call stack of its own that is entered and left at will: what a CUDA thread is in the emulation.
//
//     struct fiber *fiber = fiber_new(run, context);
//     fiber_enter(fiber);   // runs `run(context)` until it calls fiber_leave; the next fiber_enter goes on from there
//
// One thread of the host only. `run` never returns. AddressSanitizer is told of every switch.
#ifndef DQ_TESTS_CUDA_HOST_FIBER_H
#define DQ_TESTS_CUDA_HOST_FIBER_H

#ifdef __cplusplus
extern "C" {
#endif

struct fiber;

struct fiber *fiber_new(void (*run)(void *), void *context); // lives as long as the process
void fiber_enter(struct fiber *fiber);                       // from outside all fibers
void fiber_leave(struct fiber *fiber);                       // from inside this one

#ifdef __cplusplus
}
#endif
#endif
