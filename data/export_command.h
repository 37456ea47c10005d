// The command lines of `discquant-data export` and `discquant-data verify`.
#ifndef DQ_DATA_EXPORT_COMMAND_H
#define DQ_DATA_EXPORT_COMMAND_H

#include "data/program.h"

extern const struct command export_command, verify_command;

#endif
