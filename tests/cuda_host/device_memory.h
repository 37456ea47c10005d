// Memory of the emulated device. Every allocation ends where a page ends and stands between unreadable pages; the host can read
// and write none of it but through device_read and device_write (core/cuda/device.cuh), for it is unreadable unless a kernel
// runs. New memory is filled with 0xFF: NaN in every float format.
#ifndef DQ_TESTS_CUDA_HOST_DEVICE_MEMORY_H
#define DQ_TESTS_CUDA_HOST_DEVICE_MEMORY_H

#ifdef __cplusplus
extern "C" {
#endif

// All of it readable and writable until the matching close: while a kernel runs.
void device_memory_open(void);
void device_memory_close(void);

#ifdef __cplusplus
}
#endif
#endif
