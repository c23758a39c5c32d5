/* Which pages of a machine's memory were written since somebody last asked: by its vCPUs, whatever
 * the provider, and by its devices.
 *
 * A page may be told although its content is as before; one that was written is never left out.
 * Bit n of the words is guest physical page n; where there is no memory, it is 0.
 *
 * Threads: both are called while all vCPUs stand and workers are held (machine_pause(),
 * workers_quiesce()), on the loop's.
 *
 * Source: Linux, Documentation/virt/kvm/api.rst, KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG.
 */
#pragma once

#include "vmm/machine.h"

/* How many words dirty_take() fills. */
static inline uint64_t dirty_words(const struct machine *machine)
{
        return (memory_pages(&machine->memory) + 63) / 64;
}

/* From here on writes are noted, at the cost of a fault (kvm) or a look at the page tables (soft)
 * for the first one to each page. Again: begins anew. */
int dirty_start(struct machine *machine, struct err *err);
/* The pages written since dirty_start() or the last call. */
int dirty_take(struct machine *machine, uint64_t *ret_words, struct err *err);
