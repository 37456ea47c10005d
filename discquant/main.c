// discquant: rounds the weights of a model to a quantization grid.
#include "discquant/command.h"

int main(int argc, char **argv) { return program_main(&discquant_command, argc, argv); }
