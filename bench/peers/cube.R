# The cube method of the R package BalancedSampling on the instance in a folder.
#
#     Rscript cube.R FOLDER
#
# FOLDER holds matrix.npy [n, m] and y.npy [n]; x-cube.txt comes to stand beside them. The method balances sums of x_i / y_i over
# those drawn, with y_i the chance of being drawn; given columns M_ji y_i that is M x = M y. Prints one JSON line.
suppressMessages(library(BalancedSampling))
npy <- function(path) { # numbers in the order of the file; its last axis runs fastest
    file <- file(path, "rb")
    on.exit(close(file))
    readBin(file, "raw", 8)
    size <- readBin(file, "integer", 1, size = 2, signed = FALSE, endian = "little")
    shape <- sub(".*shape", "", readChar(file, size))
    shape <- as.numeric(regmatches(shape, gregexpr("[0-9]+", shape))[[1]])
    list(shape = shape, values = readBin(file, "double", prod(shape), endian = "little"))
}
folder <- commandArgs(TRUE)[1]
matrix <- npy(file.path(folder, "matrix.npy"))
y <- npy(file.path(folder, "y.npy"))$values
balance <- matrix(matrix$values, ncol = matrix$shape[2], byrow = TRUE) * y
set.seed(3)
seconds <- system.time(drawn <- cube(y, balance))[["elapsed"]]
x <- integer(length(y))
x[drawn] <- 1L
writeLines(as.character(x), file.path(folder, "x-cube.txt"))
cat(sprintf('{"n": %d, "m": %d, "what": "cube", "walk_seconds": %.4f, "BalancedSampling": "%s", "R": "%s"}\n', length(y), ncol(balance),
    seconds, packageVersion("BalancedSampling"), getRversion()))
