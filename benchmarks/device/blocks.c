/* A QEMU plugin that prints how often each translated block ran between two marks: "job N", then "ADDRESS INSTRUCTIONS TIMES" a line, in
 * hexadecimal. A mark is the system call getppid with MARK and a job as arguments: 0 begins to count, another ends and prints.
 *
 * The plugin interface is declared here, as Debian ships no header for it (version 1, QEMU 4.2 to 8.1). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "mark.h"

struct qemu_plugin_tb;
struct qemu_info_t;
typedef uint64_t qemu_plugin_id_t;
typedef void (*syscall_cb)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *target, uint64_t immediate);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_cb);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { ADD = 0, GETPPID = 173 };
static struct block { uint64_t address, instructions, times; struct block *next; } *blocks;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    struct block *block = calloc(1, sizeof *block);
    *block = (struct block){qemu_plugin_tb_vaddr(tb), qemu_plugin_tb_n_insns(tb), 0, blocks};
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD, &block->times, 1);
}

static void marked(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t mark, uint64_t job, uint64_t a, uint64_t b, uint64_t c,
                   uint64_t d, uint64_t e, uint64_t f) {
    if (number != GETPPID || mark != MARK) return;
    if (job) fprintf(stderr, "job %llu\n", (unsigned long long)job);
    for (struct block *block = blocks; block; block = block->next) {
        if (job && block->times)
            fprintf(stderr, "%llx %llx %llx\n", (unsigned long long)block->address, (unsigned long long)block->instructions,
                    (unsigned long long)block->times);
        block->times = 0;
    }
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv) {
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, marked);
    return 0;
}
