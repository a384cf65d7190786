/* Runs kernels of edge, each once, with a mark before and after: harness DATA
 *
 * DATA holds jobs, one after the other: five int64 (index of the kernel in `edge_kernels`, count of arguments, bytes of the arena, of
 * scratch, of constants), the int64 arguments, the constants. `edge_kernels` is linked in. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mark.h"

enum { SPARE_BYTES = 4096, ALIGNMENT = 64 };

typedef void kernel(const int64_t *args, uint8_t *arena, const uint8_t *constants, uint8_t *scratch, int64_t part, int64_t parts);
extern kernel *const edge_kernels[];
struct job { int64_t kernel, args, arena_bytes, scratch_bytes, constants_bytes; };

static void *zeroed(size_t bytes) {
    size_t rounded = (bytes + SPARE_BYTES + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    uint8_t *memory = aligned_alloc(ALIGNMENT, rounded);
    for (size_t i = 0; memory && i < rounded; i++) memory[i] = 0;
    return memory;
}

static int run(FILE *data, const struct job *job, long number) {
    int64_t *args = zeroed(job->args * sizeof *args);
    uint8_t *constants = zeroed(job->constants_bytes), *arena = zeroed(job->arena_bytes), *scratch = zeroed(job->scratch_bytes);
    if (!args || !constants || !arena || !scratch) return 0;
    if (fread(args, sizeof *args, job->args, data) != (size_t)job->args) return 0;
    if (fread(constants, 1, job->constants_bytes, data) != (size_t)job->constants_bytes) return 0;
    syscall(SYS_getppid, MARK, 0);
    edge_kernels[job->kernel](args, arena, constants, scratch, 0, 1);
    syscall(SYS_getppid, MARK, number);
    free(args), free(constants), free(arena), free(scratch);
    return 1;
}

int main(int argc, char **argv) {
    FILE *data = argc == 2 ? fopen(argv[1], "rb") : 0;
    struct job job;
    if (!data) return 2;
    for (long number = 1; fread(&job, sizeof job, 1, data) == 1; number++)
        if (!run(data, &job, number)) return 3;
    return 0;
}
