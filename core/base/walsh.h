// The Walsh-Hadamard transform, O(n log n).
//
//     walsh_transform(x, n);       // x <- H x, H[i][k] = (-1)^(number of bits set in i & k)
//     walsh_transform(x, n);       // n times the old x
#ifndef DQ_CORE_BASE_WALSH_H
#define DQ_CORE_BASE_WALSH_H

#include <stdbool.h>
#include <stdint.h>

bool walsh_has_size(int64_t n); // n is a power of two

// In place, natural order, without a factor: H H = n I. x [n]; n a power of two.
void walsh_transform(double *x, int64_t n);

#endif
