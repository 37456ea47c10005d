// Commands of the toolkit in child processes: forked, with no program looked up or started anew. The parent must not have
// started threads (a parallel region of OpenMP) before; a child dies with its parent.
//
//     const struct child_command *command = child_command_find("discquant");
//     TRY(child_check(command, argc, argv));                   // the command line is right
//     TRY(child_start(command, argc, argv, "run.log", false, &pid));
//     while (waitpid(pid, &state, 0) < 0) {}
#ifndef DQ_BENCH_CHILD_H
#define DQ_BENCH_CHILD_H

#include "data/program.h"

#include <sys/types.h>

struct child_command {
    const char *program, *word; // "discquant-walk", "round"; word NULL: the program has one command
    const struct command *command;
};

// By "PROGRAM" or "PROGRAM WORD"; NULL: there is no such command here.
const struct child_command *child_command_find(const char *name);
const char *child_command_names(void); // for messages

// Whether the command has this long option, spelled out, and whether it takes a value.
bool child_command_option(const struct child_command *command, const char *name, bool *takes_value);

// argv: the program, its word, the options, NULL. STATUS_INVALID with the command's own complaint.
enum status child_check(const struct child_command *command, int argc, char **argv);

// stdout and stderr go to the file `log`, behind what it holds if `append`. STATUS_IO: the system has no more processes.
enum status child_start(const struct child_command *command, int argc, char **argv, const char *log, bool append,
                        pid_t *pid);

// Why a child failed, as a new string: the error line in its log, or the signal that killed it. NULL: it did not fail.
char *child_complaint(int wait_state, const char *log);

#endif
