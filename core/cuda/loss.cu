// cross_entropy and kl_divergence: a block per row.
//
// First pass: every thread keeps the maximum m of its logits and the sums of e^(x - m) and, for KL, of e^(t - m) (t - s), relative
// to it; a larger m rescales them. The block then brings them to the row's maximum M:
//   cross entropy   loss = M + log Z - logit[target],  Z = sum e^(x - M)
//   KL(p || q)      = W / Z_t - (M_t - M_s) - (log Z_t - log Z_s),  W = sum e^(t - M_t) (t - s)
// Second pass, with a gradient: exponentials again, relative to M, and the gradient over the (student's) logits. Probabilities are
// nowhere in memory.
//
// Exponentials are floats; sums, their rescaling and the logarithms are doubles, so that p sums to one to double precision and a
// small KL does not drown in the rounding of two large numbers.
//
// Shared memory: one number per warp. Traffic: logits read once, and with a gradient read again (a row of some 100 KB: from the
// second-level cache) and written. LOSS_THREADS threads with a pack each cover a vocabulary of 32064 in 8 steps.
#include "core/cuda/pack.cuh"
#include "core/cuda/reduce.cuh"

#include <float.h>

enum { LOSS_THREADS = 512 };

// Maximum of a thread's logits, and a sum of e^(x - max); -FLT_MAX instead of -infinity, which would make -inf - -inf of masked logits.
struct running {
    float max;
    double sum;
    int64_t pack; // the first that has the maximum
};

// The factor that brings sums relative to the old maximum to the new one: 1 where it stays.
template <int N> static __device__ inline double raise_max(struct running *r, const float (&v)[N], int64_t pack) {
    float top = v[0];
    for (int i = 1; i < N; i++) top = fmaxf(top, v[i]);
    if (!(top > r->max)) return 1;
    double factor = exp((double)r->max - (double)top);
    r->sum *= factor;
    r->max = top;
    r->pack = pack;
    return factor;
}

// The row's maximum and its sum relative to it.
static __device__ inline struct running row_of_threads(struct running r, double *partial) {
    float max = block_max(r.max, (float *)partial);
    double sum = block_sum(r.sum * exp((double)r.max - (double)max), partial);
    return {max, sum, r.pack};
}

template <typename T, int N, bool GRADIENT>
static __global__ void cross_entropy(int64_t packs, double weight, strided<T> logits, strided<const int32_t> targets,
                                     strided<double> loss) {
    int64_t row = blockIdx.x;
    T *x = logits.row(row);
    int32_t target = *targets.row(row);
    bool skipped = target < 0;
    struct running r = {-FLT_MAX, 0, 0};
    for (int64_t p = threadIdx.x; p < packs && !skipped; p += blockDim.x) {
        float v[N];
        load_pack(v, x + p * N);
        raise_max(&r, v, p);
        for (int i = 0; i < N; i++) r.sum += (double)expf(v[i] - r.max);
    }
    r = row_of_threads(r, shared_memory<double>());
    if (threadIdx.x == 0) {
        double chosen = !skipped && target < packs * N ? (double)to_float(x[target]) : (double)NAN;
        *loss.row(row) = skipped ? 0 : (double)r.max - chosen + log(r.sum);
    }
    if (!GRADIENT) return;
    __syncthreads(); // the target's logit has been read
    float k = skipped ? 0 : (float)(weight / r.sum);
    for (int64_t p = threadIdx.x; p < packs; p += blockDim.x) {
        float v[N] = {};
        if (!skipped) load_pack(v, x + p * N);
        for (int i = 0; i < N; i++) {
            v[i] = skipped ? 0 : k * expf(v[i] - r.max);
            if (p * N + i == target) v[i] -= (float)weight;
        }
        store_pack(x + p * N, v);
    }
}

// Index of the row's first largest logit; max: over all threads.
template <typename T, int N>
static __device__ inline int32_t first_largest(struct running r, float max, const T *row, double *partial) {
    int32_t first = INT32_MAX;
    if (r.max == max) {
        float v[N];
        load_pack(v, row + r.pack * N);
        for (int i = N - 1; i >= 0; i--)
            if (v[i] == max) first = (int32_t)(r.pack * N + i);
    }
    return block_min(first, (int32_t *)partial);
}

template <typename T, int N, bool GRADIENT>
static __global__ void kl_divergence(int64_t packs, double weight, strided<const T> teacher, strided<T> student,
                                     strided<double> kl, strided<int32_t> agree) {
    double *partial = shared_memory<double>();
    int64_t row = blockIdx.x;
    const T *t_row = teacher.row(row);
    T *s_row = student.row(row);
    struct running a = {-FLT_MAX, 0, 0}, b = a; // of the teacher, of the student
    double weighted = 0;
    for (int64_t p = threadIdx.x; p < packs; p += blockDim.x) {
        float t[N], s[N];
        load_pack(t, t_row + p * N);
        load_pack(s, s_row + p * N);
        weighted *= raise_max(&a, t, p);
        raise_max(&b, s, p);
        for (int i = 0; i < N; i++) {
            float power = expf(t[i] - a.max);
            a.sum += (double)power;
            b.sum += (double)expf(s[i] - b.max);
            if (power != 0) weighted += (double)(power * (t[i] - s[i])); // 0 times an infinite difference counts as 0
        }
    }
    struct running all_a = row_of_threads(a, partial), all_b = row_of_threads(b, partial);
    weighted = block_sum(weighted * exp((double)a.max - (double)all_a.max), partial);
    if (agree.data) {
        int32_t first = first_largest<T, N>(a, all_a.max, t_row, partial);
        int32_t same = first == first_largest<T, N>(b, all_b.max, s_row, partial);
        if (threadIdx.x == 0) *agree.row(row) = same;
    }
    if (threadIdx.x == 0)
        *kl.row(row) =
            weighted / all_a.sum - (((double)all_a.max - (double)all_b.max) + (log(all_a.sum) - log(all_b.sum)));
    if (!GRADIENT) return;
    float k_a = (float)(weight / all_a.sum), k_b = (float)(weight / all_b.sum);
    for (int64_t p = threadIdx.x; p < packs; p += blockDim.x) { // the packs this thread has read before
        float t[N], s[N];
        load_pack(t, t_row + p * N);
        load_pack(s, s_row + p * N);
        for (int i = 0; i < N; i++) s[i] = k_b * expf(s[i] - all_b.max) - k_a * expf(t[i] - all_a.max);
        store_pack(s_row + p * N, s);
    }
}

static unsigned loss_threads(int64_t packs) {
    int64_t threads = (packs + WARP - 1) / WARP * WARP;
    return threads < LOSS_THREADS ? (unsigned)threads : (unsigned)LOSS_THREADS;
}

template <typename T, bool GRADIENT>
static enum status cross_entropy_run(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view logits = call->in[0], targets = call->in[1], loss = call->out[0];
    WITH_PACK(N, sizeof(T), packs_fit(logits, sizeof(T)), {
        int64_t packs = logits.cols / N;
        status = LAUNCH((cross_entropy<T, N, GRADIENT>), (unsigned)logits.rows, loss_threads(packs), REDUCE_BYTES,
                        backend, packs, call->params.loss.weight, strided_of<T>(logits),
                        strided_of<const int32_t>(targets), strided_of<double>(loss));
    });
    return status;
}

extern "C" enum status cuda_cross_entropy(struct backend *backend, const struct op_call *call) {
    enum status status;
    WITH_FLOAT(T, call->in[0].dtype, {
        status = call->params.loss.gradient ? cross_entropy_run<T, true>(backend, call)
                                            : cross_entropy_run<T, false>(backend, call);
    });
    return status;
}

template <typename T, bool GRADIENT>
static enum status kl_divergence_run(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view teacher = call->in[0], student = call->in[1], kl = call->out[0], agree = call->out[1];
    if (!agree.rows) agree.data = NULL;
    WITH_PACK(N, sizeof(T), packs_fit(teacher, sizeof(T)) && packs_fit(student, sizeof(T)), {
        int64_t packs = teacher.cols / N;
        status = LAUNCH((kl_divergence<T, N, GRADIENT>), (unsigned)teacher.rows, loss_threads(packs), REDUCE_BYTES,
                        backend, packs, call->params.loss.weight, strided_of<const T>(teacher), strided_of<T>(student),
                        strided_of<double>(kl), strided_of<int32_t>(agree));
    });
    return status;
}

extern "C" enum status cuda_kl_divergence(struct backend *backend, const struct op_call *call) {
    enum status status;
    WITH_FLOAT(T, call->in[0].dtype, {
        status = call->params.loss.gradient ? kl_divergence_run<T, true>(backend, call)
                                            : kl_divergence_run<T, false>(backend, call);
    });
    return status;
}
