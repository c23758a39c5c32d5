/* A software x86-64 processor.
 *
 * One `struct cpu` is one vCPU: architectural state (`struct cpu_state`, plain
 * data in one versioned format shared with the KVM provider) and, hidden, the
 * caches that make it run (decoded blocks, software TLB, host thunks). It does
 * no I/O, starts no thread and keeps no global: whatever the processor asks of
 * the machine goes through `struct cpu_bus`.
 *
 * Threads. A vCPU is run by one thread at a time: cpu_run(), cpu_state(),
 * cpu_flush(), cpu_trim() belong to that thread. The inputs cpu_set_irq(), cpu_raise_nmi(),
 * cpu_raise_init(), cpu_raise_sipi() and cpu_kick() may be called by any thread
 * at any time; they change one atomic word that the vCPU looks at between
 * blocks. While cpu_run() runs, the thread's MXCSR and x87 registers hold the
 * guest's; they are the host's again inside every callback and after return.
 *
 * Memory. Guest RAM is host memory described by slots in `struct cpu_memory`,
 * shared by the vCPUs of a machine. Slots are changed only while no vCPU runs,
 * followed by cpu_flush() of each. Whoever else writes guest memory (device
 * DMA, loader, debugger) calls cpu_memory_written() afterwards, so that decoded
 * code of those pages is dropped.
 *
 * What is not implemented raises #UD (or, for whole mechanisms such as call
 * gates, #GP) in the guest and is counted in cpu_counters.unimplemented.
 *
 * Limits: no virtual-8086 mode, no call gates, no SMM,
 * VMX/SVM, 5-level paging, AVX-512, MONITOR/MWAIT, TSX, CET. CPUID says so.
 *
 * Source: Intel SDM volumes 2 and 3 (rev. 084), AMD APM volumes 2 to 5.
 */
#pragma once

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum cpu_gpr { CPU_RAX, CPU_RCX, CPU_RDX, CPU_RBX, CPU_RSP, CPU_RBP, CPU_RSI, CPU_RDI };
enum cpu_seg { CPU_ES, CPU_CS, CPU_SS, CPU_DS, CPU_FS, CPU_GS, CPU_SEGS };

/* Attributes as VMX and the descriptor's high word >> 8 have them: type 0-3,
 * S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15, unusable (null) 16. */
struct cpu_segment {
        uint64_t base;
        uint32_t limit; /* in bytes, granularity applied */
        uint32_t attributes;
        uint16_t selector;
        uint16_t reserved[3];
};

struct cpu_table {
        uint64_t base;
        uint16_t limit;
        uint16_t reserved[3];
};

/* What the processor is doing when it does not execute. */
enum cpu_activity {
        CPU_RUNNING,
        CPU_HALTED,        /* HLT: wakes on interrupt, NMI, INIT */
        CPU_WAIT_FOR_SIPI, /* application processor after INIT */
        CPU_SHUTDOWN,      /* triple fault: only INIT or reset leave it */
};

/* x87 and MXCSR as FXSAVE64 lays them out (the XMM part lives in `vec`). */
struct cpu_x87 {
        uint16_t control, status;
        uint8_t tag; /* abridged: 1 is in use */
        uint8_t reserved;
        uint16_t opcode;
        uint64_t ip, dp;
        uint32_t mxcsr, mxcsr_mask;
        uint8_t st[8][16];
};

union cpu_vec {
        uint8_t bytes[32];
        uint32_t dwords[8];
        uint64_t qwords[4];
} __attribute__((aligned(32)));

#define CPU_STATE_VERSION 1
#define CPU_MTRR_FIXED    11
#define CPU_MTRR_VARIABLE 8

struct cpu_state {
        uint64_t gpr[16];
        uint64_t rip;
        uint64_t rflags;
        union cpu_vec vec[16];
        struct cpu_x87 x87;
        struct cpu_segment seg[CPU_SEGS], ldtr, tr;
        struct cpu_table gdtr, idtr;
        uint64_t cr0, cr2, cr3, cr4, cr8, xcr0, efer;
        uint64_t dr[4], dr6, dr7;
        uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
        uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
        uint64_t pat, tsc_aux, apic_base, misc_enable;
        uint64_t tsc_offset; /* guest TSC = host TSC + offset */
        uint64_t mtrr_def_type, mtrr_fixed[CPU_MTRR_FIXED];
        uint64_t mtrr_base[CPU_MTRR_VARIABLE], mtrr_mask[CPU_MTRR_VARIABLE];
        uint32_t activity;        /* enum cpu_activity */
        uint8_t interrupt_shadow; /* after STI or MOV SS: one instruction */
        uint8_t nmi_blocked;      /* until IRET */
        uint8_t nmi_pending;      /* how many are latched, not yet delivered: 0 to 2 */
        uint8_t speculation;      /* SPEC_CTRL: stored, without effect */
        uint32_t pkru, pkrs;      /* rights by protection key: of user pages, of the others */
        uint8_t reserved[12];     /* 0; keeps the size a multiple of 32 */
};

/* A range of guest physical memory backed by host memory; page aligned. */
struct cpu_slot {
        uint64_t gpa, size_bytes;
        uint8_t *host;
        bool read_only; /* writes go to the bus */
};

#define CPU_SLOTS       32
#define CPU_MEMORY_CPUS 64

/* Zero it, fill `slots`, then cpu_memory_init(). */
struct cpu_memory {
        struct cpu_slot slots[CPU_SLOTS];
        unsigned length;
        /* One per 4 KiB page of [0, limit): 0 no decoded code, else a generation
         * that every write moves on. Owned by this structure. */
        uint32_t *code_generation;
        uint64_t pages;
        /* A bit per page, set by whoever writes it, vCPUs too; the caller's, who clears bits. NULL:
         * nobody asks. Given and cleared only while no vCPU runs, before cpu_watch_writes() of
         * each. */
        uint64_t *dirty;
        /* The vCPUs that look at it; they are told when its code changes. */
        struct cpu *cpus[CPU_MEMORY_CPUS];
        atomic_uint cpus_length;
};

int cpu_memory_init(struct cpu_memory *memory, struct err *err);
void cpu_memory_finish(struct cpu_memory *memory);
/* THREAD-SAFE. Tells that guest memory changed by other means than a vCPU. vCPUs that
 * run drop what they know of the page soon, at the latest before they take an
 * interrupt or touch a device. */
void cpu_memory_written(struct cpu_memory *memory, uint64_t gpa, uint64_t size_bytes);
/* It does not run: its next write to each page is noted in memory->dirty again. */
void cpu_watch_writes(struct cpu *cpu);

/* The machine as the processor sees it. Callbacks run on the vCPU's thread; a
 * NULL one means nothing is there (reads are all ones, writes vanish, MSRs #GP). */
struct cpu_bus {
        void *arg;
        struct cpu_memory *memory;
        uint64_t (*mmio_read)(void *arg, uint64_t gpa, unsigned size_bytes);
        void (*mmio_write)(void *arg, uint64_t gpa, unsigned size_bytes, uint64_t value);
        uint32_t (*pio_read)(void *arg, uint16_t port, unsigned size_bytes);
        void (*pio_write)(void *arg, uint16_t port, unsigned size_bytes, uint32_t value);
        /* The vector to deliver now, or -1 where none is (spurious, masked by TPR);
         * called with interrupts enabled after cpu_set_irq(cpu, true). The callee
         * lowers the line itself when nothing more is pending. */
        int (*interrupt_acknowledge)(void *arg);
        /* Asked before our own MSRs: APIC base, x2APIC, TSC deadline, kvmclock.
         * 1 handled, 0 not mine, -1 #GP. */
        int (*msr_read)(void *arg, uint32_t index, uint64_t *ret_value);
        int (*msr_write)(void *arg, uint32_t index, uint64_t value);
        /* CR8 and the APIC's task priority are one register (0..15). */
        void (*tpr_changed)(void *arg, uint8_t cr8);
        uint8_t (*tpr_read)(void *arg);
        /* VMCALL and VMMCALL of the kernel, in KVM's convention: the number in RAX, arguments
         * in RBX, RCX, RDX and RSI. NULL: they are undefined. */
        uint64_t (*hypercall)(void *arg, uint64_t number, const uint64_t arguments[4]);
        /* May amend what CPUID reports (topology, APIC id, hypervisor leaves). */
        void (*cpuid)(void *arg, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);
};

enum cpu_exit {
        CPU_EXIT_BUDGET, /* the instruction budget is used up */
        CPU_EXIT_KICK,   /* cpu_kick() */
        CPU_EXIT_HALT,   /* HLT, nothing to deliver: wait for an input, run again */
        CPU_EXIT_WAIT_SIPI,
        CPU_EXIT_SHUTDOWN, /* triple fault */
        CPU_EXIT_DEBUG,    /* what cpu_set_debug() asked for; see cpu_debug_hits() */
};

struct cpu_counters {
        uint64_t instructions;
        uint64_t blocks_run, blocks_searched, blocks_decoded, blocks_invalidated;
        uint64_t blocks_renewed; /* of these, that had not changed themselves */
        uint64_t blocks_translated, translated_runs, helper_steps, code_flushes;
        uint64_t tlb_misses, tlb_flushes, page_walks;
        uint64_t tlb_switches; /* to other PCIDs */
        uint64_t thunks_made, thunk_flushes;
        uint64_t exceptions, interrupts;
        uint64_t device_accesses, port_accesses;
        uint64_t unimplemented;        /* instructions we refused with #UD */
        uint64_t unimplemented_opcode; /* map << 8 | opcode of the last of them */
};

struct cpu;
struct cpu_model;

/* `bus` is borrowed and must outlive the cpu. `index` is the vCPU's number,
 * its APIC id in CPUID. The state is that after power-on reset. */
int cpu_create(const struct cpu_bus *bus, unsigned index, struct cpu **ret, struct err *err);
void cpu_destroy(struct cpu *cpu);
DEFINE_CLEANUP(cpu_cleanup, struct cpu *, cpu_destroy)
#define auto_cpu CLEANUP(cpu_cleanup) struct cpu *

/* What the guest is shown, and may use, from here on; NULL: all that works. Before it runs.
 * -ENOTSUP where the host lacks what the model promises. */
int cpu_set_model(struct cpu *cpu, const struct cpu_model *model, struct err *err);

/* Power-on reset; an application processor then waits for SIPI. */
void cpu_reset(struct cpu *cpu, bool application_processor);

/* The architectural state, complete while the vCPU does not run. After writing
 * to it call cpu_state_changed(). */
struct cpu_state *cpu_state(struct cpu *cpu);
void cpu_state_changed(struct cpu *cpu);

/* What a segment register holds with this descriptor. Pure. */
struct cpu_segment cpu_segment_from(uint64_t descriptor, uint16_t selector);

/* Runs at most `budget` instructions; an exception or interrupt delivered counts
 * as one, and so does each part of a REP that was interrupted. */
enum cpu_exit cpu_run(struct cpu *cpu, uint64_t budget);
#define CPU_NO_BUDGET UINT64_MAX

/* Instructions are counted by the interpreter only: a run with a budget is
 * interpreted. Without one, blocks that run often are translated, unless: */
enum cpu_translation { CPU_TRANSLATE_HOT, CPU_TRANSLATE_ALWAYS, CPU_TRANSLATE_NEVER };
void cpu_set_translation(struct cpu *cpu, enum cpu_translation translation);

/* THREAD-SAFE inputs. */
void cpu_set_irq(struct cpu *cpu, bool raised); /* level: the APIC has something */
void cpu_raise_nmi(struct cpu *cpu);
void cpu_raise_init(struct cpu *cpu);
void cpu_raise_sipi(struct cpu *cpu, uint8_t vector);
void cpu_kick(struct cpu *cpu);           /* makes cpu_run() return soon */
bool cpu_has_work(const struct cpu *cpu); /* an input waits; a halted vCPU should run */

/* Drops all cached translations and decoded code. */
void cpu_flush(struct cpu *cpu);

/* Host memory that decoded and translated code takes, or took before it was dropped.
 * Only cpu_trim() gives it back to the host; the code is dropped, and decoded again where it
 * runs again. */
size_t cpu_code_bytes(const struct cpu *cpu);
void cpu_trim(struct cpu *cpu);

const struct cpu_counters *cpu_counters(const struct cpu *cpu);

/* CPUID as the guest sees it, before the bus amends it. */
void cpu_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);

/* Guest linear memory as a debugger wants it: privileged, no faults, no A/D
 * bits. Returns bytes copied (short at the first unmapped page). */
size_t cpu_peek(struct cpu *cpu, uint64_t linear, void *bytes, size_t size);

/* What a debugger outside of the guest wants. Its registers have the form of DR0 to DR3 and
 * DR7 and count beside the guest's own; the guest sees nothing of them. cpu_run() returns
 * CPU_EXIT_DEBUG before an instruction at a breakpoint, after one that touched watched
 * data, and before an INT3 where `int3` is set. */
struct cpu_debug {
        uint64_t dr[4], dr7;
        bool int3;
};
void cpu_set_debug(struct cpu *cpu, const struct cpu_debug *debug);
/* Which of DR0 to DR3 the last CPU_EXIT_DEBUG was for, a bit each; none: an INT3. */
unsigned cpu_debug_hits(const struct cpu *cpu);
/* The INT3 that was stopped at is the guest's own: it executes next. */
void cpu_pass_int3(struct cpu *cpu);

/* The versioned format: magic, version, size, then the fields as in struct
 * cpu_state, little endian. Loading validates and touches the cpu only on success. */
int cpu_save(struct cpu *cpu, struct buf *ret, struct err *err);
int cpu_load(struct cpu *cpu, const void *data, size_t size, struct err *err);
/* Takes the state over, where it is one that this processor can be in. */
int cpu_set_state(struct cpu *cpu, const struct cpu_state *state, struct err *err);
/* -EINVAL for a state that no processor of ours can be in. Pure. */
int cpu_state_check(const struct cpu_state *state, struct err *err);
