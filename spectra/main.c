// discquant-spectra: what the covariance of a network's per-sample gradients is like, and what the paper says of it.
#include "spectra/merge.h"
#include "spectra/spectrum.h"
#include "spectra/synthetic.h"
#include "spectra/taylor.h"

int main(int argc, char **argv) {
    const struct command commands[] = {
        spectrum_command, merge_command, synthetic_command, taylor_command, {0},
    };
    return program_main_commands("discquant-spectra",
                                 "Measures the gradients of single samples: eigenvalues of their covariance, their "
                                 "decay, tails, and the first-order step.",
                                 commands, argc, argv);
}
