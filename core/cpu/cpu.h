// The kernels of the CPU backend: one function per op, named cpu_<op>, in the file of its family. Calls are already
// checked (backend_run).
//
// Work is cut into parts whose size follows from the shapes alone, parts are shared among threads, and sums run in the
// order of the parts: the same bits for any number of threads.
#ifndef DQ_CORE_CPU_CPU_H
#define DQ_CORE_CPU_CPU_H

#include "core/backend/backend.h"

#define OP(name) op_kernel cpu_##name;
#include "core/ops/op_list.h"
#undef OP

#endif
