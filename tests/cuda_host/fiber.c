// Stacks are mapped with an unreadable page below them. On x86-64 a switch pushes the registers that a called function keeps
// and exchanges stack pointers; elsewhere it is ucontext's, which costs a system call.
#include "tests/cuda_host/fiber.h"

#include "core/base/mem.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>

#ifndef __x86_64__
#include <ucontext.h>
#endif

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

enum { PAGE_BYTES = 4096, STACK_BYTES = 256 * 1024 };

#ifdef __x86_64__
typedef void *point; // stack pointer, registers above it
#else
typedef ucontext_t point;
#endif

struct fiber {
    void (*run)(void *);
    void *context;
    char *stack;
    point inside;
};

static point outside;         // where fiber_enter was called
static struct fiber *current; // the one entered last

#ifdef __x86_64__
void fiber_switch(point *from, point to);
__asm__(".text\n"
        ".type fiber_switch, @function\n"
        "fiber_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".size fiber_switch, . - fiber_switch\n");
#define SWITCH(from, to) fiber_switch(&(from), (to))
#else
#define SWITCH(from, to) swapcontext(&(from), &(to))
#endif

#ifdef __SANITIZE_ADDRESS__
static const void *outside_bottom;
static size_t outside_bytes;
static void switch_starts(void **frame, const struct fiber *to) {
    __sanitizer_start_switch_fiber(frame, to ? to->stack : outside_bottom, to ? STACK_BYTES : outside_bytes);
}
// `first`: on a new stack, which notes the bounds of the one outside.
static void switch_ends(void *frame, bool first) {
    __sanitizer_finish_switch_fiber(frame, first ? &outside_bottom : NULL, first ? &outside_bytes : NULL);
}
#else
static void switch_starts(void **frame, const struct fiber *to) { (void)frame, (void)to; }
static void switch_ends(void *frame, bool first) { (void)frame, (void)first; }
#endif

static void fiber_main(void) {
    switch_ends(NULL, true);
    current->run(current->context);
    REQUIRE(false, "a fiber never returns");
}

struct fiber *fiber_new(void (*run)(void *), void *context) {
    struct fiber *fiber = mem_new(1, sizeof *fiber);
    fiber->run = run, fiber->context = context;
    char *map = mmap(NULL, PAGE_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(map != MAP_FAILED && mprotect(map, PAGE_BYTES, PROT_NONE) == 0, "no memory for a stack");
    fiber->stack = map + PAGE_BYTES;
#ifdef __x86_64__
    // Six registers, the address that the first switch returns to, and a word that leaves the stack aligned as after a call.
    void **top = (void **)(fiber->stack + STACK_BYTES) - 8;
    top[6] = (void *)(uintptr_t)fiber_main;
    fiber->inside = top;
#else
    getcontext(&fiber->inside);
    fiber->inside.uc_stack.ss_sp = fiber->stack;
    fiber->inside.uc_stack.ss_size = STACK_BYTES;
    makecontext(&fiber->inside, fiber_main, 0);
#endif
    return fiber;
}

void fiber_enter(struct fiber *fiber) {
    void *frame = NULL;
    current = fiber;
    switch_starts(&frame, fiber);
    SWITCH(outside, fiber->inside);
    switch_ends(frame, false);
}

void fiber_leave(struct fiber *fiber) {
    void *frame = NULL;
    switch_starts(&frame, NULL);
    SWITCH(fiber->inside, outside);
    switch_ends(frame, false);
}
