// The command line of `discquant-bench ablate`. Its settings are one static object: a process parses it once.
#ifndef DQ_BENCH_ABLATE_H
#define DQ_BENCH_ABLATE_H

#include "data/program.h"

extern const struct command ablate_command;

#endif
