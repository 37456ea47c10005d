// Two runs of `discquant-bench eval` on the same items: `discquant-bench compare RUN RUN`. McNemar's exact test: of the items that one of
// them has right and the other wrong, half would be each one's if neither were better.
//
// Prints one JSON line: task, items, right_first, right_second, only_first, only_second, p_value (two-sided), and the same with _norm behind it
// where the runs have "correct_norm".
#ifndef DQ_BENCH_COMPARE_H
#define DQ_BENCH_COMPARE_H

#include "data/program.h"

extern const struct command compare_command;

// Two-sided p-value of `only_first` against `only_second` items, 1 where there are none.
double compare_p_value(int64_t only_first, int64_t only_second);

#endif
