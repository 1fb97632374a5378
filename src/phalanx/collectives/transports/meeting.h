// How the ranks of a group meet: what they share, how they wait and fail, and the arrival at an operation, where it is
// seen whether all do the same. Part of shm.c.

// ---- what is shared

typedef struct {
  _Alignas(128) _Atomic uint32_t value;
  _Atomic uint32_t sleepers;
} flag;

typedef struct {  // what a rank says it is about to do
  uint64_t signature;
  int64_t count, shape[DIMENSIONS];  // elements and dimensions of its input
  double pre, post;
  uint32_t kind, op, dtype, root, dimensions;
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

typedef struct {  // of an allreduce: bytes [begin, end) of all that it reduces come from `in` and go to `out`
  const char *in;
  char *out;
  size_t begin, end;
} part;

typedef struct {
  descriptor does;
  const void *in;
  void *out;
  int64_t *counts;  // reducescatter: elements of every rank's piece; ragged alltoall: rows for every rank (owned)
  part *parts;      // allreduce: where its elements are, if not all at `in` and `out` (owned)
  void *result;     // ragged: made when the sizes are known (owned until taken)
  int64_t *rows;    // ragged: rows that came from every rank (owned)
  int64_t ticket, submitted, arrived, started, finished;  // ns of CLOCK_MONOTONIC
  uint32_t sequence;
  int posted;  // the others have been told of the operation under way
} call;

typedef struct group {
  int rank, size, slots, peer_fd[MAX_RANKS], names[MAX_RANKS], born_children;
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
  int threaded, handing_over;  // a caller waits, and may leave that to the thread
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
      struct timespec slice = {0, HAND_OVER_NS};
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
      snprintf(text, sizeof text, "rank %d (pid %lld) closed the group", g->names[rank], (long long)g->ranks[rank].pid);
      return fail(g, LOST, rank, text);
    }
    if (g->handing_over && t - begun > HAND_OVER_NS) return HANDED_OVER;
    if (t - begun > HAND_OVER_NS / 2) {  // the look costs a system call
      if (dead(g, rank) && !reached(atomic_load(&f->value), target)) {
        snprintf(text, sizeof text, "rank %d (pid %lld) ended", g->names[rank], (long long)g->ranks[rank].pid);
        return fail(g, LOST, rank, text);
      }
      if (t - begun > g->timeout_ns) {
        say_late(g, rank, text, sizeof text);
        return fail(g, LATE, rank, text);
      }
    }
  }
}
// Waking an idle core costs tens of microseconds (more on a virtual machine), so it pays to look on for longer than that;
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
  snprintf(text, length, "not finished by all ranks within %g s: rank %d (pid %lld) is missing; its last operation was number %u, %s", (double)g->timeout_ns * 1e-9, g->names[rank], (long long)r->pid, sequence, words);
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
      if (w < sizeof who) w += (size_t)snprintf(who + w, sizeof who - w, same ? ", %d" : "%d", g->names[q]);
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
  if (!c->posted) {
    memcpy(&me->does[sequence % PLACES], &c->does, sizeof c->does);
    atomic_store_explicit(&me->processor, (uint32_t)sched_getcpu(), memory_order_relaxed);
    post(&me->arrived, sequence);
    c->posted = 1;
  }
  g->handing_over = g->spinning && c->does.kind != JOIN;
  int e = wait_all(g, ALL(arrived), sequence), differ = 0, joined = 0, excluded = 0;
  g->handing_over = 0;
  if (e) return e;
  uint64_t cores[16] = {0};
  c->posted = g->crowded = 0;
  const descriptor *first = NULL;
  for (int r = 0; r < g->size; r++) {
    const descriptor *d = &g->ranks[r].does[sequence % PLACES];
    uint32_t core = atomic_load_explicit(&g->ranks[r].processor, memory_order_relaxed) % 1024;
    g->crowded |= (int)(cores[core / 64] >> core % 64 & 1);
    cores[core / 64] |= 1ull << core % 64;
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
