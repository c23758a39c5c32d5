/* The CPU provider on the host's KVM: processors by hardware, interrupt chips in the
 * kernel.
 *
 * Where KVM cannot emulate an instruction (KVM_INTERNAL_ERROR_EMULATION) the software
 * CPU executes that one on the saved state, and KVM goes on; counted as
 * "emulated_by_software".
 *
 * Source: Linux, Documentation/virt/kvm/api.rst.
 */
#pragma once

#include <linux/kvm.h>

#include "vmm/machine.h"

/* Components of XSAVE that struct cpu_state holds: x87, SSE, AVX. Guests are told of no
 * other. Under PVM, where CPUID is the processor's own, they see and use the others nevertheless:
 * those stay in KVM, as they are, when a state is set, and a machine with them is not saved. */
#define KVM_XCR0_KNOWN 7ull

struct kvm_machine {
        struct machine *machine;
        int fd, vm_fd;
        struct chips *chips; /* ours, where they are split; else NULL: all are the kernel's */
        struct kvm_routes *routes;
        size_t run_size;              /* bytes of a struct kvm_run */
        struct kvm_cpuid2 *cpuid;     /* what the host can give; vCPUs get it amended */
        struct cpu_memory memory;     /* for the software CPU */
        bool logs_writes, clears_log; /* dirty.c; the latter: only by KVM_CLEAR_DIRTY_LOG */
        uint32_t debug_flags;         /* what it knows of KVM_GUESTDBG_…, where it tells */
};

struct kvm_vcpu {
        struct vcpu *vcpu;
        struct kvm_machine *kvm;
        int fd;
        struct kvm_run *run;
        atomic_bool has_thread; /* run() was called: kicks have somebody to signal */
        pthread_t thread;
        struct cpu *soft; /* made ahead: a jailed thread makes no executable memory */
        struct cpu_bus soft_bus;
        bool step;         /* a debugger wants an instruction at a time */
        bool soft_stopped; /* the last INT3 was met by the software CPU */
        bool warned;       /* of registers that the software CPU has not */
        atomic_uint_fast64_t exits, pio_exits, mmio_exits, emulated;
};

/* ---- state.c: between KVM's structures and ours ----
 * `xcr0` is the whole of it; of the components only KVM_XCR0_KNOWN are read and set. */
int kvm_get_state(struct kvm_vcpu *v, struct cpu_state *s, struct err *err);
int kvm_set_state(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err);
int kvm_get_apic(struct kvm_vcpu *v, struct vcpu_apic *ret, struct err *err);
int kvm_set_apic(struct kvm_vcpu *v, const struct vcpu_apic *apic, struct err *err);

int kvm_get_paravirt(struct vcpu *vcpu, struct vcpu_paravirt *ret, struct err *err);
int kvm_set_paravirt(struct vcpu *vcpu, const struct vcpu_paravirt *wanted, struct err *err);

/* ---- chips.c: of the machine ---- */
int kvm_get_chips(struct machine *machine, struct chips_state *ret, struct err *err);
int kvm_set_chips(struct machine *machine, const struct chips_state *chips, struct err *err);
int kvm_get_clock(struct machine *machine, struct vcpu_clock *ret, struct err *err);
int kvm_set_clock(struct machine *machine, const struct vcpu_clock *now, uint64_t host_tsc,
                  struct err *err);

/* ---- debug.c: for a debugger ---- */
int kvm_set_debug(struct vcpu *vcpu, const struct vcpu_debug *debug, struct err *err);
int kvm_pass_int3(struct vcpu *vcpu, struct err *err);
/* Notes KVM_EXIT_DEBUG; or what the software CPU met instead. */
void kvm_note_stop(struct kvm_vcpu *v);
void kvm_note_soft_stop(struct kvm_vcpu *v, enum cpu_exit reason);

/* Gives it slot `i` of the memory, or a given one other KVM_MEM_ flags. */
int kvm_give_slot(struct kvm_machine *k, unsigned i, uint32_t flags, struct err *err);

/* ---- dirty.c: see vcpu.h ---- */
/* While the machine is made: a jailed thread enables nothing. */
void kvm_choose_dirty(struct kvm_machine *k);
int kvm_sync_dirty(struct machine *machine, struct err *err);

/* ---- split.c ---- */
int kvm_split_create(struct kvm_machine *k, struct err *err);
void kvm_split_destroy(struct kvm_machine *k);
/* KVM_EXIT_IOAPIC_EOI. */
void kvm_split_ended(struct kvm_vcpu *v);
/* Before each entry into the guest: what the PICs have. */
void kvm_split_inject(struct kvm_vcpu *v);

/* ---- routes.c: where interrupts go ---- */
#define KVM_ROUTES       128 /* messages by descriptors; the others by KVM_SIGNAL_MSI */
#define KVM_ROUTES_LINES 40  /* entries for lines: 24 at the IOAPIC, 16 at the PICs too */
void kvm_routes_create(struct kvm_machine *k);
void kvm_routes_destroy(struct kvm_machine *k);
/* THREAD-SAFE. The lines' routes from here on; those of messages stay. */
int kvm_routes_lines(struct kvm_machine *k, const struct kvm_irq_routing_entry *lines,
                     unsigned length);
/* The interrupt fabric's: see irq.h. */
int kvm_routes_open(void *provider, unsigned count, struct err *err);
int kvm_route_take(void *provider);
int kvm_route_set(void *provider, int number, uint64_t address, uint32_t data);
void kvm_route_send(void *provider, int number);
void kvm_route_drop(void *provider, int number);

/* ---- cpuid.c ---- */
int kvm_read_cpuid(int fd, struct kvm_cpuid2 **ret, struct err *err);
int kvm_give_cpuid(struct kvm_vcpu *v, struct err *err);

/* ---- rescue.c: the software CPU for one instruction ---- */
int kvm_rescue_init(struct kvm_vcpu *v, struct err *err);
/* 1: it stopped for a debugger. */
int kvm_rescue(struct kvm_vcpu *v, struct err *err);
void kvm_rescue_finish(struct kvm_vcpu *v);
