/* MPI_Allreduce (MPI_SUM) in place and from one buffer to another; built once for each MPI.
 * MPI has no type for bf16, so float32 only. Arguments: see measure.h. */
#include "measure.h"
#include <mpi.h>

static int rank, ranks;

struct buffers {
    float *in, *out; /* in place: no `in` */
    size_t elements;
};

static void allreduce(void *context) {
    struct buffers *buffers = context;
    MPI_Allreduce(buffers->in ? (void *)buffers->in : MPI_IN_PLACE, buffers->out, (int)buffers->elements, MPI_FLOAT,
                  MPI_SUM, MPI_COMM_WORLD);
}

static double agreed(double seconds) {
    double all;
    MPI_Allreduce(&seconds, &all, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return all / ranks;
}

/* Sums of small whole numbers are exact in every order. Leaves zeros, whose sums stay zero. */
static void check(struct buffers *buffers) {
    float *own = buffers->in ? buffers->in : buffers->out;
    for (size_t i = 0; i < buffers->elements; i++) own[i] = (float)((int)(i % 7) + rank);
    allreduce(buffers);
    for (size_t i = 0; i < buffers->elements; i++)
        if (buffers->out[i] != (float)(ranks * (int)(i % 7) + ranks * (ranks - 1) / 2)) fail("the sum is wrong");
    memset(own, 0, buffers->elements * sizeof *own);
}

static void measure(const struct plan *plan, const struct order *order, const char *variant, int in_place) {
    struct buffers buffers = {in_place ? NULL : touched(order->bytes), touched(order->bytes), order->bytes / sizeof(float)};
    check(&buffers);
    double *times = touched((size_t)plan->most * sizeof *times);
    long count = samples(plan, allreduce, &buffers, agreed, times);
    double own[2] = {0, mean(times, count)}, slowest[2];
    own[0] = median(times, count); /* sorts them */
    MPI_Reduce(own, slowest, 2, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (rank == 0) say(order, variant, count, slowest[0], slowest[1]);
    free(times);
    free(buffers.in);
    free(buffers.out);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    struct plan plan = plan_of(argc, argv);
    pin(&plan, rank);
    for (int i = 0; i < plan.order_count; i++) {
        if (strcmp(plan.orders[i].dtype, "float32")) fail("MPI knows float32 only");
        measure(&plan, &plan.orders[i], "in place", 1);
        measure(&plan, &plan.orders[i], "two buffers", 0);
    }
    MPI_Finalize();
    return 0;
}
