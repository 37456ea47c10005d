// sketch and exact_sum.
//
// Rotations, norms and inner products. A run is k neighbouring coordinates that one shift moves (without rotations: PLAIN_RUN of them).
// A block takes RUNS_EACH runs of one sample, GROUP of the sketches and of the directions, and M buckets per thread, blockDim.x apart.
// Run by run it brings the numbers to shared memory, adding squares and products with directions in double on the way; then every
// thread gathers for each sketch what falls into its buckets, whose sums stay in registers: neighbouring threads read
// neighbouring numbers, and nobody else writes a bucket. Each block leaves its sums in scratch memory; `finish` adds the parts of a
// sample, ascending. How a sample is cut follows from n and k alone.
//
// Signs and shifts are drawn once per call, a thread per Philox block or per run, and read from the second-level cache: 32 lanes
// need two words. Traffic, with at most GROUP sketches and directions and k <= BUCKETS_MOST: a once (again for each further group, or slice
// of buckets, mostly from cache), J / 8 bytes of signs per coordinate, scratch J / RUNS_EACH times a. Runs longer than STAGED_MOST
// are read from global memory for each sketch.
// Shared memory: one run (4 k bytes) and one double per warp.
//
// exact_sum: a thread per column walks down the samples, neighbouring threads on neighbouring columns. Traffic: a once, 16 bytes per column.
#include "core/cuda/device.cuh"
#include "core/cuda/pack.cuh"
#include "core/cuda/reduce.cuh"
#include "core/cuda/sketch.cuh"

enum { THREADS = 256, GROUP = 4, RUNS_EACH = 32, PLAIN_RUN = 2048, STAGED_MOST = 16384, BUCKETS_MOST = 8 * THREADS };
enum { BLOCK_BITS = 128, WORD = 32 };

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct sketch_shape {
    int64_t n, first;          // coordinates first .. first + n - 1
    int64_t run, from, runs;   // coordinates of a run; first run, runs
    int64_t parts, slices;     // blocks per sample and group: of runs, of buckets
    int64_t signs_from, words; // coordinate of the first sign, words per sketch
    int sketches, directions;
};

struct sketch_scratch {
    uint32_t *signs;  // [J, words]
    uint32_t *shifts; // [J, runs]
    float *sketches;  // [S parts, J k]
    double *sums;     // [S parts, 1 + D]
};

// ---- random numbers ----

static __global__ void draw(struct sketch_shape shape, struct rng entry, struct rng rotation,
                            struct sketch_scratch to) {
    int64_t blocks = shape.words / 4, each = blocks + shape.runs;
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, j = i / each, which = i % each;
    if (j >= shape.sketches) return;
    entry.stream += (uint64_t)j, rotation.stream += (uint64_t)j;
    if (which < blocks) {
        uint32_t words[4];
        random_block(entry, (uint64_t)(shape.signs_from / BLOCK_BITS + which), words);
        for (int w = 0; w < 4; w++) to.signs[j * shape.words + 4 * which + w] = words[w];
    } else {
        int64_t run = which - blocks;
        uint64_t word = random_bits(rotation, (uint64_t)(shape.from + run));
        to.shifts[j * shape.runs + run] = (uint32_t)(word * (uint64_t)shape.run >> 32);
    }
}

// ---- one read ----

// Numbers low .. high - 1 of the run that begins at `from`; the others do not belong to this call.
struct piece {
    const float *from;
    int64_t at; // of the run's first number among the signs
    int low, high;
};

static __device__ inline struct piece piece_of(struct sketch_shape s, const float *row, int64_t run) {
    int64_t begin = (s.from + run) * s.run - s.first, end = begin + s.run;
    return {row + begin, begin + s.first - s.signs_from, (int)(begin < 0 ? -begin : 0),
            (int)((end < s.n ? end : s.n) - begin)};
}

// acc[j][i] += signed numbers that sketch j moves to bucket bucket + i THREADS.
template <int M>
static __device__ inline void gather(struct sketch_shape s, const struct piece &piece, const float *numbers,
                                     int64_t run, int first_sketch, uint32_t bucket, struct sketch_scratch scratch,
                                     float (&acc)[GROUP][M]) {
    uint32_t k = (uint32_t)s.run, low = (uint32_t)piece.low, high = (uint32_t)piece.high;
#pragma unroll
    for (int j = 0; j < GROUP; j++) {
        if (first_sketch + j >= s.sketches) break;
        uint32_t shift = scratch.shifts[(first_sketch + j) * s.runs + run];
        const uint32_t *signs = scratch.signs + (first_sketch + j) * s.words;
#pragma unroll
        for (int i = 0; i < M; i++) {
            uint32_t b = bucket + (uint32_t)i * THREADS, o = b - shift;
            if (b < shift) o += k;
            if (b >= k || o < low || o >= high) continue;
            int64_t at = piece.at + o;
            uint32_t sign = signs[at / WORD] << (31 - at % WORD) & 0x80000000u;
            acc[j][i] += bits_to_float(float_bits(numbers[o]) ^ sign);
        }
    }
}

template <int M>
static __global__ __launch_bounds__(THREADS) void sketch_pass(struct sketch_shape s, bool staged,
                                                              strided<const float> a, strided<const float> directions,
                                                              struct sketch_scratch scratch) {
    double *partial = shared_memory<double>();
    float *stage = (float *)(partial + REDUCE_BYTES / sizeof(double));
    int64_t slice = blockIdx.x % s.slices, place = blockIdx.x / s.slices, row = place / s.parts;
    int first_sketch = (int)blockIdx.y * GROUP, first_direction = slice == 0 ? first_sketch : s.directions;
    bool measures = slice == 0 && blockIdx.y == 0;
    int64_t begin = place % s.parts * RUNS_EACH, end = begin + RUNS_EACH < s.runs ? begin + RUNS_EACH : s.runs;
    uint32_t bucket = (uint32_t)(slice * M * THREADS) + threadIdx.x;
    float acc[GROUP][M] = {};
    double square = 0, dots[GROUP] = {};
    for (int64_t run = begin; run < end; run++) {
        struct piece piece = piece_of(s, a.row(row), run);
        if (staged) __syncthreads(); // who still gathers from the run before
        for (int o = piece.low + (int)threadIdx.x; o < piece.high; o += THREADS) {
            float x = piece.from[o];
            if (staged) stage[o] = x;
            if (measures) square += (double)x * (double)x;
#pragma unroll
            for (int d = 0; d < GROUP; d++)
                if (first_direction + d < s.directions)
                    dots[d] += (double)x * (double)directions.row(first_direction + d)[piece.from + o - a.row(row)];
        }
        if (staged) __syncthreads();
        gather<M>(s, piece, staged ? stage : piece.from, run, first_sketch, bucket, scratch, acc);
    }
#pragma unroll
    for (int j = 0; j < GROUP; j++)
#pragma unroll
        for (int i = 0; i < M; i++) {
            int64_t b = bucket + (int64_t)i * THREADS;
            if (first_sketch + j < s.sketches && b < s.run)
                scratch.sketches[(place * s.sketches + first_sketch + j) * s.run + b] = acc[j][i];
        }
    double *sums = scratch.sums + place * (1 + s.directions);
    square = block_sum(square, partial);
    if (measures && threadIdx.x == 0) sums[0] = square;
#pragma unroll
    for (int d = 0; d < GROUP; d++) {
        double dot = block_sum(dots[d], partial);
        if (first_direction + d < s.directions && threadIdx.x == 0) sums[1 + first_direction + d] = dot;
    }
}

// y [S, cols] (+)= the parts' sums; from [S parts, stride], its first `cols` columns.
template <typename T>
static __global__ void finish(int64_t rows, int64_t cols, int64_t parts, int64_t stride, bool add, const T *from,
                              strided<T> y) {
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, row = i / cols, col = i % cols;
    if (row >= rows) return;
    T sum = 0;
    for (int64_t p = 0; p < parts; p++) sum += from[(row * parts + p) * stride + col];
    T *to = y.row(row) + col;
    *to = add ? *to + sum : sum;
}

// ---- the op ----

static unsigned blocks_of(int64_t threads) {
    int64_t blocks = ceil_div(threads, THREADS);
    REQUIRE(blocks <= INT32_MAX, "more blocks than a launch can have");
    return (unsigned)blocks;
}

static struct sketch_shape shape_of(const struct op_call *call) {
    const struct sketch_params *p = &call->params.sketch;
    bool rotates = p->kind == SKETCH_ROTATION;
    struct sketch_shape s = {};
    s.n = call->in[0].cols, s.first = p->first;
    s.sketches = rotates ? (int)p->sketches : 0, s.directions = (int)call->in[1].rows;
    s.run = rotates ? call->out[1].cols / p->sketches : (int64_t)PLAIN_RUN;
    REQUIRE(s.run <= INT32_MAX / 2, "numbers of a sketch");
    s.from = s.first / s.run, s.runs = ceil_div(s.first + s.n, s.run) - s.from;
    s.parts = ceil_div(s.runs, RUNS_EACH), s.slices = rotates ? ceil_div(s.run, BUCKETS_MOST) : 1;
    s.signs_from = s.first / BLOCK_BITS * BLOCK_BITS;
    s.words = ceil_div(s.first + s.n - s.signs_from, BLOCK_BITS) * (BLOCK_BITS / WORD);
    return s;
}

static enum status scratch_new(struct backend *backend, const struct sketch_shape &s, int64_t samples,
                               struct sketch_scratch *out) {
    void *memory = NULL;
    int64_t places = samples * s.parts, sums = places * (1 + s.directions), numbers = places * s.sketches * s.run;
    int64_t signs = s.sketches * s.words, bytes = 8 * sums + 4 * (numbers + signs + s.sketches * s.runs);
    enum status status = device_scratch(backend, bytes, &memory);
    if (status != STATUS_OK) return status;
    out->sums = (double *)memory;
    out->sketches = (float *)(out->sums + sums);
    out->signs = (uint32_t *)(out->sketches + numbers);
    out->shifts = out->signs + signs;
    return STATUS_OK;
}

template <int M>
static enum status pass_run(struct backend *backend, const struct sketch_shape &s, const struct op_call *call,
                            struct sketch_scratch scratch) {
    int most = s.sketches > s.directions ? s.sketches : s.directions, groups = (most + GROUP - 1) / GROUP;
    bool staged = s.sketches > 0 && s.run <= STAGED_MOST;
    int64_t shared = REDUCE_BYTES + (staged ? s.run * (int64_t)sizeof(float) : 0);
    int64_t blocks = call->in[0].rows * s.parts * s.slices;
    REQUIRE(blocks <= INT32_MAX, "more blocks than a launch can have");
    return LAUNCH((sketch_pass<M>), dim3((unsigned)blocks, (unsigned)(groups ? groups : 1)), THREADS, shared, backend,
                  s, staged, strided_of<const float>(call->in[0]), strided_of<const float>(call->in[1]), scratch);
}

extern "C" enum status cuda_sketch(struct backend *backend, const struct op_call *call) {
    enum status status = STATUS_OK;
    const struct sketch_params *p = &call->params.sketch;
    struct sketch_shape s = shape_of(call);
    struct sketch_scratch scratch = {};
    int64_t samples = call->in[0].rows, numbers = s.sketches * s.run, sums = 1 + s.directions;
    bool add = call->accumulate;
    TRY(scratch_new(backend, s, samples, &scratch));
    if (s.sketches)
        TRY(LAUNCH(draw, blocks_of(s.sketches * (s.words / 4 + s.runs)), THREADS, 0, backend, s,
                   sketch_rng(p, RNG_SKETCH_ENTRY), sketch_rng(p, RNG_SKETCH_ROTATION), scratch));
    if (!s.sketches || s.run <= THREADS)
        TRY(pass_run<1>(backend, s, call, scratch));
    else if (s.run <= 2 * THREADS)
        TRY(pass_run<2>(backend, s, call, scratch));
    else if (s.run <= 4 * THREADS)
        TRY(pass_run<4>(backend, s, call, scratch));
    else
        TRY(pass_run<8>(backend, s, call, scratch));
    TRY(LAUNCH(finish<double>, blocks_of(samples), THREADS, 0, backend, samples, (int64_t)1, s.parts, sums, add,
               scratch.sums, strided_of<double>(call->out[0])));
    if (s.sketches)
        TRY(LAUNCH(finish<float>, blocks_of(samples * numbers), THREADS, 0, backend, samples, numbers, s.parts, numbers,
                   add, scratch.sketches, strided_of<float>(call->out[1])));
    if (s.directions)
        TRY(LAUNCH(finish<double>, blocks_of(samples * s.directions), THREADS, 0, backend, samples,
                   (int64_t)s.directions, s.parts, sums, add, scratch.sums + 1, strided_of<double>(call->out[2])));
    if (p->kind == SKETCH_GAUSSIAN || p->kind == SKETCH_RADEMACHER) TRY(sketch_dense_cuda(backend, call));
done:
    return status;
}

// ---- exact_sum ----

static __global__ void exact_sum(int64_t samples, int64_t n, bool add, strided<const float> a, double *y) {
    // Added and taken away again, this leaves multiples of 2^-40 of numbers below 2^11; floats beyond are multiples already.
    const double rounder = 6144, limit = 4096;
    int64_t c = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (c >= n) return;
    double sum = add ? y[c] : 0;
    for (int64_t s = 0; s < samples; s++) {
        sum += ((double)a.row(s)[c] + rounder) - rounder;
        if (!(fabs(sum) < limit)) sum = (double)NAN;
    }
    y[c] = sum;
}

extern "C" enum status cuda_exact_sum(struct backend *backend, const struct op_call *call) {
    struct view a = call->in[0];
    return LAUNCH(exact_sum, blocks_of(a.cols), THREADS, 0, backend, a.rows, a.cols, call->accumulate,
                  strided_of<const float>(a), (double *)call->out[0].data);
}
