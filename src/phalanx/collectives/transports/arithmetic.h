// Arithmetic of local memory: kernels.h once for every instruction set, and the choice among them. Part of shm.c.

#include "numbers.h"

typedef struct {
  int op, dtype, sources, ranks;
  double pre, post;
} reduction;
#define SCALE_REAL(A, x, factor) ((A)((x) * (A)(factor)))
#define SCALE_INTEGER(A, x, factor) ((A)whole((double)(x) * (factor)))
static inline int64_t whole(double x) { return x >= 0x1p63 ? INT64_MAX : x < -0x1p63 ? INT64_MIN : (int64_t)x; }

#define LEVEL 0
#define TARGET
#define NAME(f) f##_portable
#include "kernels.h"
#undef LEVEL
#undef TARGET
#undef NAME
#ifdef __x86_64__
#define LEVEL 1
#define TARGET __attribute__((target("avx2,f16c")))
#define NAME(f) f##_avx2
#include "kernels.h"
#undef LEVEL
#undef TARGET
#undef NAME
#define LEVEL 2
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,f16c,prefer-vector-width=512")))
#define NAME(f) f##_avx512
#include "kernels.h"
#undef LEVEL
#undef TARGET
#undef NAME
#endif

typedef void reducer(void *, const void *const *, size_t, const reduction *);
typedef void streamer(void *, const void *, size_t);
static reducer *reduce = reduce_portable;
static streamer *stream = stream_portable;

// The kernels of `level` (0 portable, 1 AVX2, 2 AVX-512), or the best that this CPU has below it. Returns the one chosen.
EXPORT int ph_use_level(int level) {
#ifdef __x86_64__
  if (level >= 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    reduce = reduce_avx512, stream = stream_avx512;
    return 2;
  }
  if (level >= 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) {
    reduce = reduce_avx2, stream = stream_avx2;
    return 1;
  }
#endif
  reduce = reduce_portable, stream = stream_portable;
  return 0;
}
static _Atomic int children;  // forks since this process began: a child must not use its parent's groups
static void in_child(void) { atomic_fetch_add(&children, 1); }
__attribute__((constructor)) static void prepare(void) {
  ph_use_level(2);
  pthread_atfork(NULL, NULL, in_child);
}

EXPORT void ph_combine(void *to, const void *const *from, int sources, size_t count, int dtype, int op, double pre, double post) {
  reduction job = {op, dtype, sources, sources, pre, post};
  reduce(to, from, count, &job);
}
