// The command line of the program `discquant`. Its settings are one static object: a process parses it once.
#ifndef DQ_DISCQUANT_COMMAND_H
#define DQ_DISCQUANT_COMMAND_H

#include "data/program.h"

extern const struct command discquant_command;

#endif
