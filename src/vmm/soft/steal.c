/* Time that the host gave to others while a vCPU wanted to run, told as KVM tells it
 * (MSR_KVM_STEAL_TIME of Documentation/virt/kvm/x86/msr.rst): what has passed on the wall and not
 * for the vCPU's thread since it was last looked at. A halted vCPU wants nothing. */
#include <time.h>

#include "base/clock.h"
#include "vmm/soft/soft.h"

#define ENABLED  1ull
#define RESERVED 0x3eull /* 64 bytes, aligned to their size */

struct steal_time {
        uint64_t stolen_ns;
        uint32_t version; /* odd while it changes */
        uint32_t flags;
        uint8_t preempted, pad[47];
};

int64_t soft_thread_ns(void)
{
        struct timespec t;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return t.tv_sec * NS_PER_S + t.tv_nsec;
}

void soft_steal_restart(struct soft_vcpu *s)
{
        if (!(s->steal_msr & ENABLED))
                return;
        s->steal_wall_ns = clock_monotonic_ns();
        s->steal_thread_ns = soft_thread_ns();
}

void soft_steal_account(struct soft_vcpu *s)
{
        if (!(s->steal_msr & ENABLED))
                return;
        int64_t wall_ns = clock_monotonic_ns(), own_ns = soft_thread_ns();
        int64_t stolen_ns = (wall_ns - s->steal_wall_ns) - (own_ns - s->steal_thread_ns);
        s->steal_wall_ns = wall_ns;
        s->steal_thread_ns = own_ns;
        if (stolen_ns <= 0)
                return;
        const struct memory *memory = &s->vcpu->machine->memory;
        const struct gpa at = gpa(s->steal_msr & ~(ENABLED | RESERVED));
        struct steal_time *t = (void *)memory_at(memory, at, sizeof(*t));
        if (!t)
                return;
        s->stolen_ns += (uint64_t)stolen_ns;
        __atomic_fetch_or(&t->version, 1, __ATOMIC_SEQ_CST);
        __atomic_store_n(&t->stolen_ns, s->stolen_ns, __ATOMIC_SEQ_CST);
        __atomic_fetch_add(&t->version, 1, __ATOMIC_SEQ_CST);
        memory_touched(memory, at, sizeof(*t));
}

int soft_steal_set(struct soft_vcpu *s, uint64_t value)
{
        if (value & RESERVED)
                return -1;
        s->steal_msr = value;
        soft_steal_restart(s);
        return 1;
}
