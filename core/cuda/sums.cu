// row_dot, sum_squares and output_error, sums in double: products of floats are exact there.
//
// row_dot, output_error: a team of threads per row (team.cuh). Traffic: a and b read; y and t read, dy written, and read when it accumulates.
//
// sum_squares: the rows of one output are cut into cells of SQUARES_CELL packs (contiguous rows count as one long row); PARTS blocks
// per output take cells in turns. With more than one part each leaves its sum in scratch memory and a second kernel adds them up,
// part after part within a thread, then over the block. PARTS follows from the shape alone: at least SQUARES_CELLS_EACH cells
// (64 KB) per part, at most SQUARES_PARTS parts. Shared memory: one double per warp. Traffic: a read; 16 bytes per part.
//
// A conversion and an addition in double per element: an H100 does 1.5e13 of each in a second, and reads 0.8e12 floats.
#include "core/cuda/device.cuh"
#include "core/cuda/pack.cuh"
#include "core/cuda/team.cuh"
#include "core/cuda/tiling.cuh"

template <typename T, int N>
static __global__ void row_dot(struct teams teams, double factor, strided<const T> a, strided<const T> b,
                               strided<double> y) {
    struct team team = team_here(teams);
    if (team.row >= teams.rows) return;
    const T *from_a = a.row(team.row), *from_b = b.row(team.row);
    double sum = 0;
    for (int64_t p = team.rank; p < teams.packs; p += team.size) {
        float u[N], v[N];
        load_pack(u, from_a + p * N);
        load_pack(v, from_b + p * N);
        for (int i = 0; i < N; i++) sum += (double)u[i] * (double)v[i];
    }
    sum = team_sum(team, sum, shared_memory<double>());
    if (team.rank == 0) *y.row(team.row) = factor * sum;
}

template <typename T, int N>
static __global__ void output_error(struct teams teams, int64_t rows_each, double factor, bool add,
                                    strided<const T> y_all, strided<const T> t_all, strided<const double> squares,
                                    strided<T> dy, strided<double> error) {
    struct team team = team_here(teams);
    if (team.row >= teams.rows) return;
    const T *y = y_all.row(team.row), *t = t_all.row(team.row);
    T *to = dy.row(team.row);
    double total = *squares.row(team.row / rows_each), share = total > 0 ? 1 / total : 0, sum = 0;
    float scale = (float)(2 * factor * share);
    for (int64_t p = team.rank; p < teams.packs; p += team.size) {
        float u[N], v[N], grad[N] = {};
        load_pack(u, y + p * N);
        load_pack(v, t + p * N);
        if (add) load_pack(grad, to + p * N);
        for (int i = 0; i < N; i++) {
            float d = u[i] - v[i];
            sum += (double)d * (double)d;
            grad[i] += scale * d;
        }
        store_pack(to + p * N, grad);
    }
    sum = team_sum(team, sum, shared_memory<double>());
    if (team.rank == 0) *error.row(team.row) = share * sum;
}

enum { SQUARES_THREADS = 256, SQUARES_CELL = 4 * SQUARES_THREADS, SQUARES_CELLS_EACH = 4, SQUARES_PARTS = 1024 };

struct squares_shape {
    int64_t rows_each, packs; // rows per output, packs per row
    int64_t strips, cells;    // cells per row, per output
    int64_t outputs, parts;   // parts per output
};

template <typename T, int N> static __device__ inline double cell_squares(const T *row, int64_t first, int64_t end) {
    double sum = 0;
#pragma unroll
    for (int k = 0; k < SQUARES_CELL / SQUARES_THREADS; k++) {
        int64_t p = first + k * SQUARES_THREADS + threadIdx.x;
        if (p >= end) continue;
        float v[N];
        load_pack(v, row + p * N);
        for (int i = 0; i < N; i++) sum += (double)v[i] * (double)v[i];
    }
    return sum;
}

// to: y with parts = 1, else scratch [outputs, parts].
template <typename T, int N>
static __global__ void sum_squares(struct squares_shape s, bool add, strided<const T> a, strided<double> to) {
    int64_t output = blockIdx.x / s.parts, part = blockIdx.x % s.parts;
    double sum = 0;
    for (int64_t c = part; c < s.cells; c += s.parts) {
        int64_t row = output * s.rows_each + c / s.strips, first = c % s.strips * SQUARES_CELL;
        sum += cell_squares<T, N>(a.row(row), first, s.packs);
    }
    sum = block_sum(sum, shared_memory<double>());
    if (threadIdx.x != 0) return;
    double *at = to.row(output) + part;
    *at = add ? *at + sum : sum;
}

static __global__ void sum_parts(int64_t parts, bool add, const double *from, strided<double> y) {
    int64_t output = blockIdx.x;
    double sum = 0;
    for (int64_t p = threadIdx.x; p < parts; p += blockDim.x) sum += from[output * parts + p];
    sum = block_sum(sum, shared_memory<double>());
    if (threadIdx.x == 0) *y.row(output) = add ? *y.row(output) + sum : sum;
}

extern "C" enum status cuda_row_dot(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view a = call->in[0], b = call->in[1], y = call->out[0];
    WITH_FLOAT(T, a.dtype, WITH_PACK(N, sizeof(T), packs_fit(a, sizeof(T)) && packs_fit(b, sizeof(T)), {
                   struct teams teams = teams_of(a.rows, a.cols / N);
                   status = LAUNCH((row_dot<T, N>), teams.blocks, teams.threads, REDUCE_BYTES, backend, teams,
                                   call->params.factor, strided_of<const T>(a), strided_of<const T>(b),
                                   strided_of<double>(y));
               }));
    return status;
}

// rows_each rows of `cols` columns per output.
static struct squares_shape squares_shape_of(int64_t outputs, int64_t rows_each, int64_t packs) {
    struct squares_shape s = {rows_each, packs, 0, 0, outputs, 0};
    s.strips = (packs + SQUARES_CELL - 1) / SQUARES_CELL;
    s.cells = s.strips * rows_each;
    s.parts = (s.cells + SQUARES_CELLS_EACH - 1) / SQUARES_CELLS_EACH;
    if (s.parts > SQUARES_PARTS) s.parts = SQUARES_PARTS;
    REQUIRE(outputs * s.parts <= INT32_MAX, "more blocks than a launch can have");
    return s;
}

template <typename T, int N>
static enum status squares_run(struct backend *backend, bool add, struct squares_shape s, struct view a,
                               struct view y) {
    enum status status = STATUS_OK;
    void *scratch = NULL;
    strided<double> to = strided_of<double>(y);
    bool whole = s.parts == 1;
    if (!whole) {
        TRY(device_scratch(backend, s.outputs * s.parts * (int64_t)sizeof(double), &scratch));
        to = {(double *)scratch, s.parts};
    }
    TRY(LAUNCH((sum_squares<T, N>), (unsigned)(s.outputs * s.parts), SQUARES_THREADS, REDUCE_BYTES, backend, s,
               whole && add, strided_of<const T>(a), to));
    if (!whole)
        TRY(LAUNCH(sum_parts, (unsigned)s.outputs, SQUARES_THREADS, REDUCE_BYTES, backend, s.parts, add,
                   (const double *)scratch, strided_of<double>(y)));
done:
    return status;
}

extern "C" enum status cuda_sum_squares(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view a = call->in[0], y = call->out[0];
    int64_t rows_each = a.rows / y.rows;
    if (view_is_contiguous(a)) // each output's rows as one
        a = view_new(a.data, a.dtype, y.rows, rows_each * a.cols), rows_each = 1;
    WITH_FLOAT(T, a.dtype, WITH_PACK(N, sizeof(T), packs_fit(a, sizeof(T)), {
                   struct squares_shape shape = squares_shape_of(y.rows, rows_each, a.cols / N);
                   status = (squares_run<T, N>(backend, call->accumulate, shape, a, y));
               }));
    return status;
}

extern "C" enum status cuda_output_error(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view y = call->in[0], t = call->in[1], squares = call->in[2], dy = call->out[0], error = call->out[1];
    WITH_FLOAT(T, y.dtype,
               WITH_PACK(N, sizeof(T), packs_fit(y, sizeof(T)) && packs_fit(t, sizeof(T)) && packs_fit(dy, sizeof(T)), {
                   struct teams teams = teams_of(y.rows, y.cols / N);
                   status = LAUNCH((output_error<T, N>), teams.blocks, teams.threads, REDUCE_BYTES, backend, teams,
                                   y.rows / squares.rows, call->params.factor, call->accumulate, strided_of<const T>(y),
                                   strided_of<const T>(t), strided_of<const double>(squares), strided_of<T>(dy),
                                   strided_of<double>(error));
               }));
    return status;
}
