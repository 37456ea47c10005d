// The command line of `discquant-data corpus`. Its settings are one static object: a process parses it once.
#ifndef DQ_DATA_STORY_CORPUS_COMMAND_H
#define DQ_DATA_STORY_CORPUS_COMMAND_H

#include "data/program.h"

extern const struct command story_corpus_command;

#endif
