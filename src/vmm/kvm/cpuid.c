#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/auto.h"
#include "base/str.h"
#include "cpu/model.h"
#include "vmm/kvm/kvm.h"

#define ENTRIES_MAX     512
#define LEAF_FEATURES   7
#define LEAF_XSAVE      0xd
#define XSAVE_SIZE      832 /* bytes for x87, SSE and AVX in the standard form */
#define LEAF_TOPOLOGY   0xb
#define LEAF_TOPOLOGY2  0x1f
#define LEAF_HYPERVISOR 0x40000000u
#define LEAF_TIMING     0x40000010u

int kvm_read_cpuid(int fd, struct kvm_cpuid2 **ret, struct err *err)
{
        /* Room for what vCPUs are told beside. */
        struct kvm_cpuid2 *c = xcalloc(1, sizeof(*c) + (ENTRIES_MAX + 4) *
                                                               sizeof(struct kvm_cpuid_entry2));
        c->nent = ENTRIES_MAX;
        if (ioctl(fd, KVM_GET_SUPPORTED_CPUID, c) < 0) {
                int e = errno;
                free(c);
                return err_set(err, e, "CPUID that this host's KVM supports");
        }
        *ret = c;
        return 0;
}

static unsigned bits_for(unsigned count)
{
        unsigned bits = 0;
        while (1u << bits < count)
                bits++;
        return bits;
}

/* vCPUs are cores of one package, a thread each. */
static void set_topology(struct kvm_cpuid_entry2 *e, unsigned index, unsigned vcpus)
{
        e->edx = index;
        if (e->index == 0) { /* threads */
                e->eax = 0;
                e->ebx = 1;
                e->ecx = 1 << 8;
        } else if (e->index == 1) { /* cores */
                e->eax = bits_for(vcpus);
                e->ebx = vcpus;
                e->ecx = 1 | 2 << 8;
        } else {
                e->eax = e->ebx = 0;
                e->ecx = e->index;
        }
}

/* Features that need registers which struct cpu_state has not: AVX-512, AMX, CET;
 * protection keys, whose place in the XSAVE area every host chooses, so that a guest could not go
 * on elsewhere; five levels of pages, which the software CPU has not;
 * and XSAVES, whose components beyond XCR0 it has not either. */
static void hide_extended(struct kvm_cpuid_entry2 *e)
{
        if (e->index == 0) {
                e->ebx &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 |
                            1u << 30 | 1u << 31);
                e->ecx &= ~(1u << 1 | 1u << 3 | 1u << 4 | 1u << 6 | 1u << 7 | 1u << 11 | 1u << 12 |
                            1u << 14 | 1u << 16);
                e->edx &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 20 | 1u << 22 | 1u << 23 |
                            1u << 24 | 1u << 25);
        } else {
                e->eax &= ~(1u << 5 | 1u << 17 | 1u << 18 | 1u << 21); /* BF16, FRED, LKGS, FP16 */
        }
}

static void hide_components(struct kvm_cpuid_entry2 *e)
{
        if (e->index == 0) {
                e->eax &= (uint32_t)KVM_XCR0_KNOWN;
                e->ebx = e->ecx = XSAVE_SIZE;
                e->edx = 0;
        } else if (e->index == 1) {
                e->eax &= ~(1u << 3 | 1u << 4); /* XSAVES, XFD */
                e->ebx = e->ecx = e->edx = 0;
        } else if (e->index >= 63 || !(KVM_XCR0_KNOWN >> e->index & 1)) {
                e->eax = e->ebx = e->ecx = e->edx = 0;
        }
}

static void amend(struct kvm_cpuid_entry2 *e, unsigned index, unsigned vcpus)
{
        switch (e->function) {
        case 1:
                e->ebx = (e->ebx & 0xff00) | index << 24 | (vcpus & 0xff) << 16;
                e->ecx |= 1u << 31; /* under a hypervisor */
                e->ecx |= 1u << 24; /* TSC deadline timer */
                if (vcpus > 1)
                        e->edx |= 1u << 28;
                break;
        case LEAF_FEATURES:
                hide_extended(e);
                break;
        case LEAF_XSAVE:
                hide_components(e);
                break;
        case LEAF_TOPOLOGY:
        case LEAF_TOPOLOGY2:
                set_topology(e, index, vcpus);
                break;
        case LEAF_HYPERVISOR:
                e->eax = LEAF_TIMING;
                break;
        default:
                break;
        }
}

static void read_leaf(void *arg, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
        const struct kvm_cpuid2 *all = arg;
        memset(r, 0, 4 * sizeof(r[0]));
        for (unsigned i = 0; i < all->nent; i++) {
                const struct kvm_cpuid_entry2 *e = &all->entries[i];
                if (e->function == leaf && e->index == subleaf)
                        memcpy(r, (const uint32_t[]){ e->eax, e->ebx, e->ecx, e->edx },
                               4 * sizeof(r[0]));
        }
}

static void mask(const struct cpu_model *model, struct kvm_cpuid_entry2 *e)
{
        uint32_t r[4] = { e->eax, e->ebx, e->ecx, e->edx };
        cpu_model_mask(model, e->function, e->index, r);
        e->eax = r[0];
        e->ebx = r[1];
        e->ecx = r[2];
        e->edx = r[3];
}

int kvm_give_cpuid(struct kvm_vcpu *v, struct err *err)
{
        const struct kvm_cpuid2 *all = v->kvm->cpuid;
        struct machine *m = v->vcpu->machine;
        int r = cpu_model_check(m->model, read_leaf, v->kvm->cpuid, err);
        if (r < 0)
                return r;
        size_t size = sizeof(*all) + (all->nent + 4) * sizeof(all->entries[0]);
        auto_free struct kvm_cpuid2 *mine = xcalloc(1, size);
        memcpy(mine, all, sizeof(*all) + all->nent * sizeof(all->entries[0]));
        unsigned vcpus = v->kvm->machine->vcpus_wanted;
        for (unsigned i = 0; i < mine->nent; i++) {
                amend(&mine->entries[i], v->vcpu->index, vcpus);
                mask(m->model, &mine->entries[i]);
        }
        mine->entries[mine->nent++] = (struct kvm_cpuid_entry2){
                .function = LEAF_TIMING,
                .eax = (uint32_t)m->tsc_khz,
                .ebx = 1000000, /* kHz of the local APIC's timer, by the kernel */
        };
        if (ioctl(v->fd, KVM_SET_CPUID2, mine) < 0)
                return err_set(err, errno, "vCPU %u: CPUID", v->vcpu->index);
        return 0;
}
