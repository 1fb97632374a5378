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

#define EXPORT __attribute__((visibility("default")))
enum { HAND_OVER_NS = 50000000 };  // a blocking call that waits longer leaves it to the thread, so that signals are heard
enum { MAX_RANKS = 64, NAME_BYTES = 64, DIMENSIONS = 8, TEXT = 1024, RING = 4096, BLOCK = 1024, PLACES = 2, SLOTS = 8 };
enum kind { ALLREDUCE, REDUCE, BROADCAST, ALLGATHER, REDUCESCATTER, ALLTOALL, GATHER, SCATTER, BARRIER, ALLGATHER_RAGGED, ALLTOALL_RAGGED, JOIN, KINDS };
enum op { SUM, AVERAGE, MIN, MAX, PRODUCT, OPS };
enum dtype { F32, F64, BF16, F16, I8, I16, I32, I64, U8, U16, U32, U64, BOOL, C32, C64, C128, E5M2, E4M3FN, E5M2FNUZ, E4M3FNUZ, DTYPES };
enum outcome { OK = 0, HANDED_OVER = 1, LOST = -1, LATE = -2, MISMATCH = -3, BROKEN = -4 };
static const char *const KIND[KINDS] = {"allreduce", "reduce", "broadcast", "allgather", "reducescatter", "alltoall", "gather", "scatter", "barrier", "allgather", "alltoall", "join"};
static const char *const OP[OPS] = {"sum", "average", "min", "max", "product"};
static const char *const DTYPE[DTYPES] = {"float32", "float64", "bfloat16", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "complex32", "complex64", "complex128", "float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz"};
static const uint8_t BYTES[DTYPES] = {4, 8, 2, 2, 1, 2, 4, 8, 1, 2, 4, 8, 1, 4, 8, 16, 1, 1, 1, 1};

#include "arithmetic.h"
#include "meeting.h"
#include "operations.h"

// ---- the queue: operations run in the order of their tickets, by whoever holds the turn

static int run_next(group *g, int spinning) {
  int64_t ticket = atomic_load(&g->completed) + 1;
  call *c = &g->ring[ticket % RING];
  int e = atomic_load(&g->failed);
  g->spinning = spinning;
  if (!e) {
    e = c->does.kind == JOIN ? join(g, c) : one(g, c);
    if (e == HANDED_OVER) return e;
    if (e) {
      char words[256], reason[TEXT];
      describe(&c->does, words, sizeof words);
      memcpy(reason, g->message, sizeof reason);
      reason[TEXT - 1] = 0;
      if (e != MISMATCH) snprintf(g->message, sizeof g->message, "%s: %s", words, reason);
      atomic_store(&g->failed, e);
    }
  }
  c->finished = now();
  free(c->counts);
  free(c->parts);
  c->counts = NULL, c->parts = NULL;
  atomic_store(&g->completed, ticket);
  if (atomic_load(&g->waiting)) {
    pthread_mutex_lock(&g->queue);
    pthread_cond_broadcast(&g->done);
    pthread_mutex_unlock(&g->queue);
  }
  return OK;
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

// Run operations up to `ticket` unless another thread does or one would make this one wait for long; whether it is done.
static int run_here(group *g, int64_t ticket) {
  if (atomic_load(&g->completed) < ticket && !pthread_mutex_trylock(&g->turn)) {
    while (atomic_load(&g->completed) < ticket && !run_next(g, 1)) {}
    pthread_mutex_unlock(&g->turn);
  }
  return atomic_load(&g->completed) >= ticket;
}
static void leave_to_thread(group *g) {
  pthread_mutex_lock(&g->queue);
  if (!g->threaded) g->threaded = !start_thread(g);
  pthread_cond_signal(&g->work);
  pthread_mutex_unlock(&g->queue);
}

// Return when the operation of `ticket` has finished: OK, or the group's failure. 1: not yet, after `timeout_ns`, or
// where that is negative, after a while that is short enough for signals to be heard: wait again.
EXPORT int ph_wait(group *g, int64_t ticket, int64_t timeout_ns) {
  if (not_ours(g)) return BROKEN;
  if (timeout_ns < 0 && !run_here(g, ticket)) leave_to_thread(g);
  if (atomic_load(&g->completed) < ticket) {
    int64_t until = now() + (timeout_ns < 0 ? 2 * HAND_OVER_NS : timeout_ns);
    struct timespec t = {until / 1000000000, until % 1000000000};
    pthread_mutex_lock(&g->queue);
    atomic_fetch_add(&g->waiting, 1);
    while (atomic_load(&g->completed) < ticket && pthread_cond_timedwait(&g->done, &g->queue, &t) != ETIMEDOUT) {}
    atomic_fetch_sub(&g->waiting, 1);
    pthread_mutex_unlock(&g->queue);
    if (atomic_load(&g->completed) < ticket) return 1;
  }
  return atomic_load(&g->failed);
}
EXPORT int64_t ph_completed(group *g) { return g ? atomic_load(&g->completed) : INT64_MAX; }

// shape: number of dimensions, then the dimensions. more: scales, and `counts` or `splits` of every rank; may be NULL.
// An allreduce of elements that do not lie together has, instead of `in` and `out`, `parts` (many of them) in their order.
typedef struct {
  const void *in;
  void *out;
  size_t bytes;
} piece;
typedef struct {
  double pre, post;
  const int64_t *counts;
  const piece *parts;
  size_t many;
} extras;
static part *placed(const piece *pieces, size_t many) {
  part *parts = malloc((many + 1) * sizeof *parts), *p = parts;
  size_t at = 0;
  for (size_t i = 0; i < many && parts; at += pieces[i++].bytes)
    if (pieces[i].bytes) *p++ = (part){pieces[i].in, pieces[i].out, at, at + pieces[i].bytes};
  return parts;
}

// Submit one operation. code: kind | op << 8 | dtype << 16 | root << 24 | asynchronous << 40.
// Returns its ticket to wait for; 0 for a blocking one that is done. A failure is negative, its words are ph_message().
EXPORT int64_t ph_call(group *g, uint64_t code, const void *in, void *out, int64_t count, const int64_t *shape, const char *name, const extras *more) {
  if (not_ours(g)) return BROKEN;
  int asynchronous = (int)(code >> 40 & 1), e = atomic_load(&g->failed);
  if (e) return e;
  int64_t *counts = NULL, *rows = NULL;
  part *parts = NULL;
  uint32_t kind = code & 0xff;
  if (more && more->counts) {
    if (!(counts = malloc((size_t)g->size * sizeof *counts))) return BROKEN;
    memcpy(counts, more->counts, (size_t)g->size * sizeof *counts);
  }
  if (more && more->parts && kind == ALLREDUCE && !(parts = placed(more->parts, more->many))) return free(counts), BROKEN;
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
  c->in = in, c->out = out, c->counts = counts, c->parts = parts, c->rows = rows, c->result = NULL, c->ticket = ticket;
  c->arrived = c->started = c->finished = 0;
  d->kind = kind, d->op = code >> 8 & 0xff, d->dtype = code >> 16 & 0xff, d->root = code >> 24 & 0xffff;
  d->pre = more ? more->pre : 1.0, d->post = more ? more->post : 1.0;
  d->count = count, d->dimensions = (uint32_t)shape[0];
  for (uint32_t i = 0; i < DIMENSIONS; i++) d->shape[i] = i < d->dimensions ? shape[1 + i] : 0;
  memset(d->name, 0, sizeof d->name);
  if (name) memccpy(d->name, name, 0, sizeof d->name - 1);
  d->signature = sign(c, g->size);
  c->submitted = now();
  atomic_store(&g->submitted, ticket);
  pthread_mutex_unlock(&g->queue);
  if (!asynchronous && run_here(g, ticket)) return atomic_load(&g->failed);
  leave_to_thread(g);  // without one, whoever waits runs it
  return ticket;
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
EXPORT group *ph_open(int fd, int rank, int size, size_t area, size_t small, size_t large, double spin_s, double meet_s, double timeout_s, const char *token, const int32_t *names, char *error, uint8_t *missing) {
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
  for (int r = 0; r < size; r++) g->peer_fd[r] = -1, g->names[r] = names[r];
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
  for (int i = 0; i < RING; i++) free(g->ring[i].result), free(g->ring[i].rows), free(g->ring[i].counts), free(g->ring[i].parts);
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
