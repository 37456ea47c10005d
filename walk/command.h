// The command lines of the program `discquant-walk`. Their settings are static objects: a process parses one, once.
#ifndef DQ_WALK_COMMAND_H
#define DQ_WALK_COMMAND_H

#include "data/program.h"

extern const struct command walk_commands[]; // synthetic, round, validate; ends with one without name

#endif
