/* Runs one kernel of edge some times: harness DATA ARENA_BYTES SCRATCH_BYTES REPEATS
 *
 * DATA holds int64 count, that many int64 arguments, then the constants. The kernel is linked in as `edge_kernel`. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { SPARE_BYTES = 4096, ALIGNMENT = 64 };

extern void edge_kernel(const int64_t *args, uint8_t *arena, const uint8_t *constants, uint8_t *scratch, int64_t part, int64_t parts);

static void *zeroed(size_t bytes) {
    size_t rounded = (bytes + SPARE_BYTES + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    uint8_t *memory = aligned_alloc(ALIGNMENT, rounded);
    for (size_t i = 0; memory && i < rounded; i++) memory[i] = 0;
    return memory;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    FILE *data = fopen(argv[1], "rb");
    int64_t count = 0;
    if (!data || fread(&count, sizeof count, 1, data) != 1) return 3;
    int64_t *args = zeroed(count * sizeof *args);
    if (fread(args, sizeof *args, count, data) != (size_t)count) return 4;
    long start = ftell(data);
    fseek(data, 0, SEEK_END);
    size_t bytes = ftell(data) - start;
    fseek(data, start, SEEK_SET);
    uint8_t *constants = zeroed(bytes), *arena = zeroed(strtoull(argv[2], 0, 10)), *scratch = zeroed(strtoull(argv[3], 0, 10));
    if (fread(constants, 1, bytes, data) != bytes) return 5;
    for (long i = strtol(argv[4], 0, 10); i > 0; i--) edge_kernel(args, arena, constants, scratch, 0, 1);
    return 0;
}
