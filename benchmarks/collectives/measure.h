/* What the C programs share with protocol.py: the same arguments, the same way to measure, the same line of result.
 *
 *   PROGRAM CORES MOST SECONDS BYTES:DTYPE...
 *
 * CORES: comma-separated, rank r runs on the r-th, beginning again at the end. Knows nothing of what is measured. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FEWEST = 5, LONGEST_BATCH = 1000, MOST_ORDERS = 64, MOST_CORES = 64 };

struct order {
    size_t bytes;
    char dtype[16];
};

struct plan {
    int cores[MOST_CORES], core_count;
    long most; /* measurements of an order */
    double seconds; /* that they take together, when FEWEST do not take longer and `most` are not quicker */
    struct order orders[MOST_ORDERS];
    int order_count;
};

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(2);
}

static struct plan plan_of(int argc, char **argv) {
    struct plan plan = {0};
    if (argc < 5 || argc - 4 > MOST_ORDERS) fail("usage: PROGRAM CORES MOST SECONDS BYTES:DTYPE...");
    for (char *core = strtok(argv[1], ","); core && plan.core_count < MOST_CORES; core = strtok(NULL, ","))
        plan.cores[plan.core_count++] = atoi(core);
    plan.most = atol(argv[2]);
    plan.seconds = atof(argv[3]);
    for (int i = 4; i < argc; i++) {
        struct order *order = &plan.orders[plan.order_count++];
        if (sscanf(argv[i], "%zu:%15s", &order->bytes, order->dtype) != 2) fail("an order is BYTES:DTYPE");
    }
    return plan;
}

static void pin(const struct plan *plan, int rank) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(plan->cores[rank % plan->core_count], &set);
    if (sched_setaffinity(0, sizeof set, &set)) fail("cannot pin to a core");
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* A call that is timed, and what a rank knows of the time that all have spent. */
typedef void operation(void *context);
typedef double agreement(double seconds);

/* Time calls, in batches that double, until all ranks together have spent `seconds` each: how long a call takes beside a
 * busy process cannot be told from a few. Ranks agree after each batch, so that all call equally often. */
static long sample(operation *call, void *context, agreement *agree, long batch, double seconds, double *times, long most) {
    long count = 0;
    for (double spent = 0; spent < seconds && count < most;) {
        double own = 0;
        if (batch > most - count) batch = most - count;
        for (long i = 0; i < batch; i++) {
            double begin = now();
            call(context);
            own += times[count++] = now() - begin;
        }
        spent += agree(own);
        batch = 2 * batch > LONGEST_BATCH ? LONGEST_BATCH : 2 * batch;
    }
    return count;
}

/* Memory of its own for a rank, every page present. */
static void *touched(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes < 64 ? 64 : bytes)) fail("not enough memory");
    memset(memory, 0, bytes);
    return memory;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, long count) {
    qsort(values, (size_t)count, sizeof *values, ascending);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

static double mean(const double *values, long count) {
    double sum = 0;
    for (long i = 0; i < count; i++) sum += values[i];
    return sum / (double)count;
}

/* Warm up for a tenth of the time, measure for all of it. Returns how many `times` there are. */
static long samples(const struct plan *plan, operation *call, void *context, agreement *agree, double *times) {
    sample(call, context, agree, 1, plan->seconds / 10, times, plan->most);
    return sample(call, context, agree, FEWEST, plan->seconds, times, plan->most);
}

/* A line of result, in one write. */
static void say(const struct order *order, const char *variant, long count, double middle, double average) {
    printf("{\"bytes\": %zu, \"dtype\": \"%s\", \"variant\": \"%s\", \"count\": %ld, \"median_us\": %.4f, "
           "\"mean_us\": %.4f}\n", order->bytes, order->dtype, variant, count, middle * 1e6, average * 1e6);
    fflush(stdout);
}
