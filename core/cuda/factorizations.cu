// eigh, cholesky, svd by the library behind solver.cuh, and the small kernels around it.
//
// The library counts columns where views count rows: a row-major matrix is the column-major one of its transpose, with the row
// stride as leading dimension. A symmetric matrix is its own transpose, so columns of eigenvectors come out as rows and the
// lower triangle is the library's upper one. The SVD of a^T = v s u^T puts v^T where u is asked for and u where v^T is; the library
// wants no fewer rows than columns, so a matrix with more rows than columns is transposed first and its factors after.
//
// Kernels: blocks of THREADS threads. not_finite: a block walks over rows, threads over columns; a read. zero_above: the same, a
// write of half the matrix. transpose: a block per 32 x 32 tile through 8.25 KiB of shared memory, whose rows are one element longer
// so that columns lie in different banks; a read and a write, both in runs of 256 bytes. All are small beside the factorization,
// which reads the matrix many times.
#include "core/cuda/solver.cuh"

enum { THREADS = 256, TILE = 32, ROWS_MOST = 65536 };

static __global__ void not_finite(struct view a, bool lower, int *found) {
    for (int64_t i = blockIdx.x; i < a.rows; i += gridDim.x) {
        const double *row = (const double *)a.data + i * a.stride;
        for (int64_t j = threadIdx.x; j < (lower ? i + 1 : a.cols); j += blockDim.x)
            if (!isfinite(row[j])) *found = 1;
    }
}

static __global__ void zero_above(struct view a) {
    for (int64_t i = blockIdx.x; i < a.rows; i += gridDim.x) {
        double *row = (double *)a.data + i * a.stride;
        for (int64_t j = i + 1 + threadIdx.x; j < a.cols; j += blockDim.x) row[j] = 0;
    }
}

static __global__ void transpose(struct view a, struct view y, int64_t tiles_across) {
    double *tile = shared_memory<double>();
    int64_t row = blockIdx.x / tiles_across * TILE, col = blockIdx.x % tiles_across * TILE; // of a
    int x = (int)threadIdx.x % TILE, first = (int)threadIdx.x / TILE;
    for (int i = first; i < TILE; i += THREADS / TILE)
        if (row + i < a.rows && col + x < a.cols)
            tile[i * (TILE + 1) + x] = ((const double *)a.data)[(row + i) * a.stride + col + x];
    __syncthreads();
    for (int i = first; i < TILE; i += THREADS / TILE)
        if (col + i < a.cols && row + x < a.rows)
            ((double *)y.data)[(col + i) * y.stride + row + x] = tile[x * (TILE + 1) + i];
}

// ---- launchers ----

static unsigned row_blocks(struct view a) { return a.rows < ROWS_MOST ? (unsigned)a.rows : (unsigned)ROWS_MOST; }

static enum status transpose_run(struct backend *backend, struct view a, struct view y) {
    int64_t across = (a.cols + TILE - 1) / TILE, blocks = across * ((a.rows + TILE - 1) / TILE);
    return LAUNCH(transpose, (unsigned)blocks, THREADS, TILE * (TILE + 1) * sizeof(double), backend, a, y, across);
}

// Memory of one call.
struct scratch {
    struct device *device;
    void *held[4];
    int n;
};

static enum status scratch_matrix(struct scratch *scratch, int64_t rows, int64_t cols, struct view *out) {
    void *memory = NULL;
    enum status status = device_alloc(scratch->device, rows * cols * 8, "copy of a factor", &memory);
    if (status != STATUS_OK) return status;
    scratch->held[scratch->n++] = memory;
    *out = view_new(memory, DTYPE_F64, rows, cols);
    return STATUS_OK;
}

static void scratch_free(struct scratch *scratch) {
    for (int i = 0; i < scratch->n; i++) device_free(scratch->device, scratch->held[i]);
}

static enum status solver_of(struct backend *backend, struct solver **out) {
    struct cuda_state *state = cuda_state_of(backend);
    enum status status = state->solver ? STATUS_OK : solver_open(state->device, &state->solver);
    if (status == STATUS_OK) *out = state->solver;
    return status;
}

static enum status check_finite(struct backend *backend, struct view a, bool lower, const char *op) {
    enum status status = STATUS_OK;
    struct device *device = cuda_state_of(backend)->device;
    int found = 0;
    void *flag = NULL;
    TRY(device_alloc(device, sizeof found, "flag", &flag));
    TRY(device_write(device, flag, &found, sizeof found));
    TRY(LAUNCH(not_finite, row_blocks(a), THREADS, 0, backend, a, lower, (int *)flag));
    TRY(device_read(device, &found, flag, sizeof found));
    if (found) status = status_set(STATUS_INVALID, "%s: the matrix has a number that is not finite", op);
done:
    device_free(device, flag);
    return status;
}

static enum status check_converged(const char *op, int info) {
    if (info == 0) return STATUS_OK;
    return status_set(STATUS_INVALID, "%s: no convergence (cuSOLVER's info %d)", op, info);
}

extern "C" enum status cuda_eigh(struct backend *backend, const struct op_call *call) {
    enum status status = STATUS_OK;
    struct scratch scratch = {cuda_state_of(backend)->device, {}, 0};
    struct solver *solver = NULL;
    struct view a = call->in[0], values;
    int info = 0;
    TRY(solver_of(backend, &solver));
    TRY(check_finite(backend, a, true, "eigh"));
    TRY(scratch_matrix(&scratch, 1, a.rows, &values));
    TRY(solver_eigh(solver, a.rows, (double *)a.data, a.stride, (double *)values.data, &info));
    TRY(check_converged("eigh", info));
    TRY(transpose_run(backend, values, call->out[0]));
done:
    scratch_free(&scratch);
    return status;
}

extern "C" enum status cuda_cholesky(struct backend *backend, const struct op_call *call) {
    enum status status = STATUS_OK;
    struct solver *solver = NULL;
    struct view a = call->in[0];
    int info = 0;
    TRY(solver_of(backend, &solver));
    TRY(check_finite(backend, a, true, "cholesky"));
    TRY(solver_cholesky(solver, a.rows, (double *)a.data, a.stride, &info));
    TRY(LAUNCH(zero_above, row_blocks(a), THREADS, 0, backend, a));
    if (info > 0)
        status = status_set(STATUS_INVALID,
                            "cholesky: the matrix is not positive definite, its leading minor of size %d is not", info);
done:
    return status;
}

// a [m, n] with m <= n: a^T = v s u^T in the library's order.
static enum status svd_wide(struct solver *solver, struct view a, double *values, struct view u, struct view vt,
                            int *info) {
    return solver_svd(solver, a.cols, a.rows, (double *)a.data, a.stride, values, (double *)vt.data, vt.stride,
                      (double *)u.data, u.stride, info);
}

extern "C" enum status cuda_svd(struct backend *backend, const struct op_call *call) {
    enum status status = STATUS_OK;
    struct scratch scratch = {cuda_state_of(backend)->device, {}, 0};
    struct solver *solver = NULL;
    struct view a = call->in[0], u = call->out[1], vt = call->out[2], values, turned, turned_u, turned_v;
    int info = 0;
    TRY(solver_of(backend, &solver));
    TRY(check_finite(backend, a, false, "svd"));
    TRY(scratch_matrix(&scratch, 1, call->out[0].rows, &values));
    if (a.rows <= a.cols) {
        TRY(svd_wide(solver, a, (double *)values.data, u, vt, &info));
    } else { // a^T = v s u^T: its u is v, its v^T is u^T
        TRY(scratch_matrix(&scratch, a.cols, a.rows, &turned));
        TRY(scratch_matrix(&scratch, vt.cols, vt.rows, &turned_v));
        TRY(scratch_matrix(&scratch, u.cols, u.rows, &turned_u));
        TRY(transpose_run(backend, a, turned));
        TRY(svd_wide(solver, turned, (double *)values.data, turned_v, turned_u, &info));
        TRY(transpose_run(backend, turned_v, vt));
        TRY(transpose_run(backend, turned_u, u));
    }
    TRY(check_converged("svd", info));
    TRY(transpose_run(backend, values, call->out[0]));
done:
    scratch_free(&scratch);
    return status;
}
