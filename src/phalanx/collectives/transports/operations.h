// What the operations do once all have arrived. Part of shm.c.

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
static void gather(char *to, const part *p, size_t at, size_t end) {
  for (size_t n; at < end; at += n, to += n) {
    while (p->end <= at) p++;
    n = at_most(p->end - at, end - at);
    memcpy(to, p->in + (at - p->begin), n);
  }
}
static void scatter(group *g, const part *p, size_t at, size_t end, const char *from, size_t total) {
  for (size_t n; at < end; at += n, from += n) {
    while (p->end <= at) p++;
    n = at_most(p->end - at, end - at);
    copy_out(g, p->out + (at - p->begin), from, n, total);
  }
}
// Of parts without `in` this rank contributes nothing, and of those without `out` it wants nothing.
static int allreduce(group *g, const part *parts, size_t count, reduction *job) {
  size_t width = BYTES[job->dtype], bytes = count * width;
  lay_out(g, bytes);
  size_t step = g->chunk / width;
  uint32_t rounds = (uint32_t)((count + step - 1) / step), base = g->chunks;
  const void *from[MAX_RANKS];
  int me = g->rank, e;
  for (uint32_t i = 0; i < rounds + 2; i++) {
    size_t low, high;
    if (i < rounds) {  // copy in what others reduce
      size_t at = i * step, n = at_most(count - at, step);
      if ((e = free_place(g, base + i))) return e;
      slice(n, g->size, me, &low, &high);
      char *place = stage_of(g, me, base + i);
      if (parts->in) {
        gather(place, parts, at * width, (at + low) * width);
        gather(place + high * width, parts, (at + high) * width, (at + n) * width);
      }
      post(&g->me->copied, base + i + 1);
    }
    if (i >= 1 && i - 1 < rounds) {  // reduce the own slice, into the own place for the others
      size_t at = (i - 1) * step, n = at_most(count - at, step);
      if ((e = wait_all(g, ALL(copied), base + i))) return e;
      slice(n, g->size, me, &low, &high);
      char *place = stage_of(g, me, base + i - 1);
      const part *p = parts;
      for (size_t o = low, m; o < high; o += m) {
        size_t here = (at + o) * width;
        while (p->end <= here) p++;
        m = at_most(at_most(high - o, 4 * BLOCK), (p->end - here) / width);
        job->sources = sources(g, from, p->in ? p->in + (here - p->begin) : NULL, o * width, base + i - 1);
        reduce(place + o * width, from, m, job);
        if (p->out) memcpy(p->out + (here - p->begin), place + o * width, m * width);  // in place these lines are in the cache
      }
      post(&g->me->reduced, base + i);
    }
    if (i >= 2) {  // copy out what others have reduced
      size_t at = (i - 2) * step, n = at_most(count - at, step);
      for (int x = 1; x < g->size; x++) {
        int r = (me + x) % g->size;
        if ((e = wait_for(g, &g->ranks[r].reduced, r, base + i - 1))) return e;
        slice(n, g->size, r, &low, &high);
        if (parts->out) scatter(g, parts, (at + low) * width, (at + high) * width, stage_of(g, r, base + i - 2) + low * width, bytes);
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
  part whole = {c->in, out, 0, count * width}, *parts = c->parts ? c->parts : &whole;
  switch (d->kind) {
    case ALLREDUCE: case REDUCE:
      if (!fits(g, d->kind, whole.end)) return allreduce(g, parts, count, &job);
      for (; before < whole.end && parts->out; before = parts++->end) {
        job.sources = small_sources(g, from, before);
        reduce(parts->out, from, (parts->end - before) / width, &job);
      }
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
  if (!c->posted) {
    size_t bytes = payload(g, &c->does);
    c->sequence = ++g->sequence;
    c->arrived = now();
    if (bytes && fits(g, c->does.kind, bytes)) {
      part whole = {c->in, NULL, 0, bytes};
      gather(small_of(g, g->rank, c->sequence), c->parts ? c->parts : &whole, 0, bytes);
    }
    if (c->counts) memcpy(g->me->splits[c->sequence % PLACES], c->counts, (size_t)g->size * sizeof *c->counts);
  }
  uint32_t sequence = c->sequence;
  int e = arrive(g, c, sequence);
  if (e == HANDED_OVER) return e;
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
