/* What of the guest's code runs, how often, and by what way: the counting behind
 * `isle-vmm --profile`.
 *
 * A profile belongs to one vCPU and holds a *record* for every block of guest code that
 * ever ran: where it is, its bytes, and how often it ran interpreted and translated. A
 * translated block counts itself, by four instructions at its start that exist only
 * where a profile was begun before it was translated; everything else that is counted here
 * is asked for with `cpu->profile` at places that are slow already. So a vCPU without a
 * profile runs the same code as ever.
 *
 * Records outlive their blocks: code that is dropped and decoded again, with the same bytes at
 * the same place, goes on counting where it was. They are never freed before the profile
 * is, and at most PROFILE_RECORDS are made; what runs beyond is counted as one.
 *
 * An instruction counts when its block begins, so a block that an exception ends counts whole.
 *
 * With a descriptor for it, the host addresses of translated blocks are written as lines of
 * "START SIZE NAME", both hexadecimal: the format of /tmp/perf-PID.map.
 *
 * Threads: the vCPU's own writes. Others may read counts at any time, as of about then.
 *
 * Source: Linux, tools/perf/Documentation/jit-interface.txt.
 */
#pragma once

#include "cpu/cpu.h"

struct cpu_profile;
struct block;
struct step;

/* A run of guest code that is entered at its start only. */
struct cpu_profile_code {
        uint64_t linear; /* address, with CS's base, where it was first executed */
        uint64_t gpa;    /* guest physical */
        uint64_t root;   /* CR3 at that time */
        uint8_t bits;    /* 16, 32 or 64 */
        bool user;       /* CPL 3 */
        unsigned length; /* instructions */
        const uint8_t *bytes;
        size_t size_bytes;
        uint64_t runs, runs_translated;
        uint64_t executed, executed_translated; /* instructions */
};

/* Ways out of translated code into the dispatcher. */
enum cpu_profile_exit {
        PROFILE_LEFT_POLLED,   /* an interrupt or somebody else wants it */
        PROFILE_LEFT_DIRECT,   /* a branch that is not led to its target yet */
        PROFILE_LEFT_FAR,      /* a branch to another page that the jump table does not have */
        PROFILE_LEFT_INDIRECT, /* an indirect jump or a return that it does not have */
        PROFILE_LEFT_HELPER,   /* by an instruction that the interpreter did */
        PROFILE_EXITS
};
extern const char *const cpu_profile_exit_names[PROFILE_EXITS];

struct cpu_profile_totals {
        uint64_t executed, executed_translated; /* instructions */
        uint64_t runs, runs_translated;         /* blocks */
        uint64_t looks;                         /* at the TLB, by translated code */
        uint64_t indirect;            /* jumps of translated code that looked at the jump table */
        uint64_t records, unrecorded; /* unrecorded: runs of blocks without a record */
        uint64_t exits[PROFILE_EXITS];
};

/* Begins to count, before the vCPU runs. `map_fd`, -1 for none, is borrowed and is written
 * to in append mode, whole lines at a time. */
int cpu_profile_begin(struct cpu *cpu, int map_fd, struct err *err);
/* Ends: the caller owns it, and may read it after the vCPU is gone. NULL where none was begun. */
struct cpu_profile *cpu_profile_end(struct cpu *cpu);
void cpu_profile_destroy(struct cpu_profile *profile);
/* The one that counts, or NULL. */
const struct cpu_profile *cpu_profile(const struct cpu *cpu);

/* What the vCPU counts anyway, as of now or of its profile's end. */
const struct cpu_counters *cpu_profile_counters(const struct cpu_profile *profile);
void cpu_profile_totals(const struct cpu_profile *profile, struct cpu_profile_totals *ret);
/* All code, in no order. `bytes` are the profile's. */
void cpu_profile_each(const struct cpu_profile *profile,
                      void (*take)(void *arg, const struct cpu_profile_code *code), void *arg);
/* How often the interpreter did an instruction for translated code, by its name. */
void cpu_profile_helpers(const struct cpu_profile *profile,
                         void (*take)(void *arg, const char *name, uint64_t count), void *arg);

/* ---- inside of src/cpu; `cpu->profile` is not NULL ---- */

/* `length` instructions of the block are about to be interpreted. */
void cpu_profile_interpreted(struct cpu *cpu, const struct block *block, unsigned length);
/* The block that rip is at gets a translation: where its code counts its runs. */
uint64_t *cpu_profile_translating(struct cpu *cpu, const struct block *block, unsigned length,
                                  unsigned looks, bool indirect);
/* And that is its code. */
void cpu_profile_translated(struct cpu *cpu, const void *host, size_t size_bytes);
void cpu_profile_helper(struct cpu *cpu, const struct step *step);
void cpu_profile_left(struct cpu *cpu, enum cpu_profile_exit way);
/* The place of a block has another one now. */
void cpu_profile_replaced(struct cpu *cpu, const struct block *b);
/* All blocks are gone. */
void cpu_profile_flushed(struct cpu *cpu);
