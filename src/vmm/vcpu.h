/* A virtual processor, and the provider that executes it.
 *
 * A provider is one `struct vcpu_ops`: `soft` (src/cpu), or `kvm` on the host's.
 * It is bound to a machine once (attach), then makes vCPUs.
 * run() executes guest code on the calling thread and returns when somebody
 * asked for it (kick) or when the guest cannot go on; I/O, MMIO and interrupts
 * are served inside, through the machine's buses.
 *
 * Architectural state has one form for all providers: `struct cpu_state` of
 * cpu/cpu.h, plus what is outside of a core in `struct vcpu_apic`. So a state
 * taken from one provider can be put into another.
 *
 * Threads: create, destroy, get and set are called while the vCPU does not
 * run; run by the vCPU's own thread; kick by anybody.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "cpu/cpu.h"
#include "vmm/jail/jail.h"

struct machine;
struct chips_state;

enum vcpu_exit {
        VCPU_KICKED,
        VCPU_SHUTDOWN, /* triple fault */
        VCPU_DEBUG,    /* what set_debug() asked for; vcpu->stop tells */
        VCPU_FAILED,   /* the provider cannot go on; err tells why */
};

/* A local APIC: its 1 KiB of registers in xAPIC layout, and what is beside. */
struct vcpu_apic {
        uint32_t registers[256]; /* one per 16 bytes of the page */
        uint64_t base;           /* IA32_APIC_BASE */
        uint64_t tsc_deadline;
};

/* Paravirtual MSRs of KVM's interface: where the guest wants its clock and the like. 0: it wants
 * none. `soft` knows of the first two only. */
struct vcpu_paravirt {
        uint64_t system_time, steal_time;
        uint64_t async_faults, async_vector, end_of_interrupt;
};

/* The guest's time at one moment. */
struct vcpu_clock {
        uint64_t tsc; /* of the first vCPU */
        uint64_t tsc_khz;
        uint64_t kvmclock_ns; /* since boot, as the paravirtual clock has it */
};

/* What a debugger wants of a vCPU. `dr` and `dr7` are breakpoints and watchpoints as the
 * debug registers have them; they take the place of the guest's (kvm) or count beside
 * them (soft). */
struct vcpu_debug {
        bool on;   /* stops at INT3 */
        bool step; /* stops after an instruction; interrupts are held back meanwhile */
        uint64_t dr[4], dr7;
};

struct vcpu_stop {
        enum { VCPU_STOP_STEP, VCPU_STOP_INT3, VCPU_STOP_HARDWARE } kind;
        unsigned hits; /* VCPU_STOP_HARDWARE: a bit per debug register */
        uint64_t rip;  /* linear; of the INT3 itself */
};

struct vcpu {
        struct machine *machine;
        unsigned index; /* also the APIC id */
        void *provider; /* the provider's own */
        pthread_t thread;
        bool started;              /* the thread exists */
        atomic_bool paused;        /* it waits in vcpu_thread */
        atomic_bool held;          /* by a debugger: stands, whoever else may run */
        struct vcpu_stop stop;     /* of the last VCPU_DEBUG */
        atomic_uint_fast64_t runs; /* times run() returned */
};

/* Takes one counter: "tlb_misses". */
typedef void counter_fn(void *arg, const char *name, uint64_t value);

struct vcpu_ops {
        const char *name;
        enum jail_thread jail; /* of its threads */
        uint64_t components;   /* bits of XCR0 whose registers get_state() can tell */
        /* Binds the provider to a machine whose memory is there; sets machine->irq. */
        int (*attach)(struct machine *machine, struct err *err);
        void (*detach)(struct machine *machine);
        int (*create)(struct vcpu *vcpu, struct err *err);
        void (*destroy)(struct vcpu *vcpu);
        enum vcpu_exit (*run)(struct vcpu *vcpu, struct err *err);
        void (*kick)(struct vcpu *vcpu);
        int (*get_state)(struct vcpu *vcpu, struct cpu_state *ret, struct err *err);
        int (*set_state)(struct vcpu *vcpu, const struct cpu_state *state, struct err *err);
        int (*get_apic)(struct vcpu *vcpu, struct vcpu_apic *ret, struct err *err);
        int (*set_apic)(struct vcpu *vcpu, const struct vcpu_apic *apic, struct err *err);
        int (*get_paravirt)(struct vcpu *vcpu, struct vcpu_paravirt *ret, struct err *err);
        /* -ENOTSUP for what the provider has not. After set_clock(). */
        int (*set_paravirt)(struct vcpu *vcpu, const struct vcpu_paravirt *wanted, struct err *err);
        /* The time, and the chips outside of the processors, while all vCPUs stand. set_clock()
         * comes before set_state() of any; `tsc` of `now` is the guest's, this host's is
         * `host_tsc` then. */
        int (*get_clock)(struct machine *machine, struct vcpu_clock *ret, struct err *err);
        int (*set_clock)(struct machine *machine, const struct vcpu_clock *now, uint64_t host_tsc,
                         struct err *err);
        int (*get_chips)(struct machine *machine, struct chips_state *ret, struct err *err);
        int (*set_chips)(struct machine *machine, const struct chips_state *chips, struct err *err);
        int (*set_debug)(struct vcpu *vcpu, const struct vcpu_debug *debug, struct err *err);
        /* The INT3 that it stopped at is the guest's own, which shall have its exception. */
        int (*pass_int3)(struct vcpu *vcpu, struct err *err);
        /* What the vCPU did so far, as of about now; NULL where nothing is counted. Any
         * thread's. */
        void (*counters)(struct vcpu *vcpu, counter_fn *take, void *arg);
        /* Begins to count what of the guest's code runs, before it does; the report is
         * appended to the file in the end. NULL where there is no such thing. */
        int (*profile)(struct machine *machine, const char *path, struct err *err);
        /* The report so far, while all vCPUs stand. False: nobody asked for one. */
        bool (*profiled)(struct machine *machine, struct buf *ret);
        /* Brings what vCPUs wrote so far into memory.dirty, and notes what they write from here on
         * anew. They stand. See dirty.h. */
        int (*sync_dirty)(struct machine *machine, struct err *err);
        /* Lets writes of `gpa` signal `fd` without leaving the kernel; -EOPNOTSUPP
         * where the provider has no such thing, and the bus write does it. */
        int (*notify_fd)(struct machine *machine, uint64_t gpa, int fd, bool set);
};

extern const struct vcpu_ops vcpu_soft, vcpu_kvm;
extern const struct vcpu_ops vcpu_kvm_split; /* IOAPIC and PICs are ours */
