// The command line of `discquant-bench eval`. Its settings are one static object: a process parses it once.
#ifndef DQ_BENCH_EVAL_H
#define DQ_BENCH_EVAL_H

#include "data/program.h"

extern const struct command eval_command;

#endif
