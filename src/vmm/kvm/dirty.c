/* Which pages the host's processors wrote: KVM's log of each memory slot.
 *
 * Where KVM can, pages are protected anew by a call of its own (KVM_CLEAR_DIRTY_LOG), a piece at a
 * time, so that no vCPU waits for its lock while a whole slot is gone through. */
#include <errno.h>
#include <sys/ioctl.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/kvm/kvm.h"

#define PIECE (64u << 10) /* pages cleared by one call; a multiple of 64, as KVM asks for */

void kvm_choose_dirty(struct kvm_machine *k)
{
        struct kvm_enable_cap manual = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                                         .args = { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE } };
        k->clears_log = ioctl(k->vm_fd, KVM_ENABLE_CAP, &manual) == 0;
}

static int begin(struct kvm_machine *k, struct err *err)
{
        int r = 0;
        for (unsigned i = 0; r == 0 && i < k->machine->memory.length; i++)
                r = kvm_give_slot(k, i, KVM_MEM_LOG_DIRTY_PAGES, err);
        k->logs_writes = r == 0;
        k->memory.dirty = k->machine->memory.dirty; /* the software CPU that helps out */
        return r;
}

static int clear(const struct kvm_machine *k, unsigned slot, uint64_t *bits, uint64_t pages)
{
        for (uint64_t at = 0; at < pages; at += PIECE) {
                struct kvm_clear_dirty_log log = {
                        .slot = slot,
                        .first_page = at,
                        .num_pages = (uint32_t)(pages - at < PIECE ? pages - at : PIECE),
                        .dirty_bitmap = bits + at / 64
                };
                if (ioctl(k->vm_fd, KVM_CLEAR_DIRTY_LOG, &log) < 0)
                        return -errno;
        }
        return 0;
}

static int take_slot(const struct kvm_machine *k, unsigned slot, uint64_t *bits)
{
        const struct memory *memory = &k->machine->memory;
        const struct memory_slot *s = &memory->slots[slot];
        uint64_t pages = s->size_bytes / MEMORY_PAGE_SIZE;
        uint64_t *to = memory->dirty + s->base.value / MEMORY_PAGE_SIZE / 64;
        struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = bits };
        if (ioctl(k->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0)
                return -errno;
        for (uint64_t i = 0; i < (pages + 63) / 64; i++)
                __atomic_fetch_or(&to[i], bits[i], __ATOMIC_RELAXED);
        return k->clears_log ? clear(k, slot, bits, pages) : 0;
}

int kvm_sync_dirty(struct machine *m, struct err *err)
{
        struct kvm_machine *k = m->provider;
        if (!k->logs_writes)
                return begin(k, err);
        auto_free uint64_t *bits = xcalloc((memory_pages(&m->memory) + 63) / 64, sizeof(*bits));
        int r = 0;
        for (unsigned i = 0; r == 0 && i < m->memory.length; i++)
                r = take_slot(k, i, bits);
        return r < 0 ? err_set(err, -r, "KVM's log of what is written") : 0;
}
