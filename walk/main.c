// discquant-walk: rounds by random walks that keep M x = M y, and checks what the paper says of them.
#include "walk/command.h"

int main(int argc, char **argv) {
    return program_main_commands("discquant-walk", "Rounds by random walks that keep the sampled gradients' products.",
                                 walk_commands, argc, argv);
}
