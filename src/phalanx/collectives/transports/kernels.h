// Reductions and copies of local memory, compiled once per instruction set: shm.c includes this with LEVEL
// 0 (portable), 1 (AVX2, F16C) and 2 (AVX-512), NAME(f) and TARGET set, and chooses at run time.
// The plain loops are written for the compiler's vectoriser; -ffp-contract=off keeps every level bit for bit the same.

#define EACH(i, n) _Pragma("GCC ivdep") for (size_t i = 0; i < (n); i++)

// ---- conversions of blocks to and from the type that is computed in

TARGET static void NAME(load_bf16)(float *to, const uint16_t *from, size_t n) {
  EACH(i, n) to[i] = from_bits((uint32_t)from[i] << 16);
}
TARGET static void NAME(store_bf16)(uint16_t *to, const float *from, size_t n) {  // to nearest, ties to even; NaN as torch
  EACH(i, n) {
    uint32_t u = bits_of(from[i]), rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    to[i] = (u & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (uint16_t)rounded;
  }
}
TARGET static void NAME(load_f16)(float *to, const uint16_t *from, size_t n) {
  size_t i = 0;
#if LEVEL == 2
  for (; i + 16 <= n; i += 16) _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(from + i))));
#elif LEVEL == 1
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(from + i))));
#endif
  for (; i < n; i++) to[i] = half_to_float(from[i]);
}
TARGET static void NAME(store_f16)(uint16_t *to, const float *from, size_t n) {
  size_t i = 0;
#if LEVEL == 2
  for (; i + 16 <= n; i += 16) _mm256_storeu_si256((void *)(to + i), _mm512_cvtps_ph(_mm512_loadu_ps(from + i), 0));
#elif LEVEL == 1
  for (; i + 8 <= n; i += 8) _mm_storeu_si128((void *)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
#endif
  for (; i < n; i++) to[i] = float_to_half(from[i]);
}
#define FLOAT8(F)                                                                                                    \
  TARGET static void NAME(load_##F)(float *to, const uint8_t *from, size_t n) { EACH(i, n) to[i] = F##_to_float(from[i]); } \
  TARGET static void NAME(store_##F)(uint8_t *to, const float *from, size_t n) { EACH(i, n) to[i] = float_to_##F(from[i]); }
FLOAT8(e5m2) FLOAT8(e4m3fn) FLOAT8(e5m2fnuz) FLOAT8(e4m3fnuz)
#undef FLOAT8

// ---- one reduction: to[i] = ((s0[i] op s1[i]) op s2[i]) ..., each s scaled by `pre`, the result by `post`

#define COMBINE_LOOPS(A, SUM_OF, PRODUCT_OF)                                                \
  switch (job->op) {                                                                        \
    case SUM: case AVERAGE: EACH(i, m) into[i] = SUM_OF(a[i], b[i]); break;                 \
    case PRODUCT: EACH(i, m) into[i] = PRODUCT_OF(a[i], b[i]); break;                       \
    case MAX: EACH(i, m) into[i] = a[i] > b[i] || a[i] != a[i] ? a[i] : b[i]; break;        \
    default: EACH(i, m) into[i] = a[i] < b[i] || a[i] != a[i] ? a[i] : b[i]; break;         \
  }
#define PLUS(x, y) ((x) + (y))
#define TIMES(x, y) ((x) * (y))
#define EITHER(x, y) ((x) | (y))
#define BOTH(x, y) ((x) & (y))
// Integers wrap: computed unsigned.
#define WRAP_PLUS(x, y) ((__typeof__(x))((uint64_t)(x) + (uint64_t)(y)))
#define WRAP_TIMES(x, y) ((__typeof__(x))((uint64_t)(x) * (uint64_t)(y)))

// T: in memory; A: computed in; LOAD(buffer, from, n) -> pointer to n values of A; SCALE(x, factor); DIVIDE(x, n)
#define REDUCTION(F, T, A, LOAD, STORE, DIRECT, SUM_OF, PRODUCT_OF, SCALE)                                     \
  TARGET static void NAME(reduce_##F)(T *to, const T *const *from, size_t n, const reduction *job) {           \
    A sum[BLOCK], left[BLOCK], right[BLOCK];                                                                   \
    int last = job->sources - 1, finish = job->op == AVERAGE || job->post != 1.0;                              \
    for (size_t o = 0; o < n; o += BLOCK) {                                                                    \
      size_t m = n - o < BLOCK ? n - o : BLOCK;                                                                \
      A *result = DIRECT ? (A *)(void *)(to + o) : sum; /* of the last step only: `to` may be a source */      \
      const A *a = LOAD(left, from[0] + o, m);                                                                 \
      if (job->pre != 1.0) { EACH(i, m) sum[i] = SCALE(A, a[i], job->pre); a = sum; }                          \
      for (int s = 1; s <= last; s++) {                                                                        \
        const A *b = LOAD(right, from[s] + o, m);                                                              \
        if (job->pre != 1.0) { EACH(i, m) right[i] = SCALE(A, b[i], job->pre); b = right; }                    \
        A *into = s == last && !finish ? result : sum;                                                         \
        COMBINE_LOOPS(A, SUM_OF, PRODUCT_OF)                                                                   \
        a = into;                                                                                              \
      }                                                                                                        \
      if (job->op == AVERAGE) {                                                                                \
        A count = (A)job->ranks, *into = job->post == 1.0 ? result : sum;                                      \
        EACH(i, m) into[i] = a[i] / count;                                                                     \
        a = into;                                                                                              \
      }                                                                                                        \
      if (job->post != 1.0) { EACH(i, m) result[i] = SCALE(A, a[i], job->post); a = result; }                  \
      if ((const void *)a != (const void *)(to + o)) STORE(to + o, a, m);                                      \
    }                                                                                                          \
  }
#define AS_IT_IS(buffer, from, n) ((void)(buffer), (from))
#define COPY_BACK(to, from, n) memcpy(to, from, (n) * sizeof *(to))
#define REAL(F, T) REDUCTION(F, T, T, AS_IT_IS, COPY_BACK, 1, PLUS, TIMES, SCALE_REAL)
#define INTEGER(F, T) REDUCTION(F, T, T, AS_IT_IS, COPY_BACK, 1, WRAP_PLUS, WRAP_TIMES, SCALE_INTEGER)
#define NARROW(F, T) REDUCTION(F, T, float, NAME(loaded_##F), NAME(store_##F), 0, PLUS, TIMES, SCALE_REAL)
#define LOADED(F, T) \
  TARGET static const float *NAME(loaded_##F)(float *buffer, const T *from, size_t n) { NAME(load_##F)(buffer, from, n); return buffer; }
LOADED(bf16, uint16_t) LOADED(f16, uint16_t)
LOADED(e5m2, uint8_t) LOADED(e4m3fn, uint8_t) LOADED(e5m2fnuz, uint8_t) LOADED(e4m3fnuz, uint8_t)
REAL(f32, float) REAL(f64, double)
INTEGER(i8, int8_t) INTEGER(i16, int16_t) INTEGER(i32, int32_t) INTEGER(i64, int64_t)
INTEGER(u8, uint8_t) INTEGER(u16, uint16_t) INTEGER(u32, uint32_t) INTEGER(u64, uint64_t)
REDUCTION(truth, uint8_t, uint8_t, AS_IT_IS, COPY_BACK, 1, EITHER, BOTH, SCALE_INTEGER)
NARROW(bf16, uint16_t) NARROW(f16, uint16_t)
NARROW(e5m2, uint8_t) NARROW(e4m3fn, uint8_t) NARROW(e5m2fnuz, uint8_t) NARROW(e4m3fnuz, uint8_t)

// The sum of two ranks, most of all sums: without a detour through blocks in float32.
TARGET static void NAME(add_bf16)(uint16_t *to, const uint16_t *a, const uint16_t *b, size_t n) {
  EACH(i, n) {
    float sum = from_bits((uint32_t)a[i] << 16) + from_bits((uint32_t)b[i] << 16);
    uint32_t u = bits_of(sum), rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    to[i] = (u & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (uint16_t)rounded;
  }
}
TARGET static void NAME(add_f16)(uint16_t *to, const uint16_t *a, const uint16_t *b, size_t n) {
  size_t i = 0;
#if LEVEL == 2
  for (; i + 16 <= n; i += 16) {
    __m512 x = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(a + i))), y = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(b + i)));
    _mm256_storeu_si256((void *)(to + i), _mm512_cvtps_ph(_mm512_add_ps(x, y), 0));
  }
#elif LEVEL == 1
  for (; i + 8 <= n; i += 8) {
    __m256 x = _mm256_cvtph_ps(_mm_loadu_si128((const void *)(a + i))), y = _mm256_cvtph_ps(_mm_loadu_si128((const void *)(b + i)));
    _mm_storeu_si128((void *)(to + i), _mm256_cvtps_ph(_mm256_add_ps(x, y), 0));
  }
#endif
  for (; i < n; i++) to[i] = float_to_half(half_to_float(a[i]) + half_to_float(b[i]));
}

// Products of complex numbers; everything else treats them as pairs of reals. Not vectorised: GCC 12 turns them into
// vfmaddsub, which rounds once less, in spite of -ffp-contract=off.
#if defined(__GNUC__) && !defined(__clang__)
#define PLAIN __attribute__((optimize("no-tree-vectorize", "no-tree-slp-vectorize")))
#else
#define PLAIN
#endif
#define COMPLEX_PRODUCT(F, T, A, LOAD, STORE)                                                             \
  TARGET PLAIN static void NAME(product_##F)(T *to, const T *const *from, size_t n, const reduction *job) {     \
    A sum[BLOCK], other[BLOCK];                                                                           \
    for (size_t o = 0; o < n; o += BLOCK) {                                                               \
      size_t m = n - o < BLOCK ? n - o : BLOCK;                                                           \
      const A *a = LOAD(sum, from[0] + o, m);                                                             \
      if (a != sum) memcpy(sum, a, m * sizeof *sum);                                                      \
      if (job->pre != 1.0) EACH(i, m) sum[i] = SCALE_REAL(A, sum[i], job->pre);                           \
      for (int s = 1; s < job->sources; s++) {                                                            \
        const A *b = LOAD(other, from[s] + o, m);                                                         \
        if (b != other) memcpy(other, b, m * sizeof *other);                                              \
        if (job->pre != 1.0) EACH(i, m) other[i] = SCALE_REAL(A, other[i], job->pre);                     \
        for (size_t i = 0; i + 1 < m; i += 2) {                                                           \
          A re = sum[i] * other[i] - sum[i + 1] * other[i + 1], im = sum[i] * other[i + 1] + sum[i + 1] * other[i]; \
          sum[i] = re;                                                                                    \
          sum[i + 1] = im;                                                                                \
        }                                                                                                 \
      }                                                                                                   \
      if (job->post != 1.0) EACH(i, m) sum[i] = SCALE_REAL(A, sum[i], job->post);                         \
      STORE(to + o, sum, m);                                                                              \
    }                                                                                                     \
  }
COMPLEX_PRODUCT(c32, uint16_t, float, NAME(loaded_f16), NAME(store_f16))
COMPLEX_PRODUCT(c64, float, float, AS_IT_IS, COPY_BACK)
COMPLEX_PRODUCT(c128, double, double, AS_IT_IS, COPY_BACK)

// Copy past the caches: for results so large that they would only push other data out.
TARGET static void NAME(stream)(void *to, const void *from, size_t n) {
#ifdef __x86_64__
  char *t = to;
  const char *f = from;
  size_t head = -(uintptr_t)t & 63;
  if (head > n) head = n;
  memcpy(t, f, head);
  t += head, f += head, n -= head;
  for (; n >= 64; t += 64, f += 64, n -= 64) {
#if LEVEL == 2
    _mm512_stream_si512((void *)t, _mm512_loadu_si512(f));
#elif LEVEL == 1
    __m256i a = _mm256_loadu_si256((const void *)f), b = _mm256_loadu_si256((const void *)(f + 32));
    _mm256_stream_si256((void *)t, a);
    _mm256_stream_si256((void *)(t + 32), b);
#else
    for (int i = 0; i < 64; i += 16) _mm_stream_si128((void *)(t + i), _mm_loadu_si128((const void *)(f + i)));
#endif
  }
  memcpy(t, f, n);
  _mm_sfence();
#else
  memcpy(to, from, n);
#endif
}

TARGET static void NAME(reduce)(void *to, const void *const *from, size_t count, const reduction *job) {
#define CASE(D, F, T, MANY) \
  case D: NAME(reduce_##F)((T *)to, (const T *const *)from, count * MANY, job); return;
#define COMPLEX_CASE(D, F, C, T)                                                            \
  case D:                                                                                   \
    if (job->op == PRODUCT) NAME(product_##C)((T *)to, (const T *const *)from, count * 2, job); \
    else NAME(reduce_##F)((T *)to, (const T *const *)from, count * 2, job);                 \
    return;
  if (job->op == SUM && job->sources == 2 && job->pre == 1.0 && job->post == 1.0) {
    if (job->dtype == BF16) return NAME(add_bf16)(to, from[0], from[1], count);
    if (job->dtype == F16) return NAME(add_f16)(to, from[0], from[1], count);
  }
  switch (job->dtype) {
    CASE(F32, f32, float, 1) CASE(F64, f64, double, 1) CASE(BF16, bf16, uint16_t, 1) CASE(F16, f16, uint16_t, 1)
    CASE(I8, i8, int8_t, 1) CASE(I16, i16, int16_t, 1) CASE(I32, i32, int32_t, 1) CASE(I64, i64, int64_t, 1)
    CASE(U8, u8, uint8_t, 1) CASE(U16, u16, uint16_t, 1) CASE(U32, u32, uint32_t, 1) CASE(U64, u64, uint64_t, 1)
    CASE(E5M2, e5m2, uint8_t, 1) CASE(E4M3FN, e4m3fn, uint8_t, 1)
    CASE(E5M2FNUZ, e5m2fnuz, uint8_t, 1) CASE(E4M3FNUZ, e4m3fnuz, uint8_t, 1) CASE(BOOL, truth, uint8_t, 1)
    COMPLEX_CASE(C32, f16, c32, uint16_t) COMPLEX_CASE(C64, f32, c64, float) COMPLEX_CASE(C128, f64, c128, double)
  }
#undef CASE
#undef COMPLEX_CASE
}

#undef EACH
#undef COMBINE_LOOPS
#undef PLUS
#undef TIMES
#undef EITHER
#undef BOTH
#undef WRAP_PLUS
#undef WRAP_TIMES
#undef REDUCTION
#undef AS_IT_IS
#undef COPY_BACK
#undef REAL
#undef INTEGER
#undef NARROW
#undef LOADED
#undef COMPLEX_PRODUCT
#undef PLAIN
