// rope: a thread keeps the cosines and sines of one pack of angles and turns that pack in several heads of one row.
//
// A row has `lanes` threads along the half width and `groups` along the heads, HEADS_EACH heads or more each; several rows share a
// block. Shared memory: none. Traffic: x read and written; cosines and sines come from cache, once per HEADS_EACH heads: re-read for
// every head they would be as many bytes as bf16 x itself.
#include "core/cuda/pack.cuh"

enum { ROPE_THREADS = 256, HEADS_EACH = 4 };

struct rope_shape {
    int64_t rows, seq_len, offset;
    int heads, half; // half: packs in d / 2
    int lanes, groups, rows_each;
    float sign; // -1: by minus the angle
};

template <typename T, int N> static __device__ inline void rotate(T *x, const float *cos, const float *sin, int half) {
    float a[N], b[N], ra[N], rb[N];
    load_pack(a, x);
    load_pack(b, x + half * N);
    for (int i = 0; i < N; i++) {
        ra[i] = a[i] * cos[i] - b[i] * sin[i];
        rb[i] = b[i] * cos[i] + a[i] * sin[i];
    }
    store_pack(x, ra);
    store_pack(x + half * N, rb);
}

template <typename T, int N>
static __global__ void rope(struct rope_shape s, strided<const float> cos, strided<const float> sin, strided<T> x) {
    int team = s.lanes * s.groups, thread = (int)threadIdx.x % team, place = (int)threadIdx.x / team;
    int64_t row = (int64_t)blockIdx.x * s.rows_each + place;
    if (row >= s.rows || place >= s.rows_each) return;
    int64_t position = s.offset + row % s.seq_len;
    for (int p = thread % s.lanes; p < s.half; p += s.lanes) {
        float c[N], sine[N];
        load_pack(c, cos.row(position) + p * N);
        load_pack(sine, sin.row(position) + p * N);
        for (int i = 0; i < N; i++) sine[i] *= s.sign;
        T *at = x.row(row) + p * N;
        for (int h = thread / s.lanes; h < s.heads; h += s.groups)
            rotate<T, N>(at + (int64_t)h * 2 * s.half * N, c, sine, s.half);
    }
}

static struct rope_shape rope_shape_of(const struct rope_params *p, int64_t rows, int n) {
    struct rope_shape s = {};
    s.rows = rows, s.seq_len = p->seq_len, s.offset = p->offset;
    s.heads = (int)p->heads, s.half = (int)(p->head_dim / 2 / n), s.sign = p->inverse ? -1.0f : 1.0f;
    s.lanes = s.half < ROPE_THREADS ? s.half : ROPE_THREADS;
    int most = ROPE_THREADS / s.lanes, wanted = (s.heads + HEADS_EACH - 1) / HEADS_EACH;
    s.groups = wanted < most ? wanted : most;
    s.rows_each = ROPE_THREADS / (s.lanes * s.groups);
    return s;
}

extern "C" enum status cuda_rope(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view x = call->out[0], cos = call->in[1], sin = call->in[2], half = x;
    half.cols = cos.cols; // where the halves of heads begin
    WITH_FLOAT(
        T, x.dtype,
        WITH_PACK(N, sizeof(T), packs_fit(half, sizeof(T)) && packs_fit(cos, sizeof(T)) && packs_fit(sin, sizeof(T)), {
            struct rope_shape shape = rope_shape_of(&call->params.rope, x.rows, N);
            int64_t blocks = (x.rows + shape.rows_each - 1) / shape.rows_each;
            status = LAUNCH((rope<T, N>), (unsigned)blocks, ROPE_THREADS, 0, backend, shape,
                            strided_of<const float>(cos), strided_of<const float>(sin), strided_of<T>(x));
        }));
    return status;
}
