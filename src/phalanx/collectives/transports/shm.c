// Collectives among the ranks of one host, through one shared buffer.
//
// Every operation begins with an arrival: each rank writes down what it is about to do (a descriptor and its
// signature), raises its `arrived` flag and waits for all others'. Small payloads travel with the arrival, so a
// small operation costs one synchronisation; large ones follow in chunks through a staging area that stays in the
// cache: copy in what others need, reduce the own slice, copy out what others reduced, overlapped over chunks.
// A rank that has arrived at operation k has finished k - 1, so two places for descriptors and small payloads do.
//
// Blocking calls run in the caller when nothing is pending; asynchronous ones on a progress thread. Waiting spins
// for a moment while the cores seem free, then sleeps on the flag's futex. Knows nothing of torch.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#ifdef __x86_64__
#include <immintrin.h>
#define PAUSE() _mm_pause()
#else
#define PAUSE() atomic_signal_fence(memory_order_seq_cst)
#endif
#include "numbers.h"

#define EXPORT __attribute__((visibility("default")))
enum { MAX_RANKS = 64, NAME_BYTES = 64, DIMENSIONS = 8, TEXT = 1024, RING = 4096, BLOCK = 1024, PLACES = 2, SLOTS = 8 };
enum kind { ALLREDUCE, REDUCE, BROADCAST, ALLGATHER, REDUCESCATTER, ALLTOALL, GATHER, SCATTER, BARRIER, ALLGATHER_RAGGED, ALLTOALL_RAGGED, JOIN, KINDS };
enum op { SUM, AVERAGE, MIN, MAX, PRODUCT, OPS };
enum dtype { F32, F64, BF16, F16, I8, I16, I32, I64, U8, U16, U32, U64, BOOL, C32, C64, C128, E5M2, E4M3FN, E5M2FNUZ, E4M3FNUZ, DTYPES };
enum failure { OK = 0, LOST = -1, LATE = -2, MISMATCH = -3, BROKEN = -4 };
static const char *const KIND[KINDS] = {"allreduce", "reduce", "broadcast", "allgather", "reducescatter", "alltoall", "gather", "scatter", "barrier", "allgather", "alltoall", "join"};
static const char *const OP[OPS] = {"sum", "average", "min", "max", "product"};
static const char *const DTYPE[DTYPES] = {"float32", "float64", "bfloat16", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "complex32", "complex64", "complex128", "float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz"};
static const uint8_t BYTES[DTYPES] = {4, 8, 2, 2, 1, 2, 4, 8, 1, 2, 4, 8, 1, 4, 8, 16, 1, 1, 1, 1};

// ---- arithmetic: kernels.h once for every instruction set

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

// ---- what is shared

typedef struct {
  _Alignas(128) _Atomic uint32_t value;
  _Atomic uint32_t sleepers;
} flag;

typedef struct {  // what a rank says it is about to do
  uint64_t signature;
  int64_t count, shape[DIMENSIONS];  // elements and dimensions of its input
  double pre, post;
  uint32_t kind, op, dtype, root, dimensions, sequence;
  char name[NAME_BYTES];
} descriptor;

typedef struct {
  flag arrived, copied, reduced, taken;  // operations; chunks in the staging area, counted over all operations
  _Alignas(128) _Atomic uint32_t finished, left, present, processor;
  int64_t pid;
  _Alignas(128) descriptor does[PLACES];
  int64_t splits[PLACES][MAX_RANKS];
  _Atomic uint32_t where_version;
  int64_t where_ns;
  char where[TEXT];
} rank_state;

typedef struct {
  char token[32];  // known to the members only
  _Alignas(128) _Atomic uint32_t aborted;  // 0, 1: the reason is being written, 2: readable
  int32_t code, culprit;
  char reason[TEXT];
  rank_state ranks[];
} shared;

// ---- what a process knows

typedef struct {
  descriptor does;
  const void *in;
  void *out;
  int64_t *counts;  // reducescatter: elements of every rank's piece; ragged alltoall: rows for every rank (owned)
  void *result;     // ragged: made when the sizes are known (owned until taken)
  int64_t *rows;    // ragged: rows that came from every rank (owned)
  int64_t ticket, submitted, arrived, started, finished;  // ns of CLOCK_MONOTONIC
  uint32_t sequence;
} call;

typedef struct group {
  int rank, size, slots, peer_fd[MAX_RANKS], born_children;
  size_t area, chunk, small, large, bytes;  // of staging a rank; of it at a time, in the operation under way
  shared *shared;
  rank_state *me, *ranks;
  char *smalls, *stage;
  int64_t timeout_ns;
  uint32_t sequence, chunks;
  uint8_t active[MAX_RANKS];  // ranks that take part in the operation under way: not those that have joined
  int spin, spinning, crowded;  // looks at a flag before sleeping; the caller runs, not the thread; ranks share a core
  pthread_mutex_t queue, turn;  // the ring; running operations
  pthread_cond_t work, done;
  pthread_t thread;
  int threaded;
  _Atomic int closing, waiting, failed;
  _Atomic int64_t submitted, completed;
  int culprit;
  char message[TEXT + 300];
  call ring[RING];  // operations by ticket: pending, running, and those that `ph_records` can still tell of
} group;

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}
static long futex(_Atomic uint32_t *address, int what, uint32_t value, const struct timespec *timeout) {
  return syscall(SYS_futex, (uint32_t *)address, what, value, timeout, NULL, 0);
}
static inline int reached(uint32_t value, uint32_t target) { return (int32_t)(value - target) >= 0; }
static inline char *stage_of(group *g, int rank, uint32_t chunk) { return g->stage + (size_t)rank * g->area + chunk % (uint32_t)g->slots * g->chunk; }
static inline char *small_of(group *g, int rank, uint32_t sequence) { return g->smalls + ((size_t)rank * PLACES + sequence % PLACES) * g->small; }

// ---- failing

static void wake_everybody(group *g) {
  for (int r = 0; r < g->size; r++) {
    flag *flags[] = {&g->ranks[r].arrived, &g->ranks[r].copied, &g->ranks[r].reduced, &g->ranks[r].taken};
    for (int i = 0; i < 4; i++)
      if (atomic_load(&flags[i]->sleepers)) futex(&flags[i]->value, FUTEX_WAKE, INT32_MAX, NULL);
  }
}
// The first to see a fault says it for all: whoever fails because of it later repeats it, so no survivor is blamed.
static void say(group *g, int code, int culprit, const char *text) {
  uint32_t nobody = 0;
  shared *s = g->shared;
  if (atomic_compare_exchange_strong(&s->aborted, &nobody, 1)) {
    s->code = code, s->culprit = culprit;
    snprintf(s->reason, sizeof s->reason, "%s", text);
    atomic_store(&s->aborted, 2);
    wake_everybody(g);
  }
}
static int fail(group *g, int code, int culprit, const char *text) {
  say(g, code, culprit, text);
  shared *s = g->shared;
  for (int i = 0; i < 1000 && atomic_load(&s->aborted) == 1; i++) usleep(1000);
  int readable = atomic_load(&s->aborted) == 2;
  g->culprit = readable ? s->culprit : culprit;
  snprintf(g->message, sizeof g->message, "%s", readable ? s->reason : text);
  return readable ? s->code : code;
}
static int dead(group *g, int rank) {
  if (g->peer_fd[rank] >= 0) {
    struct pollfd p = {g->peer_fd[rank], POLLIN, 0};
    return poll(&p, 1, 0) == 1;
  }
  return g->ranks[rank].pid && kill((pid_t)g->ranks[rank].pid, 0) && errno == ESRCH;
}

// ---- waiting

static inline void post(flag *f, uint32_t value) {
  atomic_store(&f->value, value);
  if (atomic_load(&f->sleepers)) futex(&f->value, FUTEX_WAKE, INT32_MAX, NULL);
}
static void say_late(group *g, int rank, char *text, size_t length);

static int wait_slowly(group *g, flag *f, int rank, uint32_t target) {
  int64_t begun = now();
  for (;;) {
    atomic_fetch_add(&f->sleepers, 1);
    uint32_t value = atomic_load(&f->value);
    if (!reached(value, target) && !atomic_load(&g->shared->aborted)) {
      struct timespec slice = {0, 100000000};
      futex(&f->value, FUTEX_WAIT, value, &slice);
    }
    atomic_fetch_sub(&f->sleepers, 1);
    int aborted = (int)atomic_load(&g->shared->aborted), left = (int)atomic_load(&g->ranks[rank].left);
    if (reached(atomic_load(&f->value), target)) return OK;
    if (atomic_load(&g->closing)) {
      snprintf(g->message, sizeof g->message, "this rank closed the group");
      return BROKEN;
    }
    if (aborted) return fail(g, LOST, -1, "the group was aborted");
    char text[TEXT];
    int64_t t = now();
    if (left) {
      snprintf(text, sizeof text, "rank %d (pid %lld) closed the group", rank, (long long)g->ranks[rank].pid);
      return fail(g, LOST, rank, text);
    }
    if (t - begun > 50000000) {  // the look costs a system call
      if (dead(g, rank) && !reached(atomic_load(&f->value), target)) {
        snprintf(text, sizeof text, "rank %d (pid %lld) ended", rank, (long long)g->ranks[rank].pid);
        return fail(g, LOST, rank, text);
      }
      if (t - begun > g->timeout_ns) {
        say_late(g, rank, text, sizeof text);
        return fail(g, LATE, rank, text);
      }
    }
  }
}
// Waking an idle core costs tens of microseconds (more on a virtual machine), so it pays to look on for about as long;
// but not where ranks share a core, and not beside the program's own computing.
static inline int wait_for(group *g, flag *f, int rank, uint32_t target) {
  int looks = g->crowded || !(g->spinning || atomic_load_explicit(&g->waiting, memory_order_relaxed)) ? 1 : g->spin;
  for (int i = 0; i < looks; i++) {
    if (reached(atomic_load_explicit(&f->value, memory_order_acquire), target)) return OK;
    PAUSE();
  }
  return wait_slowly(g, f, rank, target);
}
static int wait_all(group *g, size_t offset, uint32_t target) {
  for (int i = 1; i < g->size; i++) {
    int r = (g->rank + i) % g->size, e = wait_for(g, (flag *)((char *)&g->ranks[r] + offset), r, target);
    if (e) return e;
  }
  return OK;
}
#define ALL(member) offsetof(rank_state, member)

// ---- saying what one does, and seeing whether the others do the same

static size_t describe(const descriptor *d, char *text, size_t length) {
  size_t n = (size_t)snprintf(text, length, "%s", KIND[d->kind % KINDS]);
#define ADD(...) do { if (n < length) n += (size_t)snprintf(text + n, length - n, __VA_ARGS__); } while (0)
  int reduces = d->kind == ALLREDUCE || d->kind == REDUCE || d->kind == REDUCESCATTER;
  if (reduces) ADD(" %s", OP[d->op % OPS]);
  if (d->kind != BARRIER && d->kind != JOIN) {
    ADD(" %s[", DTYPE[d->dtype % DTYPES]);
    for (uint32_t i = 0; i < d->dimensions && i < DIMENSIONS; i++) ADD(i ? ", %lld" : "%lld", (long long)d->shape[i]);
    ADD("]");
  }
  if (d->kind == REDUCE || d->kind == BROADCAST || d->kind == GATHER || d->kind == SCATTER) ADD(" root %u", d->root);
  if (reduces && (d->pre != 1.0 || d->post != 1.0)) ADD(" scaled by %g and %g", d->pre, d->post);
  if (d->name[0]) ADD(" '%.*s'", NAME_BYTES, d->name);
#undef ADD
  return n;
}
static uint64_t mix(uint64_t h, uint64_t x) {
  h = (h ^ x) * 0x9e3779b97f4a7c15u;
  return h ^ h >> 29;
}
static uint64_t sign(const call *c, int size) {
  const descriptor *d = &c->does;
  int ragged = d->kind == ALLGATHER_RAGGED || d->kind == ALLTOALL_RAGGED;
  uint64_t h = mix(d->kind | d->op << 8 | d->dtype << 16 | (uint64_t)d->root << 32, ragged ? 0 : (uint64_t)d->count), w;
  h = mix(h, d->dimensions);
  for (uint32_t i = ragged; i < d->dimensions && i < DIMENSIONS; i++) h = mix(h, (uint64_t)d->shape[i]);
  memcpy(&w, &d->pre, 8), h = mix(h, w);
  memcpy(&w, &d->post, 8), h = mix(h, w);
  for (int i = 0; i < NAME_BYTES && d->name[i]; i += 8) memcpy(&w, d->name + i, 8), h = mix(h, w);
  if (c->counts && d->kind == REDUCESCATTER)
    for (int r = 0; r < size; r++) h = mix(h, (uint64_t)c->counts[r]);
  return h;
}
static void say_late(group *g, int rank, char *text, size_t length) {
  rank_state *r = &g->ranks[rank];
  uint32_t sequence = atomic_load(&r->arrived.value);
  char words[256] = "none";
  if (sequence) describe(&r->does[sequence % PLACES], words, sizeof words);
  snprintf(text, length, "not finished by all ranks within %g s: rank %d (pid %lld) is missing; its last operation was number %u, %s", (double)g->timeout_ns * 1e-9, rank, (long long)r->pid, sequence, words);
}
// What each rank does, ranks that do the same together.
static int mismatch(group *g, uint32_t sequence, const char *because) {
  char text[TEXT], words[256];
  size_t n = (size_t)snprintf(text, sizeof text, "%s in operation %u", because, sequence);
  for (int r = 0; r < g->size; r++) {
    const descriptor *mine = &g->ranks[r].does[sequence % PLACES];
    char who[128] = "";
    size_t w = 0;
    int same = 0, first = 1;
    for (int q = 0; q < g->size; q++) {
      if (g->ranks[q].does[sequence % PLACES].signature != mine->signature) continue;
      if (q < r) first = 0;
      if (w < sizeof who) w += (size_t)snprintf(who + w, sizeof who - w, same ? ", %d" : "%d", q);
      same++;
    }
    if (!first) continue;
    describe(mine, words, sizeof words);
    if (n < sizeof text) n += (size_t)snprintf(text + n, sizeof text - n, "%s %s %s: %s", r ? ";" : ":", same > 1 ? "ranks" : "rank", who, words);
  }
  return fail(g, MISMATCH, -1, text);
}
static int joinable(uint32_t kind) { return kind == JOIN || kind == ALLREDUCE || kind == REDUCESCATTER || kind == ALLGATHER_RAGGED || kind == BARRIER; }
static int arrive(group *g, call *c, uint32_t sequence) {
  rank_state *me = g->me;
  c->does.sequence = sequence;
  memcpy(&me->does[sequence % PLACES], &c->does, sizeof c->does);
  atomic_store_explicit(&me->processor, (uint32_t)sched_getcpu(), memory_order_relaxed);
  post(&me->arrived, sequence);
  int e = wait_all(g, ALL(arrived), sequence), differ = 0, joined = 0, excluded = 0;
  uint64_t cores = 0;
  g->crowded = 0;
  if (e) return e;
  const descriptor *first = NULL;
  for (int r = 0; r < g->size; r++) {
    const descriptor *d = &g->ranks[r].does[sequence % PLACES];
    uint64_t core = 1ull << atomic_load_explicit(&g->ranks[r].processor, memory_order_relaxed) % 64;
    g->crowded |= (cores & core) != 0;
    cores |= core;
    g->active[r] = d->kind != JOIN;
    if (!g->active[r]) {
      joined = 1;
      continue;
    }
    if (!first) first = d;
    differ |= d->signature != first->signature;
    excluded |= !joinable(d->kind);
  }
  if (differ) return mismatch(g, sequence, "the ranks called different operations");
  if (joined && excluded) return mismatch(g, sequence, "ranks that have joined cannot take part");
  return OK;
}

// ---- moving data

static void copy_out(group *g, void *to, const void *from, size_t n, size_t total) {
  if (total >= g->large) stream(to, from, n);
  else memcpy(to, from, n);
}
static int settle(group *g, uint32_t chunks) {  // this operation's chunks have passed
  g->chunks = chunks;
  post(&g->me->copied, chunks);
  post(&g->me->reduced, chunks);
  post(&g->me->taken, chunks);
  return OK;
}
static int free_place(group *g, uint32_t chunk) {  // everybody has taken what was in the place of `chunk`
  return wait_all(g, ALL(taken), chunk + 1 - (uint32_t)g->slots);
}
static size_t at_most(size_t n, size_t limit) { return n < limit ? n : limit; }
// Large operations go through a few large chunks that stay in the cache. What fits in one chunk moves on through the
// whole area instead: lines that another core has just read are dearer to write than those it has dropped meanwhile.
static void lay_out(group *g, size_t bytes) {
  for (g->chunk = g->area / SLOTS; g->chunk / 2 >= bytes && g->chunk > 16384; g->chunk /= 2) {}
  g->slots = bytes > g->area / SLOTS ? SLOTS / 2 : (int)(g->area / g->chunk);
}

// What rank r publishes (sizes[r] bytes; this rank's from `mine`) goes to to[r]; NULL: not wanted.
// What fits has come with the arrival.
static int publish(group *g, const void *mine, const size_t *sizes, char **to) {
  size_t most = 0, total = 0, own = sizes[g->rank] <= g->small ? 0 : sizes[g->rank];
  int e;
  for (int r = 0; r < g->size; r++) {
    total += sizes[r];
    if (sizes[r] > g->small && sizes[r] > most) most = sizes[r];
    if (!to[r] || !sizes[r]) continue;
    if (r == g->rank) {
      if (to[r] != (const char *)mine) memmove(to[r], mine, sizes[r]);
    } else if (sizes[r] <= g->small) {
      memcpy(to[r], small_of(g, r, g->sequence), sizes[r]);
    }
  }
  if (!most) return OK;
  lay_out(g, most);
  uint32_t rounds = (uint32_t)((most + g->chunk - 1) / g->chunk), base = g->chunks;
  for (uint32_t i = 0; i < rounds + 1; i++) {
    size_t at = i * g->chunk;
    if (i < rounds) {
      if (at < own) {
        if ((e = free_place(g, base + i))) return e;
        memcpy(stage_of(g, g->rank, base + i), (const char *)mine + at, at_most(own - at, g->chunk));
      }
      post(&g->me->copied, base + i + 1);
    }
    if (!i) continue;
    at -= g->chunk;
    for (int x = 1; x < g->size; x++) {
      int r = (g->rank + x) % g->size;
      if (sizes[r] <= g->small || at >= sizes[r] || !to[r]) continue;
      if ((e = wait_for(g, &g->ranks[r].copied, r, base + i))) return e;
      copy_out(g, to[r] + at, stage_of(g, r, base + i - 1), at_most(sizes[r] - at, g->chunk), total);
    }
    post(&g->me->taken, base + i);
  }
  return settle(g, base + rounds);
}

// Rank r gets send_bytes[r] bytes from send[r]; get_bytes[r] bytes of rank r go to get[r]; `most`: of any pair of ranks.
static size_t segment(const group *g) { return g->chunk / (size_t)g->size & ~(size_t)63; }
static int exchange(group *g, char **send, const size_t *send_bytes, char **get, const size_t *get_bytes, size_t most) {
  lay_out(g, most * (size_t)g->size);
  size_t part = segment(g), total = 0;
  uint32_t rounds = (uint32_t)((most + part - 1) / part), base = g->chunks;
  int e;
  for (int r = 0; r < g->size; r++) total += get_bytes[r];
  if (get_bytes[g->rank] && get[g->rank] != send[g->rank]) memmove(get[g->rank], send[g->rank], get_bytes[g->rank]);
  for (uint32_t i = 0; i < rounds + 1 && rounds; i++) {
    size_t at = i * part;
    if (i < rounds) {
      if ((e = free_place(g, base + i))) return e;
      for (int r = 0; r < g->size; r++)
        if (r != g->rank && at < send_bytes[r]) memcpy(stage_of(g, g->rank, base + i) + (size_t)r * part, send[r] + at, at_most(send_bytes[r] - at, part));
      post(&g->me->copied, base + i + 1);
    }
    if (!i) continue;
    at -= part;
    for (int x = 1; x < g->size; x++) {
      int r = (g->rank + x) % g->size;
      if (at >= get_bytes[r]) continue;
      if ((e = wait_for(g, &g->ranks[r].copied, r, base + i))) return e;
      copy_out(g, get[r] + at, stage_of(g, r, base + i - 1) + (size_t)g->rank * part, at_most(get_bytes[r] - at, part), total);
    }
    post(&g->me->taken, base + i);
  }
  return rounds ? settle(g, base + rounds) : OK;
}

// ---- reductions; the own contribution comes from `mine`, the others' from their places

static int sources(group *g, const void **from, const void *mine, size_t offset, uint32_t chunk) {
  int n = 0;
  for (int r = 0; r < g->size; r++)
    if (g->active[r]) from[n++] = r == g->rank ? mine : stage_of(g, r, chunk) + offset;
  return n;
}
static int small_sources(group *g, const void **from, size_t offset) {
  int n = 0;
  for (int r = 0; r < g->size; r++)
    if (g->active[r]) from[n++] = small_of(g, r, g->sequence) + offset;
  return n;
}
static void slice(size_t n, int size, int rank, size_t *low, size_t *high) {  // whole cache lines of any dtype
  size_t each = ((n + (size_t)size - 1) / (size_t)size + 63) & ~(size_t)63;
  *low = at_most(each * (size_t)rank, n);
  *high = at_most(each * (size_t)(rank + 1), n);
}
static int allreduce(group *g, const char *in, char *out, size_t count, reduction *job) {
  size_t width = BYTES[job->dtype], bytes = count * width;
  lay_out(g, bytes);
  size_t part = g->chunk / width;
  uint32_t rounds = (uint32_t)((count + part - 1) / part), base = g->chunks;
  const void *from[MAX_RANKS];
  int me = g->rank, e;
  for (uint32_t i = 0; i < rounds + 2; i++) {
    size_t low, high;
    if (i < rounds) {  // copy in what others reduce
      size_t at = i * part, n = at_most(count - at, part);
      if ((e = free_place(g, base + i))) return e;
      slice(n, g->size, me, &low, &high);
      char *place = stage_of(g, me, base + i);
      if (in) {
        memcpy(place, in + at * width, low * width);
        memcpy(place + high * width, in + (at + high) * width, (n - high) * width);
      }
      post(&g->me->copied, base + i + 1);
    }
    if (i >= 1 && i - 1 < rounds) {  // reduce the own slice, into the own place for the others
      size_t at = (i - 1) * part, n = at_most(count - at, part);
      if ((e = wait_all(g, ALL(copied), base + i))) return e;
      slice(n, g->size, me, &low, &high);
      char *place = stage_of(g, me, base + i - 1);
      for (size_t o = low; o < high; o += 4 * BLOCK) {
        size_t m = at_most(high - o, 4 * BLOCK);
        job->sources = sources(g, from, in ? in + (at + o) * width : NULL, o * width, base + i - 1);
        reduce(place + o * width, from, m, job);
        if (out) memcpy(out + (at + o) * width, place + o * width, m * width);  // in place these lines are in the cache
      }
      post(&g->me->reduced, base + i);
    }
    if (i >= 2) {  // copy out what others have reduced
      size_t at = (i - 2) * part, n = at_most(count - at, part);
      for (int x = 1; x < g->size; x++) {
        int r = (me + x) % g->size;
        if ((e = wait_for(g, &g->ranks[r].reduced, r, base + i - 1))) return e;
        slice(n, g->size, r, &low, &high);
        if (out) copy_out(g, out + (at + low) * width, stage_of(g, r, base + i - 2) + low * width, (high - low) * width, bytes);
      }
      post(&g->me->taken, base + i - 1);
    }
  }
  return settle(g, base + rounds);
}
static int reducescatter(group *g, const char *in, char *out, const size_t *counts, reduction *job) {
  size_t width = BYTES[job->dtype], most = 0, start[MAX_RANKS], at = 0;
  const void *from[MAX_RANKS];
  int me = g->rank, e;
  for (int r = 0; r < g->size; r++) {
    start[r] = at, at += counts[r];
    if (counts[r] > most) most = counts[r];
  }
  lay_out(g, most * width * (size_t)g->size);
  size_t part = segment(g) / width;
  uint32_t rounds = (uint32_t)((most + part - 1) / part), base = g->chunks;
  for (uint32_t i = 0; i < rounds + 1 && rounds; i++) {
    at = i * part;
    if (i < rounds) {
      if ((e = free_place(g, base + i))) return e;
      for (int r = 0; r < g->size && in; r++)
        if (r != me && at < counts[r]) memcpy(stage_of(g, me, base + i) + (size_t)r * part * width, in + (start[r] + at) * width, at_most(counts[r] - at, part) * width);
      post(&g->me->copied, base + i + 1);
    }
    if (!i) continue;
    at -= part;
    if ((e = wait_all(g, ALL(copied), base + i))) return e;
    if (at < counts[me] && out) {
      job->sources = sources(g, from, in ? in + (start[me] + at) * width : NULL, (size_t)me * part * width, base + i - 1);
      reduce(out + at * width, from, at_most(counts[me] - at, part), job);
    }
    post(&g->me->taken, base + i);
  }
  return rounds ? settle(g, base + rounds) : OK;
}

// ---- operations

static size_t payload(const group *g, const descriptor *d) {  // bytes that this rank gives
  size_t bytes = (size_t)d->count * BYTES[d->dtype];
  if (d->kind == BARRIER || d->kind == JOIN) return 0;
  if (d->kind == BROADCAST || d->kind == SCATTER) bytes = d->root != (uint32_t)g->rank ? 0 : d->kind == SCATTER ? bytes * (size_t)g->size : bytes;
  return bytes;
}
static int fits(const group *g, uint32_t kind, size_t bytes) {  // reading everybody's whole input pays for few ranks only
  return bytes <= (kind == ALLREDUCE || kind == REDUCE || kind == REDUCESCATTER ? 2 * g->small / (size_t)g->size : g->small);
}
static void *room(size_t bytes) { return aligned_alloc(64, ((bytes ? bytes : 1) + 63) & ~(size_t)63); }

static int allgather_ragged(group *g, call *c, uint32_t sequence) {
  size_t sizes[MAX_RANKS], total = 0, width = BYTES[c->does.dtype];
  char *to[MAX_RANKS], *at;
  int wanted = c->rows != NULL;  // not by a rank that has joined
  for (int r = 0; r < g->size; r++) {
    const descriptor *d = &g->ranks[r].does[sequence % PLACES];
    total += sizes[r] = g->active[r] ? (size_t)d->count * width : 0;
    if (wanted) c->rows[r] = g->active[r] ? d->shape[0] : 0;
  }
  if (wanted && !(c->result = room(total))) return fail(g, BROKEN, g->rank, "no memory for the result of allgather");
  at = c->result;
  for (int r = 0; r < g->size; r++) {
    to[r] = at;
    if (at) at += sizes[r];
  }
  return publish(g, c->in, sizes, to);
}
static int alltoall(group *g, call *c, uint32_t sequence) {  // gather and scatter are one-sided ones
  size_t bytes = (size_t)c->does.count * BYTES[c->does.dtype], most = 0, total = 0;
  size_t send_bytes[MAX_RANKS], get_bytes[MAX_RANKS];
  char *send[MAX_RANKS], *get[MAX_RANKS], *to = c->out, *from = (char *)(uintptr_t)c->in;
  uint32_t kind = c->does.kind;
  int me = g->rank, root = (int)c->does.root, ragged = kind == ALLTOALL_RAGGED;
  size_t row = BYTES[c->does.dtype];
  for (uint32_t i = 1; i < c->does.dimensions; i++) row *= (size_t)c->does.shape[i];
  for (int r = 0; r < g->size; r++) {
    const int64_t *theirs = g->ranks[r].splits[sequence % PLACES], *mine = g->me->splits[sequence % PLACES];
    if (ragged) {
      send_bytes[r] = (size_t)mine[r] * row, get_bytes[r] = (size_t)theirs[me] * row, c->rows[r] = theirs[me];
      for (int q = 0; q < g->size; q++)
        if (q != r && (size_t)theirs[q] * row > most) most = (size_t)theirs[q] * row;
    } else if (kind == ALLTOALL) {
      send_bytes[r] = get_bytes[r] = most = bytes / (size_t)g->size;
    } else {  // count is that of one piece
      send_bytes[r] = (kind == GATHER ? r : me) == root ? bytes : 0;
      get_bytes[r] = (kind == GATHER ? me : r) == root ? bytes : 0;
      most = bytes;
    }
    total += get_bytes[r];
  }
  if (ragged && !(c->result = to = room(total))) return fail(g, BROKEN, g->rank, "no memory for the result of alltoall");
  for (int r = 0; r < g->size; r++) {
    send[r] = from, get[r] = to;
    if (kind != GATHER && from) from += send_bytes[r];
    if (to) to += get_bytes[r];
  }
  if (ragged || !fits(g, kind, kind == SCATTER ? bytes * (size_t)g->size : bytes)) return exchange(g, send, send_bytes, get, get_bytes, most);
  for (int r = 0; r < g->size; r++)
    if (get_bytes[r]) memcpy(get[r], small_of(g, r, sequence) + (kind == GATHER ? 0 : (size_t)me * get_bytes[r]), get_bytes[r]);
  return OK;
}
static int perform(group *g, call *c, uint32_t sequence) {
  const descriptor *d = &c->does;
  size_t width = BYTES[d->dtype], count = (size_t)d->count, counts[MAX_RANKS], before = 0;
  reduction job = {(int)d->op, (int)d->dtype, 0, g->size, d->pre, d->post};
  const void *from[MAX_RANKS];
  char *to[MAX_RANKS], *out = d->kind == REDUCE && d->root != (uint32_t)g->rank ? NULL : c->out;
  switch (d->kind) {
    case ALLREDUCE: case REDUCE:
      if (!fits(g, d->kind, count * width)) return allreduce(g, c->in, out, count, &job);
      job.sources = small_sources(g, from, 0);
      if (out) reduce(out, from, count, &job);
      return OK;
    case REDUCESCATTER:
      for (int r = 0; r < g->size; r++) {
        counts[r] = c->counts ? (size_t)c->counts[r] : count / (size_t)g->size;
        if (r < g->rank) before += counts[r];
      }
      if (!fits(g, d->kind, count * width)) return reducescatter(g, c->in, out, counts, &job);
      job.sources = small_sources(g, from, before * width);
      if (out) reduce(out, from, counts[g->rank], &job);
      return OK;
    case BROADCAST: case ALLGATHER:
      for (int r = 0; r < g->size; r++) {
        counts[r] = d->kind == ALLGATHER || r == (int)d->root ? count * width : 0;
        to[r] = d->kind == ALLGATHER ? out + (size_t)r * count * width : out;
      }
      return publish(g, c->in, counts, to);
    case ALLTOALL: case GATHER: case SCATTER: case ALLTOALL_RAGGED: return alltoall(g, c, sequence);
    case ALLGATHER_RAGGED: return allgather_ragged(g, c, sequence);
    default: return OK;
  }
}
static int one(group *g, call *c) {
  if (atomic_load_explicit(&g->shared->aborted, memory_order_relaxed)) return fail(g, LOST, -1, "the group was aborted");
  uint32_t sequence = c->sequence = ++g->sequence;
  size_t bytes = payload(g, &c->does);
  c->arrived = now();
  if (bytes && fits(g, c->does.kind, bytes)) memcpy(small_of(g, g->rank, sequence), c->in, bytes);
  if (c->counts) memcpy(g->me->splits[sequence % PLACES], c->counts, (size_t)g->size * sizeof *c->counts);
  int e = arrive(g, c, sequence);
  c->started = now();
  if (!e && c->does.kind != JOIN) e = perform(g, c, sequence);
  for (int r = 0; r < g->size && !e && c->does.kind == JOIN; r++) {  // take part in what those do who have not joined
    if (!g->active[r]) continue;
    call theirs = {.does = g->ranks[r].does[sequence % PLACES]};
    if (theirs.does.kind == REDUCESCATTER && theirs.does.root) theirs.counts = g->ranks[r].splits[sequence % PLACES];
    e = perform(g, &theirs, sequence);
    break;
  }
  atomic_store_explicit(&g->me->finished, sequence, memory_order_relaxed);
  return e;
}
static int join(group *g, call *c) {  // until all have; rows[0] becomes the rank that joined last
  c->does.count = g->sequence + 1;
  for (;;) {
    int e = one(g, c), all = 1, last = 0;
    if (e) return e;
    for (int r = 0; r < g->size; r++) {
      const descriptor *d = &g->ranks[r].does[g->sequence % PLACES];
      if (d->kind != JOIN) all = 0;
      else if (d->count >= g->ranks[last].does[g->sequence % PLACES].count || g->ranks[last].does[g->sequence % PLACES].kind != JOIN) last = r;
    }
    c->rows[0] = last;
    if (all) return OK;
  }
}

// ---- the queue: operations run in the order of their tickets, by whoever holds the turn

static void run_next(group *g, int spinning) {
  int64_t ticket = atomic_load(&g->completed) + 1;
  call *c = &g->ring[ticket % RING];
  int e = atomic_load(&g->failed);
  g->spinning = spinning;
  if (!e) {
    e = c->does.kind == JOIN ? join(g, c) : one(g, c);
    if (e) {
      char words[256], reason[TEXT];
      describe(&c->does, words, sizeof words);
      snprintf(reason, sizeof reason, "%s", g->message);
      if (e != MISMATCH) snprintf(g->message, sizeof g->message, "%s: %s", words, reason);
      atomic_store(&g->failed, e);
    }
  }
  c->finished = now();
  free(c->counts);
  c->counts = NULL;
  atomic_store(&g->completed, ticket);
  if (atomic_load(&g->waiting)) {
    pthread_mutex_lock(&g->queue);
    pthread_cond_broadcast(&g->done);
    pthread_mutex_unlock(&g->queue);
  }
}
// Ask for short turns on the core, which come soon (Linux 6.12 and newer): what it does is short, and others wait for it.
static void ask_for_short_turns(void) {
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } turns = {.size = 48};
  if (syscall(SYS_sched_getattr, 0, &turns, sizeof turns, 0) || turns.policy != SCHED_OTHER) return;
  turns.size = sizeof turns, turns.runtime = 100000;
  syscall(SYS_sched_setattr, 0, &turns, 0);
}
static void *progress(void *argument) {
  group *g = argument;
  ask_for_short_turns();
  pthread_mutex_lock(&g->queue);
  for (;;) {
    while (atomic_load(&g->submitted) == atomic_load(&g->completed) && !atomic_load(&g->closing)) pthread_cond_wait(&g->work, &g->queue);
    if (atomic_load(&g->submitted) == atomic_load(&g->completed)) break;
    pthread_mutex_unlock(&g->queue);
    pthread_mutex_lock(&g->turn);
    if (atomic_load(&g->completed) < atomic_load(&g->submitted)) run_next(g, 0);
    pthread_mutex_unlock(&g->turn);
    pthread_mutex_lock(&g->queue);
  }
  pthread_mutex_unlock(&g->queue);
  return NULL;
}
static int start_thread(group *g) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are the program's, not ours
  int e = pthread_create(&g->thread, NULL, progress, g);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!e) pthread_setname_np(g->thread, "collectives");
  return e;
}
static int not_ours(group *g) {  // closed, or of the process that this one was forked from: its memory is not here
  if (!g) return 1;
  if (atomic_load(&children) == g->born_children) return 0;
  snprintf(g->message, sizeof g->message, "the group belongs to the process that this one was forked from");
  return 1;
}

// Return when the operation of `ticket` has finished: OK, or the group's failure; 1 when `timeout_ns` (< 0: none) passed.
EXPORT int ph_wait(group *g, int64_t ticket, int64_t timeout_ns) {
  if (not_ours(g)) return BROKEN;
  if (atomic_load(&g->completed) < ticket && timeout_ns < 0 && !pthread_mutex_trylock(&g->turn)) {
    while (atomic_load(&g->completed) < ticket) run_next(g, 1);
    pthread_mutex_unlock(&g->turn);
  }
  if (atomic_load(&g->completed) < ticket) {
    int64_t until = now() + timeout_ns;
    struct timespec t = {until / 1000000000, until % 1000000000};
    int late = 0;
    pthread_mutex_lock(&g->queue);
    atomic_fetch_add(&g->waiting, 1);
    while (atomic_load(&g->completed) < ticket && !late) {
      if (timeout_ns < 0) pthread_cond_wait(&g->done, &g->queue);
      else late = pthread_cond_timedwait(&g->done, &g->queue, &t) == ETIMEDOUT;
    }
    atomic_fetch_sub(&g->waiting, 1);
    pthread_mutex_unlock(&g->queue);
    if (atomic_load(&g->completed) < ticket) return 1;
  }
  return atomic_load(&g->failed);
}
EXPORT int64_t ph_completed(group *g) { return g ? atomic_load(&g->completed) : INT64_MAX; }

// shape: number of dimensions, then the dimensions. more: scales, and `counts` or `splits` of every rank; may be NULL.
typedef struct {
  double pre, post;
  const int64_t *counts;
} extras;

// Submit one operation. code: kind | op << 8 | dtype << 16 | root << 24 | asynchronous << 40.
// Returns its ticket; for a blocking one, when it is done. A failure is negative, its words are ph_message().
EXPORT int64_t ph_call(group *g, uint64_t code, const void *in, void *out, int64_t count, const int64_t *shape, const char *name, const extras *more) {
  if (not_ours(g)) return BROKEN;
  int asynchronous = (int)(code >> 40 & 1), e = atomic_load(&g->failed);
  if (e) return e;
  int64_t *counts = NULL, *rows = NULL;
  uint32_t kind = code & 0xff;
  if (more && more->counts) {
    if (!(counts = malloc((size_t)g->size * sizeof *counts))) return BROKEN;
    memcpy(counts, more->counts, (size_t)g->size * sizeof *counts);
  }
  if (kind == ALLGATHER_RAGGED || kind == ALLTOALL_RAGGED || kind == JOIN)
    if (!(rows = calloc((size_t)g->size, sizeof *rows))) return free(counts), BROKEN;
  pthread_mutex_lock(&g->queue);
  while (atomic_load(&g->submitted) - atomic_load(&g->completed) >= RING / 2) {
    int64_t oldest = atomic_load(&g->completed) + 1;
    pthread_mutex_unlock(&g->queue);
    ph_wait(g, oldest, -1);
    pthread_mutex_lock(&g->queue);
  }
  int64_t ticket = atomic_load(&g->submitted) + 1;
  call *c = &g->ring[ticket % RING];
  free(c->result);
  free(c->rows);
  memset(c, 0, offsetof(call, does.shape));
  descriptor *d = &c->does;
  c->in = in, c->out = out, c->counts = counts, c->rows = rows, c->result = NULL, c->ticket = ticket;
  c->arrived = c->started = c->finished = 0;
  d->kind = kind, d->op = code >> 8 & 0xff, d->dtype = code >> 16 & 0xff, d->root = code >> 24 & 0xffff;
  d->pre = more ? more->pre : 1.0, d->post = more ? more->post : 1.0;
  d->count = count, d->dimensions = (uint32_t)shape[0];
  for (uint32_t i = 0; i < DIMENSIONS; i++) d->shape[i] = i < d->dimensions ? shape[1 + i] : 0;
  memset(d->name, 0, sizeof d->name);
  if (name) memccpy(d->name, name, 0, sizeof d->name - 1);
  d->signature = sign(c, g->size);
  c->submitted = now();
  if (asynchronous && !g->threaded) g->threaded = !start_thread(g);
  atomic_store(&g->submitted, ticket);
  if (asynchronous) pthread_cond_signal(&g->work);
  pthread_mutex_unlock(&g->queue);
  if (asynchronous && g->threaded) return ticket;
  if (atomic_load(&g->completed) < ticket) {
    pthread_mutex_lock(&g->turn);
    while (atomic_load(&g->completed) < ticket) run_next(g, 1);
    pthread_mutex_unlock(&g->turn);
  }
  e = atomic_load(&g->failed);
  return e ? e : ticket;
}
EXPORT const char *ph_message(group *g) { return g ? g->message : "this rank closed the group"; }
EXPORT int ph_culprit(group *g) { return g ? g->culprit : -1; }

// The result of a finished ragged operation and the rows of every rank; both are the caller's to free with ph_free.
EXPORT void *ph_take(group *g, int64_t ticket, int64_t *rows) {
  if (not_ours(g)) return NULL;
  pthread_mutex_lock(&g->queue);
  call *c = &g->ring[ticket % RING];
  void *result = NULL;
  if (c->ticket == ticket && c->rows) {
    memcpy(rows, c->rows, (size_t)g->size * sizeof *rows);
    result = c->result;
    c->result = NULL;
  }
  pthread_mutex_unlock(&g->queue);
  return result;
}
EXPORT void ph_free(void *result) { free(result); }

// ---- a group's beginning and end

static size_t header_bytes(int size) { return (sizeof(shared) + (size_t)size * sizeof(rank_state) + 4095) & ~(size_t)4095; }
EXPORT size_t ph_bytes(int size, size_t area, size_t small) { return header_bytes(size) + (size_t)size * (PLACES * small + area); }

// Before others may open the file: what they must know to be let in.
EXPORT int ph_create(int fd, const char *token) {
  shared *s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (s == MAP_FAILED) return -errno;
  memcpy(s->token, token, sizeof s->token);
  return munmap(s, 4096);
}
EXPORT void ph_close(group *g);
static int looks_in(double seconds) {
  int64_t begun = now();
  for (int i = 0; i < 10000; i++) PAUSE();
  return (int)(seconds * 1e9 * 10000 / (double)(now() - begun + 1));
}

// Join the group in the file `fd`. NULL: `error` says why; `missing` gets the ranks that did not come (a 1 each).
EXPORT group *ph_open(int fd, int rank, int size, size_t area, size_t small, size_t large, double spin_s, double meet_s, double timeout_s, const char *token, char *error, uint8_t *missing) {
  struct stat st;
  size_t bytes = ph_bytes(size, area, small);
  group *g = calloc(1, sizeof *g);
  if (!g || size > MAX_RANKS || fstat(fd, &st) || (size_t)st.st_size != bytes) {
    snprintf(error, TEXT, !g ? "no memory" : size > MAX_RANKS ? "more than 64 ranks on one host" : "the shared buffer has another size");
    return free(g), NULL;
  }
  g->rank = rank, g->size = size, g->area = area, g->small = small, g->large = large, g->bytes = bytes;
  g->spin = looks_in(spin_s), g->culprit = -1;
  g->timeout_ns = (int64_t)(timeout_s * 1e9);
  g->born_children = atomic_load(&children);
  for (int r = 0; r < size; r++) g->peer_fd[r] = -1;
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_mutex_init(&g->queue, NULL);
  pthread_mutex_init(&g->turn, NULL);
  pthread_cond_init(&g->work, NULL);
  pthread_cond_init(&g->done, &monotonic);
  char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    snprintf(error, TEXT, "cannot map %zu bytes: %s", bytes, strerror(errno));
    return free(g), NULL;
  }
  if (memcmp(((shared *)memory)->token, token, sizeof g->shared->token)) {  // not a word to those who are in there
    snprintf(error, TEXT, "the shared buffer is not this group's");
    munmap(memory, bytes);
    return free(g), NULL;
  }
  madvise(memory, bytes, MADV_DONTFORK);  // a forked child has no business here
  g->shared = (shared *)memory;
  g->ranks = g->shared->ranks;
  g->me = &g->ranks[rank];
  g->smalls = memory + header_bytes(size);
  g->stage = g->smalls + (size_t)size * PLACES * small;
  int64_t begun = now();
  int waiting = 1;
  g->me->pid = getpid();
  atomic_store(&g->me->present, 1);
  while (waiting) {
    waiting = 0;
    for (int r = 0; r < size; r++) waiting += missing[r] = !atomic_load(&g->ranks[r].present);
    if (waiting && ((double)(now() - begun) > meet_s * 1e9 || atomic_load(&g->shared->aborted))) break;
    if (waiting) usleep(200);
  }
  if (waiting) {
    snprintf(error, TEXT, "not all ranks came");
    say(g, LATE, -1, "not all ranks came");
    ph_close(g);
    return NULL;
  }
  for (int r = 0; r < size; r++)
    if (r != rank) g->peer_fd[r] = (int)syscall(SYS_pidfd_open, (pid_t)g->ranks[r].pid, 0);
  return g;
}
EXPORT void ph_abort(group *g, const char *reason) {
  if (!not_ours(g)) say(g, LOST, g->rank, reason);
}
EXPORT void ph_close(group *g) {
  if (atomic_load(&children) != g->born_children) return;
  atomic_store(&g->closing, 1);
  atomic_store(&g->me->left, 1);
  wake_everybody(g);
  pthread_mutex_lock(&g->queue);
  pthread_cond_broadcast(&g->work);
  pthread_mutex_unlock(&g->queue);
  if (g->threaded) pthread_join(g->thread, NULL);
  pthread_mutex_lock(&g->turn);  // a caller that is still inside leaves first
  pthread_mutex_unlock(&g->turn);
  for (int r = 0; r < g->size; r++)
    if (g->peer_fd[r] >= 0) close(g->peer_fd[r]);
  for (int i = 0; i < RING; i++) free(g->ring[i].result), free(g->ring[i].rows), free(g->ring[i].counts);
  munmap(g->shared, g->bytes);
  pthread_cond_destroy(&g->work);
  pthread_cond_destroy(&g->done);
  pthread_mutex_destroy(&g->queue);
  pthread_mutex_destroy(&g->turn);
  free(g);
}

// ---- what can be told of operations and ranks

typedef struct {
  int64_t ticket, submitted, arrived, started, finished, count, shape[DIMENSIONS];
  uint32_t kind, op, dtype, dimensions;
  char name[NAME_BYTES];
} record;
// Up to `room` operations with a ticket above `after`: finished ones, or pending ones. Returns their number.
__attribute__((no_sanitize("thread"))) EXPORT int ph_records(group *g, int64_t after, int pending, record *to, int room) {
  if (not_ours(g)) return 0;
  pthread_mutex_lock(&g->queue);
  int64_t submitted = atomic_load(&g->submitted), completed = atomic_load(&g->completed);
  int64_t first = pending ? completed + 1 : after + 1, last = pending ? submitted : completed;
  if (first < submitted - RING + 1) first = submitted - RING + 1;
  if (first < 1) first = 1;
  int n = 0;
  for (int64_t t = first; t <= last && n < room; t++) {
    const call *c = &g->ring[t % RING];
    const descriptor *d = &c->does;
    record *r = &to[n++];
    *r = (record){t, c->submitted, c->arrived, c->started, c->finished, d->count, {0}, d->kind, d->op, d->dtype, d->dimensions, {0}};
    memcpy(r->shape, d->shape, sizeof r->shape);
    memcpy(r->name, d->name, sizeof r->name);
  }
  pthread_mutex_unlock(&g->queue);
  return n;
}
typedef struct {
  int64_t pid, where_ns;
  uint32_t sequence, inside, alive, pad;
  char operation[512], where[TEXT];
} rank_report;
// From shared memory alone: the rank may be stopped or spinning. What it writes meanwhile may come out torn.
__attribute__((no_sanitize("thread"))) EXPORT void ph_state(group *g, int rank, rank_report *to) {
  memset(to, 0, sizeof *to);
  if (not_ours(g)) return;
  rank_state *r = &g->ranks[rank];
  to->pid = r->pid;
  to->sequence = atomic_load(&r->arrived.value);
  to->inside = to->sequence != atomic_load(&r->finished);
  to->alive = rank == g->rank || (!dead(g, rank) && !atomic_load(&r->left));
  if (to->sequence) {
    descriptor d = r->does[to->sequence % PLACES];
    d.name[NAME_BYTES - 1] = 0;
    describe(&d, to->operation, sizeof to->operation);
  }
  for (int tries = 0; tries < 100; tries++) {
    uint32_t version = atomic_load(&r->where_version);
    to->where_ns = r->where_ns;
    memcpy(to->where, r->where, TEXT - 1);
    if (!(version & 1) && atomic_load(&r->where_version) == version) break;
  }
}
EXPORT void ph_say_where(group *g, const char *text) {
  if (not_ours(g)) return;
  rank_state *me = g->me;
  atomic_fetch_add(&me->where_version, 1);
  me->where_ns = now();
  memset(me->where, 0, TEXT);
  memccpy(me->where, text, 0, TEXT - 1);
  atomic_fetch_add(&me->where_version, 1);
}
