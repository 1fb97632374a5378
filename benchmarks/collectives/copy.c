/* How long a rank takes to copy a buffer to another of its own while every rank does so: memcpy, and stores that
 * bypass the caches. Starts its ranks itself: copy RANKS CORES MOST SECONDS BYTES:DTYPE... (see measure.h). */
#include "measure.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

struct shared {
    pthread_barrier_t start;
    _Atomic int finished; /* ranks that have all their measurements, of all orders so far */
};

typedef void copy(void *to, const void *from, size_t bytes);

static void ordinary(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

#ifdef __x86_64__
#include <immintrin.h>
#ifdef __AVX512F__
typedef __m512i word;
#define LOAD(from) _mm512_loadu_si512(from)
#define STREAM(to, value) _mm512_stream_si512(to, value)
#elif defined __AVX2__
typedef __m256i word;
#define LOAD(from) _mm256_loadu_si256(from)
#define STREAM(to, value) _mm256_stream_si256(to, value)
#else
typedef __m128i word;
#define LOAD(from) _mm_loadu_si128(from)
#define STREAM(to, value) _mm_stream_si128(to, value)
#endif

static void streaming(void *to, const void *from, size_t bytes) {
    word *out = to;
    const word *in = from;
    size_t words = bytes / sizeof(word);
    for (size_t i = 0; i < words; i++) STREAM(out + i, LOAD(in + i));
    memcpy(out + words, in + words, bytes % sizeof(word));
    _mm_sfence();
}
#define VARIANTS 2
#else /* memcpy of other processors streams as well as can be done from here */
static copy *const streaming = ordinary;
#define VARIANTS 1
#endif

struct pair {
    copy *how;
    void *to, *from;
    size_t bytes;
};

static void call(void *context) {
    struct pair *pair = context;
    pair->how(pair->to, pair->from, pair->bytes);
}

static double alone(double seconds) { return seconds; } /* ranks that copy need not do it equally often */

static void measure(const struct plan *plan, const struct order *order, copy *how, const char *variant,
                    struct shared *shared, int target) {
    struct pair pair = {how, touched(order->bytes), touched(order->bytes), order->bytes};
    for (size_t i = 0; i < order->bytes; i++) ((unsigned char *)pair.from)[i] = (unsigned char)(i % 251);
    call(&pair);
    if (memcmp(pair.to, pair.from, order->bytes)) fail("the copy is not equal");
    double *times = touched((size_t)plan->most * sizeof *times);
    pthread_barrier_wait(&shared->start);
    long count = samples(plan, call, &pair, alone, times);
    atomic_fetch_add(&shared->finished, 1);
    while (atomic_load(&shared->finished) < target) call(&pair); /* all copy until the last has counted */
    double average = mean(times, count); /* before the median sorts them */
    say(order, variant, count, median(times, count), average);
    free(times);
    free(pair.from);
    free(pair.to);
}

static void run(const struct plan *plan, int rank, int ranks, struct shared *shared) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(plan, rank);
    int target = 0;
    for (int i = 0; i < plan->order_count; i++) {
        measure(plan, &plan->orders[i], ordinary, "memcpy", shared, target += ranks);
        if (VARIANTS > 1)
            measure(plan, &plan->orders[i], streaming, "non-temporal stores", shared, target += ranks);
    }
}

int main(int argc, char **argv) {
    if (argc < 2) fail("usage: copy RANKS CORES MOST SECONDS BYTES:DTYPE...");
    int ranks = atoi(argv[1]), status;
    struct plan plan = plan_of(argc - 1, argv + 1);
    struct shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t between;
    pthread_barrierattr_init(&between);
    pthread_barrierattr_setpshared(&between, PTHREAD_PROCESS_SHARED);
    if (shared == MAP_FAILED || pthread_barrier_init(&shared->start, &between, (unsigned)ranks)) fail("no shared memory");
    for (int rank = 0; rank < ranks; rank++) {
        pid_t child = fork();
        if (child < 0) fail("cannot fork");
        if (child == 0) {
            run(&plan, rank, ranks, shared);
            exit(0);
        }
    }
    while (wait(&status) > 0)
        if (status) return 1; /* the others wait for it: they end with us */
    return 0;
}
