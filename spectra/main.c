// discquant-spectra: what the covariance of a network's per-sample gradients is like, and what the paper says of it.
#include "data/program.h"

int main(int argc, char **argv) {
    const struct command commands[] = {
        {0},
    };
    return program_main_commands("discquant-spectra",
                                 "Measures the gradients of single samples: eigenvalues of their covariance, their "
                                 "decay, tails, and the first-order step.",
                                 commands, argc, argv);
}
