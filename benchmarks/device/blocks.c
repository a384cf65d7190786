/* A QEMU plugin that prints, at the end, how often each translated block ran: "ADDRESS INSTRUCTIONS TIMES" a line, in hexadecimal.
 *
 * The plugin interface is declared here, as Debian ships no header for it (version 1, QEMU 4.2 to 8.1). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct qemu_plugin_tb;
struct qemu_info_t;
typedef uint64_t qemu_plugin_id_t;
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *target, uint64_t immediate);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { ADD = 0 };
static struct block { uint64_t address, instructions, times; struct block *next; } *blocks;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    struct block *block = calloc(1, sizeof *block);
    *block = (struct block){qemu_plugin_tb_vaddr(tb), qemu_plugin_tb_n_insns(tb), 0, blocks};
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD, &block->times, 1);
}

static void print(qemu_plugin_id_t id, void *unused) {
    for (struct block *b = blocks; b; b = b->next)
        fprintf(stderr, "%llx %llx %llx\n", (unsigned long long)b->address, (unsigned long long)b->instructions, (unsigned long long)b->times);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv) {
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, print, 0);
    return 0;
}
