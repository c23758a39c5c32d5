/* Which pages the host's processors wrote, told by KVM in a ring of each vCPU.
 *
 * A page comes once, when it is written first after its ring was reset; who looks pays for the
 * pages that were written, not for all that there are, as with the log. A vCPU whose ring is nearly
 * full leaves the guest (KVM_EXIT_DIRTY_RING_FULL) and empties it itself.
 *
 * Entries come in order. Each is free (flags 0), then KVM's news (KVM_DIRTY_GFN_F_DIRTY), then
 * taken (KVM_DIRTY_GFN_F_RESET), which KVM_RESET_DIRTY_RINGS makes free again and notes further
 * writes of. A vCPU's ring is looked at by its own thread, or by the loop's while it stands;
 * resetting all of them at any time loses nothing, since a page is in memory.dirty before it is
 * marked as taken. */
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "vmm/kvm/kvm.h"

/* 64 KiB of the kernel's for each vCPU: a power of two, more than KVM keeps in reserve (576). */
#define ENTRIES 4096u

/* Younger than some headers: the kernel itself writes memory on nobody's behalf, which no ring
 * tells. */
#ifndef KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP
#define KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP 225
#endif

static bool enable(const struct kvm_machine *k, uint32_t capability, uint64_t size_bytes)
{
        struct kvm_enable_cap ring = { .cap = capability, .args = { size_bytes } };
        int most = ioctl(k->vm_fd, KVM_CHECK_EXTENSION, capability);
        return most > 0 && (uint64_t)most >= size_bytes &&
               ioctl(k->vm_fd, KVM_ENABLE_CAP, &ring) == 0;
}

bool kvm_rings_enable(struct kvm_machine *k)
{
        uint64_t size_bytes = ENTRIES * sizeof(struct kvm_dirty_gfn);
        if (ioctl(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP) > 0)
                return false;
        if (enable(k, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, size_bytes) ||
            enable(k, KVM_CAP_DIRTY_LOG_RING, size_bytes))
                k->ring_length = ENTRIES;
        return k->ring_length > 0;
}

int kvm_ring_map(struct kvm_vcpu *v, struct err *err)
{
        uint32_t length = v->kvm->ring_length;
        if (!length)
                return 0;
        void *entries = mmap(NULL, length * sizeof(struct kvm_dirty_gfn), PROT_READ | PROT_WRITE,
                             MAP_SHARED, v->fd, KVM_DIRTY_LOG_PAGE_OFFSET * MEMORY_PAGE_SIZE);
        if (entries == MAP_FAILED)
                return err_set(err, errno, "vCPU %u: map its ring of written pages",
                               v->vcpu->index);
        v->ring = (struct kvm_ring){ .entries = entries, .length = length };
        return 0;
}

void kvm_ring_unmap(struct kvm_vcpu *v)
{
        if (v->ring.entries)
                munmap(v->ring.entries, v->ring.length * sizeof(struct kvm_dirty_gfn));
        v->ring = (struct kvm_ring){ 0 };
}

int kvm_ring_take(struct kvm_ring *ring, const struct memory *memory, struct err *err)
{
        int taken = 0;
        for (; (uint32_t)taken < ring->length; taken++, ring->next++) {
                struct kvm_dirty_gfn *e = &ring->entries[ring->next & (ring->length - 1)];
                uint32_t flags = __atomic_load_n(&e->flags, __ATOMIC_ACQUIRE);
                if ((flags & (KVM_DIRTY_GFN_F_DIRTY | KVM_DIRTY_GFN_F_RESET)) !=
                    KVM_DIRTY_GFN_F_DIRTY)
                        break;
                uint32_t slot = e->slot; /* an address space in its upper half: we use only 0 */
                uint64_t page = e->offset;
                if (slot >= memory->length ||
                    page >= memory->slots[slot].size_bytes / MEMORY_PAGE_SIZE)
                        return err_plain(err, EIO,
                                         "KVM's ring tells of page 0x%llx in slot 0x%x of memory, "
                                         "which is not there",
                                         (unsigned long long)page, slot);
                memory_dirtied(memory,
                               gpa(memory->slots[slot].base.value + page * MEMORY_PAGE_SIZE), 1);
                __atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
        }
        return taken;
}

/* KVM breaks off for a signal, as for a kick, which is looked at elsewhere. */
static int reset(const struct kvm_machine *k, struct err *err)
{
        while (ioctl(k->vm_fd, KVM_RESET_DIRTY_RINGS, 0) < 0)
                if (errno != EINTR)
                        return err_set(err, errno, "KVM's rings of written pages");
        return 0;
}

int kvm_ring_empty(struct kvm_vcpu *v, struct err *err)
{
        int taken = kvm_ring_take(&v->ring, &v->kvm->machine->memory, err);
        if (taken < 0)
                return err_wrap(err, "vCPU %u", v->vcpu->index);
        return reset(v->kvm, err);
}

int kvm_rings_empty(struct kvm_machine *k, struct err *err)
{
        const struct machine *m = k->machine;
        for (unsigned i = 0; i < m->vcpus_length; i++) {
                struct kvm_vcpu *v = m->vcpus[i].provider;
                int taken = kvm_ring_take(&v->ring, &m->memory, err);
                if (taken < 0)
                        return err_wrap(err, "vCPU %u", i);
        }
        return reset(k, err);
}
