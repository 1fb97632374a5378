// The ranks of one shared buffer as threads of one process, so that ThreadSanitizer and AddressSanitizer see all of them.
//
//   ranks_as_threads SEED ROUNDS      prints "ROUNDS rounds, N operations" and ends with 0 when every result was right
//
// Each round draws a group (2 to 5 ranks, odd sizes of its memory, sometimes a second group of some of them) and lets every rank
// do the same random operations, blocking or not, while another thread of it watches. A third of the rounds end badly on
// purpose: a mismatch, an abort, a rank that leaves, one that does not come. All ranks map the buffer at one address
// (a sanitizer follows addresses), which is the only thing that differs from processes.
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void *map_once(void *hint, size_t bytes, int protection, int flags, int fd, off_t offset);
static int unmap_once(void *memory, size_t bytes);
#define mmap map_once
#define munmap unmap_once
#include "shm.c"
#undef mmap
#undef munmap

enum { MOST_RANKS = 5, MOST_ELEMENTS = 20000, PENDING = 6, OPERATIONS = 40, PIECES = 6 };
enum ending { WELL, MISMATCHED, ABORTED, LEFT, ABSENT, ENDINGS };

// ---- one mapping for all ranks

static pthread_mutex_t mappings_lock = PTHREAD_MUTEX_INITIALIZER;
static struct mapping { ino_t inode; void *memory; size_t bytes; int users; } mappings[16];

static void *map_once(void *hint, size_t bytes, int protection, int flags, int fd, off_t offset) {
  struct stat st;
  if (fstat(fd, &st)) abort();
  pthread_mutex_lock(&mappings_lock);
  struct mapping *free_one = NULL, *m = NULL;
  for (int i = 0; i < 16; i++) {
    if (mappings[i].users && mappings[i].inode == st.st_ino && mappings[i].bytes == bytes) m = &mappings[i];
    if (!mappings[i].users) free_one = &mappings[i];
  }
  if (!m) {
    m = free_one;
    *m = (struct mapping){st.st_ino, mmap(hint, bytes, protection, flags, fd, offset), bytes, 0};
  }
  m->users++;
  pthread_mutex_unlock(&mappings_lock);
  return m->memory;
}
static int unmap_once(void *memory, size_t bytes) {
  int e = 0;
  pthread_mutex_lock(&mappings_lock);
  for (int i = 0; i < 16; i++)
    if (mappings[i].users && mappings[i].memory == memory && !--mappings[i].users) e = munmap(memory, bytes);
  pthread_mutex_unlock(&mappings_lock);
  return e;
}

// ---- numbers that every rank can compute

static uint64_t scramble(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}
typedef struct { uint64_t state; } dice;
static uint64_t roll(dice *d, uint64_t sides) { return scramble(d->state++) % sides; }

static int is_unsigned(int dtype) { return (dtype >= U8 && dtype <= U64) || dtype == BOOL; }
static int parts(int dtype) { return dtype >= C32 && dtype <= C128 ? 2 : 1; }
// What rank `rank` gives as element `i` of operation `salt`: small, so that sums are exact in every type; no -0 in sight.
static int given(uint64_t salt, int rank, size_t i, int dtype) {
  int v = (int)(scramble(salt * 1000003 + (uint64_t)rank * 7919 + i) % 4);
  return dtype == BOOL ? v & 1 : is_unsigned(dtype) ? v : v < 2 ? v - 2 : v - 1;
}
static void put(void *to, size_t i, int dtype, double v) {
#define PUT(D, T, x) case D: ((T *)to)[i] = (T)(x); break
  switch (dtype) {
    PUT(F32, float, v); PUT(F64, double, v); PUT(I8, int8_t, v); PUT(I16, int16_t, v); PUT(I32, int32_t, v); PUT(I64, int64_t, v);
    PUT(U8, uint8_t, v); PUT(U16, uint16_t, v); PUT(U32, uint32_t, v); PUT(U64, uint64_t, v); PUT(BOOL, uint8_t, v != 0);
    PUT(C64, float, v); PUT(C128, double, v); PUT(F16, uint16_t, float_to_half((float)v)); PUT(C32, uint16_t, float_to_half((float)v));
    PUT(E5M2, uint8_t, float_to_e5m2((float)v)); PUT(E4M3FN, uint8_t, float_to_e4m3fn((float)v));
    PUT(E5M2FNUZ, uint8_t, float_to_e5m2fnuz((float)v)); PUT(E4M3FNUZ, uint8_t, float_to_e4m3fnuz((float)v));
    case BF16: { uint16_t b; float f = (float)v; store_bf16_portable(&b, &f, 1); ((uint16_t *)to)[i] = b; }
  }
}
static double reduced(uint64_t salt, const uint8_t *takes_part, int size, size_t i, int dtype, int op) {
  int total = 0, first = 1;
  for (int r = 0; r < size; r++) {
    if (!takes_part[r]) continue;
    int v = given(salt, r, i, dtype);
    total = first ? v : op == MIN ? (v < total ? v : total) : op == MAX ? (v > total ? v : total) : op == PRODUCT ? total * v : total + v;
    first = 0;
  }
  if (op != AVERAGE) return total;
  int whole_number = dtype >= I8 && dtype <= U64;
  if (dtype == BOOL) return total != 0 && 1 / size;
  return whole_number ? total / size : dtype == F64 || dtype == C128 ? (double)total / size : (float)total / (float)size;
}

// ---- one rank

typedef struct {
  int rank, size, fd, ending, victim, bad_at;
  uint64_t seed;
  size_t area, small, large;
  double spin_s, timeout_s;
  const char *token;
  const uint8_t *also;  // members of a second group, or NULL
  int also_rank, also_size, also_fd;
} seat;
typedef struct {
  group *g;
  _Atomic int over;
} watched;
typedef struct {
  int64_t ticket;
  void *in, *out, *expected;
  size_t bytes;
  int kind, op, dtype, root, ragged;
  int64_t count;
  int64_t rows[MOST_RANKS];
} pending;

static _Atomic long operations;
static void give_up(const seat *s, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "seed %llu, rank %d of %d: ", (unsigned long long)s->seed, s->rank, s->size);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  abort();
}
static void *watch(void *argument) {
  watched *w = argument;
  static _Thread_local record records[64];
  static _Thread_local rank_report report;
  for (int i = 0; !atomic_load(&w->over); i++) {
    ph_records(w->g, ph_completed(w->g) - 20, i & 1, records, 64);
    for (int r = 0; r < w->g->size; r++) ph_state(w->g, r, &report);
    ph_say_where(w->g, i & 1 ? "train.py:10 main" : "train.py:11 main < train.py:99 step");
    usleep(500);
  }
  return NULL;
}
static void wrong(const seat *s, const pending *p, const void *got) {
  size_t at = 0;
  while (((const char *)got)[at] == ((const char *)p->expected)[at]) at++;
  give_up(s, "ticket %lld, %s %s %s of %lld, root %d: byte %zu of %zu is wrong", (long long)p->ticket, KIND[p->kind], OP[p->op], DTYPE[p->dtype], (long long)p->count, p->root, at, p->bytes);
}
static int done_at_last(group *g, int64_t ticket, int64_t timeout_ns) {
  int e = ph_wait(g, ticket, timeout_ns);
  while (e > 0 && timeout_ns < 0) e = ph_wait(g, ticket, -1);
  return e;
}
// As Python makes a blocking call.
static int64_t finished(group *g, int64_t ticket) { return ticket > 0 ? done_at_last(g, ticket, -1) : ticket; }
static void check(const seat *s, group *g, pending *p) {
  int e = done_at_last(g, p->ticket, s->seed & 1 ? -1 : 60000000000);
  if (e > 0) give_up(s, "ticket %lld: nothing within a minute", (long long)p->ticket);
  if (!e && p->ragged) {
    int64_t rows[MAX_RANKS];
    void *result = ph_take(g, p->ticket, rows);
    if (!result || memcmp(rows, p->rows, (size_t)g->size * 8)) give_up(s, "ticket %lld: wrong rows", (long long)p->ticket);
    if (memcmp(result, p->expected, p->bytes)) wrong(s, p, result);
    ph_free(result);
  } else if (!e && p->bytes && memcmp(p->out, p->expected, p->bytes)) {
    wrong(s, p, p->out);
  }
  free(p->in), free(p->expected);
  if (p->out != p->in) free(p->out);
  p->ticket = 0;
}
static void fill(void *to, size_t at, uint64_t salt, int rank, size_t from, size_t count, int dtype) {
  for (size_t i = 0; i < count; i++) put(to, at + i, dtype, given(salt, rank, from + i, dtype));
}
static void fill_reduced(void *to, uint64_t salt, int size, size_t from, size_t count, int dtype, int op, const uint8_t *takes_part) {
  for (size_t i = 0; i < count; i++) put(to, i, dtype, reduced(salt, takes_part, size, from + i, dtype, op));
}
// Operation `number` of the group that `d` draws the same way on every rank. Returns its ticket or the failure.
static int64_t begin(const seat *s, group *g, dice *d, int rank, int size, uint64_t number, pending *p, int different) {
  static const uint8_t everybody[MOST_RANKS] = {1, 1, 1, 1, 1};
  int kind = (int)roll(d, JOIN), dtype = (int)roll(d, DTYPES), op = (int)roll(d, OPS), root = (int)roll(d, (uint64_t)size);
  int asynchronous = (int)roll(d, 2), in_place = (int)roll(d, 2), n = parts(dtype), uneven = (int)roll(d, 2);
  if ((n == 2 || dtype == BOOL) && (op == PRODUCT || op == AVERAGE)) op = SUM;
  if (n == 2 && (op == MIN || op == MAX)) op = SUM;
  if (dtype == BOOL && op == SUM) op = MAX;
  size_t width = BYTES[dtype] / (size_t)n, count = roll(d, 3) ? roll(d, 200) : roll(d, MOST_ELEMENTS), most = count * (size_t)size * (size_t)n + 64;
  uint64_t salt = s->seed * 100000 + number;
  int64_t shape[1 + DIMENSIONS] = {1, (int64_t)count}, counts[MOST_RANKS], given_rows[MOST_RANKS][MOST_RANKS];
  extras more = {1.0, 1.0, NULL, NULL, 0};
  piece pieces[PIECES];
  for (int r = 0; r < size; r++)
    for (int q = 0; q < size; q++) given_rows[r][q] = (int64_t)roll(d, 30);
  if (different) count = count ? count - 1 : 1, shape[1] = (int64_t)count;
  if (different && kind >= BARRIER) kind = ALLREDUCE;
  if (different) uneven = 0;
  size_t input = count, output = count, gone = 0;  // elements
  *p = (pending){0};
  if (kind == ALLGATHER) output = count * (size_t)size;
  if (kind == GATHER) output = rank == root ? count * (size_t)size : 0;
  if (kind == SCATTER) input = rank == root ? count * (size_t)size : 0;
  if (kind == ALLTOALL || kind == REDUCESCATTER) input = output = count * (size_t)size;
  if (kind == REDUCESCATTER) {
    output = count;
    if (uneven) {
      input = 0, more.counts = counts;
      for (int r = 0; r < size; r++) input += (size_t)(counts[r] = given_rows[0][r] * (int64_t)(count / 32));
      for (int r = 0; r < rank; r++) gone += (size_t)counts[r];
      output = (size_t)counts[rank];
    } else {
      gone = count * (size_t)rank;
    }
  }
  if (kind == BARRIER) input = output = 0;
  if (kind == ALLGATHER_RAGGED) input = (size_t)given_rows[rank][0] * 8, output = 0, p->ragged = 1;
  if (kind == ALLTOALL_RAGGED) {
    input = output = 0, p->ragged = 1, more.counts = given_rows[rank];
    for (int r = 0; r < size; r++) input += (size_t)given_rows[rank][r] * 8;
  }
  if (p->ragged) shape[0] = 2, shape[1] = (int64_t)input / 8, shape[2] = 8;
  input *= (size_t)n, output *= (size_t)n, gone *= (size_t)n;
  p->in = malloc(input * width + 1);
  p->out = in_place && (kind == ALLREDUCE || kind == REDUCE || kind == BROADCAST) ? p->in : malloc(output * width + 1);
  if (kind == REDUCE || kind == BROADCAST) {
    if (p->out != p->in) free(p->out);
    p->out = p->in;
  }
  p->expected = malloc(most * width + 30 * 8 * MOST_RANKS * 16);
  p->bytes = output * width;
  fill(p->in, 0, salt, rank, 0, input, dtype);
  if (kind == ALLREDUCE || (kind == REDUCE && rank == root) || kind == REDUCESCATTER) fill_reduced(p->expected, salt, size, gone, output, dtype, op, everybody);
  if (kind == REDUCE && rank != root) fill(p->expected, 0, salt, rank, 0, output, dtype);
  if (kind == BROADCAST) fill(p->expected, 0, salt, root, 0, output, dtype);
  size_t at = 0, each = count * (size_t)n;
  for (int r = 0; r < size; r++) {
    if (kind == ALLGATHER || (kind == GATHER && rank == root)) fill(p->expected, (size_t)r * each, salt, r, 0, each, dtype);
    if (kind == ALLTOALL) fill(p->expected, (size_t)r * each, salt, r, (size_t)rank * each, each, dtype);
    if (kind == ALLGATHER_RAGGED) {
      size_t many = (size_t)(p->rows[r] = given_rows[r][0]) * 8 * (size_t)n;
      fill(p->expected, at, salt, r, 0, many, dtype);
      at += many;
    }
    if (kind == ALLTOALL_RAGGED) {
      size_t many = (size_t)(p->rows[r] = given_rows[r][rank]) * 8 * (size_t)n, before = 0;
      for (int q = 0; q < rank; q++) before += (size_t)given_rows[r][q] * 8 * (size_t)n;
      fill(p->expected, at, salt, r, before, many, dtype);
      at += many;
    }
  }
  if (kind == SCATTER) fill(p->expected, 0, salt, root, (size_t)rank * each, each, dtype);
  if (p->ragged) p->bytes = at * width;
  if (kind != REDUCE && kind != BROADCAST && kind != GATHER && kind != SCATTER) root = more.counts && kind == REDUCESCATTER;
  if (kind != ALLREDUCE && kind != REDUCE && kind != REDUCESCATTER) op = 0;
  uint64_t code = (uint64_t)kind | (uint64_t)op << 8 | (uint64_t)dtype << 16 | (uint64_t)root << 24 | (uint64_t)asynchronous << 40;
  int64_t elements = kind == GATHER || kind == SCATTER ? (int64_t)count : (int64_t)input / n;
  if (!p->ragged && kind != GATHER && kind != SCATTER) shape[1] = elements;
  if (kind == BARRIER) shape[0] = 0;
  p->kind = kind, p->op = op, p->dtype = dtype, p->root = root, p->count = elements;
  dice cuts = {salt};
  if (kind == ALLREDUCE && roll(&cuts, 2)) {  // in pieces, some of them empty, the last of the memory first
    size_t end = (size_t)elements, element = width * (size_t)n;
    for (more.parts = pieces; more.many < PIECES; more.many++) {
      size_t start = more.many + 1 == PIECES ? 0 : roll(&cuts, end + 1);
      pieces[more.many] = (piece){(char *)p->in + start * element, (char *)p->out + start * element, (end - start) * element};
      end = start;
    }
  }
  atomic_fetch_add(&operations, 1);
  int64_t ticket = ph_call(g, code, more.parts ? NULL : p->in, more.parts ? NULL : p->out, elements, shape, number % 3 ? "tensor" : NULL, &more);
  return p->ticket = ticket ? ticket : ph_completed(g);  // a blocking one that is done was the last
}
// Some data each, then join: the others' allreduces see nothing of those who have joined.
static int joins(const seat *s, group *g, dice *d, int rank, int size, uint64_t number) {
  int64_t steps[MOST_RANKS], rows[MAX_RANKS], most = 0, none[1 + DIMENSIONS] = {0};
  size_t count = roll(d, 3) ? roll(d, 100) : roll(d, 5000);
  for (int r = 0; r < size; r++) {
    steps[r] = (int64_t)roll(d, 4);
    if (steps[r] > most) most = steps[r];
  }
  for (int64_t step = 0; step < steps[rank]; step++) {
    uint64_t salt = s->seed * 100000 + number * 10 + (uint64_t)step;
    uint8_t takes_part[MOST_RANKS];
    int64_t shape[1 + DIMENSIONS] = {1, (int64_t)count};
    int32_t *mine = malloc(count * 4 + 4), *expected = malloc(count * 4 + 4);
    for (int r = 0; r < size; r++) takes_part[r] = steps[r] > step;
    fill(mine, 0, salt, rank, 0, count, I32);
    fill_reduced(expected, salt, size, 0, count, I32, SUM, takes_part);
    int64_t e = finished(g, ph_call(g, ALLREDUCE | SUM << 8 | I32 << 16, mine, mine, (int64_t)count, shape, NULL, NULL));
    if (!e && memcmp(mine, expected, count * 4)) give_up(s, "wrong sum beside ranks that have joined");
    free(mine), free(expected);
    if (e < 0) return (int)e;
  }
  int64_t ticket = ph_call(g, JOIN | 1ull << 40, NULL, NULL, 0, none, NULL, NULL), e = finished(g, ticket);
  if (e < 0) return (int)e;
  free(ph_take(g, ticket, rows));
  if (steps[rows[0]] != most) give_up(s, "rank %d joined last, they say", (int)rows[0]);
  return OK;
}
static int works(const seat *s, group *g, int rank, int size, int many, uint64_t salt) {
  dice shared_dice = {s->seed * 31 + salt}, own = {s->seed * 77 + (uint64_t)rank + salt};
  pending under_way[PENDING] = {{0}};
  int e = OK;
  for (int number = 1; number <= many && e >= 0; number++) {
    if (!roll(&own, 20)) usleep((useconds_t)roll(&own, 3000));
    if (!roll(&shared_dice, 12) && number != s->bad_at) {
      e = joins(s, g, &shared_dice, rank, size, salt + (uint64_t)number);
      continue;
    }
    pending *p = &under_way[number % PENDING];
    if (p->ticket > 0) check(s, g, p);
    int at_the_end = salt == 0 && number == s->bad_at && rank == s->victim;
    if (at_the_end && s->ending == ABORTED) ph_abort(g, "its disk is full");
    if (at_the_end && s->ending == LEFT) break;
    if (at_the_end && s->ending == ABSENT) usleep((useconds_t)(s->timeout_s * 1.5e6));
    int64_t ticket = begin(s, g, &shared_dice, rank, size, salt + (uint64_t)number, p, at_the_end && s->ending == MISMATCHED);
    if (ticket < 0) {
      free(p->in), free(p->expected);
      if (p->out != p->in) free(p->out);
      p->ticket = 0;
      e = (int)ticket;
    } else if (roll(&own, 2)) {
      check(s, g, p);
    }
  }
  for (int i = 0; i < PENDING; i++)
    if (under_way[i].ticket > 0 && !(salt == 0 && s->ending == LEFT && rank == s->victim)) check(s, g, &under_way[i]);
  if (salt == 0 && s->ending == LEFT && rank == s->victim) {
    ph_close(g);  // with operations under way: their memory is ours again afterwards
    for (int i = 0; i < PENDING; i++) {
      if (under_way[i].ticket <= 0) continue;
      free(under_way[i].in), free(under_way[i].expected);
      if (under_way[i].out != under_way[i].in) free(under_way[i].out);
    }
    return LOST;
  }
  return e;
}
static group *enter(const seat *s, int fd, int rank, int size) {
  char error[TEXT];
  uint8_t missing[MAX_RANKS];
  int32_t names[MAX_RANKS];
  for (int r = 0; r < size; r++) names[r] = r;
  group *g = ph_open(fd, rank, size, s->area, s->small, s->large, s->spin_s, 60.0, s->timeout_s, s->token, names, error, missing);
  if (!g) give_up(s, "%s", error);
  return g;
}
static void *rank_main(void *argument) {
  const seat *s = argument;
  group *g = enter(s, s->fd, s->rank, s->size);
  int leaves = s->ending == LEFT && s->rank == s->victim;
  watched w = {g, 0};
  pthread_t watcher;
  if (!leaves) pthread_create(&watcher, NULL, watch, &w);
  if (s->also && s->also_rank >= 0) {
    group *other = enter(s, s->also_fd, s->also_rank, s->also_size);
    works(s, other, s->also_rank, s->also_size, OPERATIONS / 4, 1000);
    ph_close(other);
  }
  int e = works(s, g, s->rank, s->size, OPERATIONS, 0);
  static const int expected[ENDINGS] = {OK, MISMATCH, LOST, LOST, LATE};
  if (leaves) return NULL;
  int64_t shape[1 + DIMENSIONS] = {0};
  int64_t last = finished(g, ph_call(g, BARRIER, NULL, NULL, 0, shape, NULL, NULL));
  if (e >= 0 && last < 0) e = (int)last;
  if (e != expected[s->ending]) give_up(s, "ends with %d and not %d: %s", e, expected[s->ending], ph_message(g));
  if (s->ending >= ABORTED && ph_culprit(g) != s->victim) give_up(s, "blames %d and not %d: %s", ph_culprit(g), s->victim, ph_message(g));
  atomic_store(&w.over, 1);
  pthread_join(watcher, NULL);
  ph_close(g);
  return NULL;
}

// ---- rounds

static int buffer(const seat *s, int size) {
  int fd = memfd_create("ranks", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, (off_t)ph_bytes(size, s->area, s->small)) || ph_create(fd, s->token)) abort();
  return fd;
}
static void play(uint64_t seed) {
  static const char token[33] = "0123456789abcdef0123456789abcdef";
  dice d = {seed * 1000};
  seat seats[MOST_RANKS], common = {0};
  pthread_t threads[MOST_RANKS];
  uint8_t members[MOST_RANKS] = {0};
  int size = 2 + (int)roll(&d, MOST_RANKS - 1), ranks[MOST_RANKS], many = 0;
  common.seed = seed, common.token = token, common.size = size;
  common.area = SLOTS * (roll(&d, 2) ? 64 * ((size_t)size + roll(&d, 200)) : (size_t)32768 << roll(&d, 2));
  common.small = 64 * (1 + roll(&d, 40)), common.large = roll(&d, 2) ? 4096 : 1 << 30, common.spin_s = roll(&d, 2) ? 2e-5 : 0;
  common.ending = roll(&d, 3) ? WELL : (int)roll(&d, ENDINGS);
  common.victim = (int)roll(&d, (uint64_t)size), common.bad_at = 1 + (int)roll(&d, OPERATIONS);
  common.timeout_s = common.ending == ABSENT ? 2.0 : 300.0;
  for (int r = 0; r < size; r++) {
    members[r] = roll(&d, 3) > 0;
    ranks[r] = members[r] ? many++ : -1;
  }
  ph_use_level((int)roll(&d, 3));
  common.fd = buffer(&common, size);
  int second = many > 1 && roll(&d, 2);
  if (second) common.also = members, common.also_size = many, common.also_fd = buffer(&common, many);
  for (int r = 0; r < size; r++) {
    seats[r] = common;
    seats[r].rank = r, seats[r].also_rank = ranks[r];
    if (pthread_create(&threads[r], NULL, rank_main, &seats[r])) abort();
  }
  for (int r = 0; r < size; r++) pthread_join(threads[r], NULL);
  close(common.fd);
  if (second) close(common.also_fd);
}
int main(int count, char **words) {
  uint64_t seed = count > 1 ? strtoull(words[1], NULL, 10) : 1;
  long rounds = count > 2 ? strtol(words[2], NULL, 10) : 10;
  for (long round = 0; round < rounds; round++) play(seed * 1000 + (uint64_t)round);
  printf("%ld rounds, %ld operations\n", rounds, atomic_load(&operations));
  return 0;
}
