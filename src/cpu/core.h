/* The inside of a vCPU: what the files of this room share.
 *
 * Theory of operation. cpu_run() (run.c) looks for the *block* at rip: a run of
 * decoded instructions inside one guest page that ends with a branch or with
 * an instruction that may change how the next is fetched. Every instruction of
 * a block is a `struct step`: the decoder's facts, pre-computed offsets of its
 * registers inside struct cpu, and the function that performs it (bind.c). The
 * loop adds the length to rip and calls the function, step after step.
 *
 * A function that cannot complete calls cpu_raise(), which does not return: it
 * jumps back to cpu_run() with rip rewound to the instruction, so a function
 * must not have changed anything the guest can see by then. Memory operands
 * go through the software TLB (tlb.c): linear page -> host address, three
 * tags for read, write and fetch, one table per privilege context.
 *
 * Decoded code is guarded by a generation number per guest physical page
 * (struct cpu_memory): decoding sets its lowest bit and removes writable
 * TLB entries of the page, so that the next store takes the slow path, which
 * moves the number on. A block whose number differs is decoded again.
 *
 * Flags are always materialised in state.rflags: arithmetic is done by the host's
 * own instruction and its flags are fetched by LAHF/SETO, which costs less
 * than remembering operands and gives the host's values for undefined ones too.
 */
#pragma once

#include "cpu/cpu.h"
#include "cpu/decode.h"
#include "cpu/tlb.h"

#include <setjmp.h>
#include <stdatomic.h>

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define CR0_PE 0x1u
#define CR0_MP 0x2u
#define CR0_EM 0x4u
#define CR0_TS 0x8u
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_WP 0x10000u
#define CR0_AM 0x40000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u

#define CR4_VME        0x1u
#define CR4_PVI        0x2u
#define CR4_TSD        0x4u
#define CR4_DE         0x8u
#define CR4_PSE        0x10u
#define CR4_PAE        0x20u
#define CR4_MCE        0x40u
#define CR4_PGE        0x80u
#define CR4_PCE        0x100u
#define CR4_OSFXSR     0x200u
#define CR4_OSXMMEXCPT 0x400u
#define CR4_UMIP       0x800u
#define CR4_FSGSBASE   0x10000u
#define CR4_PCIDE      0x20000u
#define CR4_OSXSAVE    0x40000u
#define CR4_SMEP       0x100000u
#define CR4_SMAP       0x200000u
#define CR4_PKE        0x400000u
#define CR4_PKS        0x1000000u
#define CR4_ALLOWED                                                                                \
        (CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |         \
         CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP |           \
         CR4_SMAP | CR4_PKE | CR4_PKS)

/* Components of XCR0 that there are: x87, SSE, AVX, PKRU. */
#define XSTATE_PKRU  0x200ull
#define XCR0_ALLOWED (7ull | XSTATE_PKRU)

#define CR3_PCID 0xfffull
#define CR3_KEEP (1ull << 63) /* what is known of the PCID */

#define EFER_SCE     0x1u
#define EFER_LME     0x100u
#define EFER_LMA     0x400u
#define EFER_NXE     0x800u
#define DR6_BS       0x4000u
#define EFER_ALLOWED (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)

#define RF_FIXED 0x2u
#define RF_IOPL  0x3000u
#define RF_NT    0x4000u
#define RF_RF    0x10000u
#define RF_VM    0x20000u
#define RF_AC    0x40000u
#define RF_VIF   0x80000u
#define RF_VIP   0x100000u
#define RF_ID    0x200000u

#define ATTR_S        0x10u
#define ATTR_DPL(a)   ((a) >> 5 & 3)
#define ATTR_P        0x80u
#define ATTR_L        0x2000u
#define ATTR_DB       0x4000u
#define ATTR_G        0x8000u
#define ATTR_UNUSABLE 0x10000u

enum vector {
        VEC_DE = 0,
        VEC_DB = 1,
        VEC_NMI = 2,
        VEC_BP = 3,
        VEC_OF = 4,
        VEC_BR = 5,
        VEC_UD = 6,
        VEC_NM = 7,
        VEC_DF = 8,
        VEC_TS = 10,
        VEC_NP = 11,
        VEC_SS = 12,
        VEC_GP = 13,
        VEC_PF = 14,
        VEC_MF = 16,
        VEC_AC = 17,
        VEC_XM = 19,
        FAULT_DEBUGGER = 0x100 /* nothing for the guest: cpu_run() returns */
};

/* Bits of the pending word. */
#define PEND_IRQ         0x1u
#define PEND_NMI         0x2u
#define PEND_INIT        0x4u
#define PEND_SIPI        0x8u
#define PEND_KICK        0x10u
#define PEND_CODE        0x20u /* another vCPU marked or changed code */
#define PEND_NMI_AGAIN   0x40u /* a second NMI before the first was seen */
#define PEND_SIPI_VECTOR 24    /* shift */

#define CPU_CPUID_LEAVES 15

struct step;
typedef void step_fn(struct cpu *cpu, const struct step *step);

struct step {
        step_fn *run;
        void (*thunk)(struct cpu *cpu, void *memory);
        uint16_t dst, src;     /* register operands, offsets in struct cpu */
        uint16_t base, index;  /* address registers, offsets in struct cpu */
        uint8_t blocked;       /* enum unit it needs */
        uint8_t count_in_cl;   /* shifts */
        uint8_t size;          /* bytes of the operation */
        uint8_t address_shift; /* 64 less the bits of an address */
        uint8_t bytes[16];     /* what was decoded */
        struct insn i;
};
_Static_assert(sizeof(struct step) == 128, "two lines of the host's cache");

static inline uint64_t address_mask(const struct step *step)
{
        return UINT64_MAX >> step->address_shift;
}

/* Units that CR0, CR4 and XCR0 can take away. */
enum unit { UNIT_INTEGER, UNIT_X87, UNIT_MMX, UNIT_SSE, UNIT_AVX, UNIT_COUNT };

#define BLOCK_STEPS 32u

struct block {
        uint64_t gpa;
        const uint32_t *generation_at;
        /* Of the page behind where an instruction crosses into it, alone in its block;
         * otherwise as for the first. */
        const uint32_t *generation_at2;
        uint64_t page2; /* guest physical, 0: does not cross */
        uint32_t generation2;
        struct step *steps;
        uint32_t generation;
        uint16_t length; /* steps */
        uint16_t runs;   /* while interpreted */
        uint8_t mode;    /* code_mode() */
        uint8_t key;     /* translate_key it was translated for */
        uint8_t uses;    /* BLOCK_VECTORS, BLOCK_X87, BLOCK_FLAGS, BLOCK_ALONE */
        bool shared;     /* its steps are another block's, too */
        /* Offsets in the code cache, 0: not translated; see translate.h. */
        uint32_t code, common, spilled, warm;
        uint16_t temporaries; /* bit per register */
};

#define BLOCK_VECTORS 1u
#define BLOCK_X87     2u
#define BLOCK_FLAGS   4u /* arithmetic flags at its start are needed */
#define BLOCK_ALONE   8u /* it ends without a chain: its translation says nothing of other blocks */

/* A C compiler in a guest, with the kernel beneath it, is 350,000 blocks. */
#define BLOCK_POOL    524288u
#define STEP_POOL     2097152u
#define BLOCK_BUCKETS 131072u
#define BLOCK_WAYS    10u

/* Where the decoded blocks of some 32 bytes of code are found: one line of the host's cache,
 * with what most often tells that a block is not there without a look at any. */
struct block_bucket {
        uint16_t tags[BLOCK_WAYS]; /* 0: free */
        uint8_t victim;            /* who goes when all are taken */
        uint32_t blocks[BLOCK_WAYS];
} __attribute__((aligned(64)));

#define JUMP_ENTRIES 4096u

struct jump_entry {
        uint64_t linear, key;
        struct block *block;
        bool global; /* its page */
};

static inline unsigned jump_index(uint64_t linear)
{
        return (linear ^ linear >> 12) & (JUMP_ENTRIES - 1);
}

#define THUNK_HASH       16384u
#define THUNK_POOL_BYTES (1u << 20)

struct thunk_entry {
        uint8_t key[16]; /* the re-encoded instruction */
        uint32_t at;     /* offset in the pool, 0 free */
        uint32_t sets;   /* read and written registers, part of the key */
};

/* Host code that runs one guest instruction on guest registers; mapped twice,
 * written through one mapping, executed through the other. */
struct thunk_pool {
        uint8_t *writable;
        const uint8_t *executable;
        uint32_t used;
        struct thunk_entry entries[THUNK_HASH];
        unsigned length;
};

#define JUMP_PLACES 65536u /* by the lowest bits of the linear address, all of them */
#define JUMP_PAGES  16384u /* sets of guest physical pages */

/* What translated code reads of a target, in one line of the host's cache. All zero: none,
 * but for place 0, where that would be address 0. */
struct jump_place {
        uint64_t negated;      /* linear address */
        const uint8_t *common; /* code for who has the common temporaries spilled */
        uint64_t page;         /* linear */
        const uint8_t *clean;  /* as `common` for who lost the flags but can recover them */
};

#define JUMP_PLACE_SHIFT 5u
_Static_assert(sizeof(struct jump_place) == 1u << JUMP_PLACE_SHIFT, "places are found by shifting");

/* The rest of it. */
struct jump_origin {
        const struct block *block;
        const uint8_t *code; /* for who has all registers in place */
        uint64_t gpa;        /* of the code */
        uint64_t page2;      /* of the block */
};

/* Where indirect jumps of translated code go, per context. */
struct jump_table {
        struct jump_place places[JUMP_PLACES];
        struct jump_origin origins[JUMP_PLACES];
        uint16_t used[JUMP_PLACES]; /* places to flush, place 0 maybe more than once */
        unsigned used_length;
        uint64_t pages[JUMP_PAGES / 64]; /* sets that may have places */
};

#define TRANSLATE_X87 0x20u /* in translate_key: x87 instructions may be the host's */

/* What is known of the upper halves of all vector registers. */
enum uppers {
        UPPERS_ZERO,
        UPPERS_USED,   /* anything */
        UPPERS_CLEARED /* zero in the host's registers, anything in `s` */
};

struct translated_exit;
struct translated_fault;

/* The code cache of a vCPU; see translate.h. */
struct translator {
        bool on;
        uint8_t *writable;         /* NULL: the host lacks what it takes */
        const uint8_t *executable; /* the same memory */
        uint32_t used, fixed;      /* bytes; fixed: the trampolines in front */
        uint32_t stubs_used;       /* bytes behind them, at TRANSLATE_STUBS */
        uint32_t large;            /* bytes that have been made large pages */
        uint32_t helper, leave;    /* offsets of trampolines */
        uint32_t recover;          /* to where the flags are made again */
        uint32_t load_xmm, load_ymm;
        struct translated_exit *exits;
        uint32_t exits_length;
        struct translated_fault *faults; /* by ascending address */
        uint32_t faults_length;
        const uint8_t *(*enter)(struct cpu *cpu, const uint8_t *code);
};

struct fault {
        int vector;
        uint32_t error;
        bool has_error;
};

struct cpu {
        struct cpu_state s; /* must be first: offsets in thunks */
        uint64_t zero;      /* what an absent address register reads */

        /* what translated code reads and writes through GS */
        struct cpu *self;
        uint64_t host_rsp;
        uint64_t page_linear;      /* linear address of the page the code is of */
        uint64_t target;           /* of an indirect jump; a code address while entering */
        uint64_t page_number_bits; /* pext masks */
        uint64_t page_bits, no_if_bits, direction_bits;
        uint64_t arithmetic_bits, pushed_bits; /* of RFLAGS: the host has them; PUSHF has of `s` */
        /* pdep mask of a target's place in the jump table, JUMP_BITS; 0 while `poll` is set, so
         * that every indirect jump goes to place 0, misses and comes to the dispatcher. */
        _Atomic uint64_t jump_bits;
        uint32_t exit_index;
        _Atomic uint32_t poll; /* somebody wants the dispatcher */
        uint32_t vec_parked;   /* vector registers are in `s`, not in the host's */
        uint32_t x87_parked;   /* the same of the x87 state */
        uint32_t uppers;       /* enum uppers */
        uint32_t fop;          /* of the last x87 instruction, as its two pointers are */
        uint64_t fip, fdp;
        const uint8_t *vec_loader; /* code that loads the vector registers and goes on at `back` */
        const uint8_t *back;

        /* derived from the state by cpu_mode_changed() */
        struct tlb *tlb;      /* of the current context */
        uint64_t seg_base[8]; /* effective; 0 for ES CS SS DS in 64-bit mode */
        bool long_mode;       /* EFER.LMA */
        bool code64;          /* LMA and CS.L */
        bool legacy;          /* not code64: segments and masks matter */
        bool slow;            /* TF, breakpoints: one instruction at a time */
        bool breaks;          /* a debugger's breakpoints: looked for on their pages */
        uint8_t cpl;
        uint8_t context;             /* enum mem_context */
        uint8_t mode;                /* code_mode() */
        uint8_t blocked[UNIT_COUNT]; /* 0 or the vector to raise */
        uint64_t jump_key;
        uint8_t translate_key; /* what translated code depends on beside the bytes */

        /* what is running */
        const struct step *step; /* NULL between instructions */
        const struct step *end;  /* of the current block; moved to stop early */
        struct block *block;
        uint64_t block_page; /* guest physical page of the block */
        sigjmp_buf escape;
        struct fault fault;
        int delivering;           /* vector being delivered, -1 none */
        bool delivering_external; /* EXT bit of error codes */
        uint64_t debug_hits;      /* DR6 bits found during the instruction */
        uint64_t debug_held;      /* of a MOV SS, for after the next instruction */
        uint64_t exception_dr6;   /* DR6 bits for the #DB being raised */
        bool code_changed;        /* the block was stopped: REP must look up */
        bool unmasked_simd;       /* guest MXCSR has unmasked exceptions */
        bool unmasked_x87;        /* its x87 control word has */
        bool in_guest;            /* host MXCSR is the guest's */
        uint32_t host_mxcsr;

        const struct cpu_bus *bus;
        struct cpu_memory *memory;
        unsigned index;
        _Atomic uint32_t pending;
        const struct cpu_model *model;      /* NULL: all that works */
        uint64_t features;                  /* bit per enum cpu_feature */
        uint64_t cr4_allowed, xcr0_allowed; /* bits that the guest may set */
        bool hides_speculation, hides_capabilities, hides_key_rights; /* their MSRs */
        uint64_t epoch;  /* of jump cache entries and paths; never 0 */
        uint64_t epochs; /* how many there were */
        struct cpu_debug debug;
        unsigned stop_hits;          /* bits of debug.dr found; cpu_run() returns */
        struct cpu_profile *profile; /* NULL: nobody asked for one */
        uint64_t int3_passed;        /* linear address of an INT3 that the guest shall have */
        struct cpu_counters counters;
        uint32_t host_cpuid[CPU_CPUID_LEAVES][4];

        uint8_t bounce[576] __attribute__((aligned(64)));
        uint8_t fx[512] __attribute__((aligned(64)));
        struct tlb tlbs[CTX_COUNT];
        struct path paths[PATH_ENTRIES];
        struct writers writers;
        struct larger_pages larger;
        struct space spaces[SPACES];
        uint64_t switches; /* between them */
        struct jump_entry jumps[JUMP_ENTRIES];
        struct block_bucket *buckets;
        struct block *blocks;
        struct step *steps;
        unsigned blocks_used, steps_used;
        size_t code_bytes; /* the most that code took since memory was given back */
        struct thunk_pool thunks;
        struct translator translator;
        uint8_t translation;                     /* enum cpu_translation */
        const struct translated_exit *came_from; /* how translated code was left last */
        struct jump_table jump_tables[CTX_CHECKED];
        char signal_stack[65536]; /* frames hold all of the host's registers */
};

/* Privileged instructions after which the next is fetched and done as without them. */
static inline bool cpu_stays(unsigned op)
{
        return op == OP_CLI || op == OP_STI || op == OP_SWAPGS || op == OP_RDMSR ||
               op == OP_MOV_FROM_CR || op == OP_MOV_FROM_DR;
}

/* ---- run.c ---- */
/* Recomputes what is derived from control registers, segments and flags. */
void cpu_mode_changed(struct cpu *cpu);
/* The same where only RFLAGS.AC changed. */
void cpu_ac_changed(struct cpu *cpu);
void cpu_pend(struct cpu *cpu, uint32_t bits);
static inline uint32_t generation_read(const uint32_t *at)
{
        return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}
/* Whether the code that it was decoded from did not change. */
static inline bool block_current(const struct block *b)
{
        return b->generation == generation_read(b->generation_at) &&
               b->generation2 == generation_read(b->generation_at2);
}
/* Ends the current block after this instruction. */
static inline void cpu_stop_block(struct cpu *cpu)
{
        cpu->code_changed = true;
        cpu->end = cpu->step + 1;
}
void cpu_code_flush(struct cpu *cpu);
__attribute__((noreturn)) void cpu_unimplemented(struct cpu *cpu);

/* ---- event.c ---- */
__attribute__((noreturn)) void cpu_raise(struct cpu *cpu, int vector);
void cpu_deliver_fault(struct cpu *cpu);
__attribute__((noreturn)) void cpu_raise_error(struct cpu *cpu, int vector, uint32_t error);
__attribute__((noreturn)) void cpu_raise_debug(struct cpu *cpu, uint64_t dr6_bits);
/* Ends cpu_run() before the instruction that is executed. */
__attribute__((noreturn)) void cpu_raise_to_debugger(struct cpu *cpu);
enum interrupt_kind { INTERRUPT_EXCEPTION, INTERRUPT_EXTERNAL, INTERRUPT_SOFTWARE };
/* Enters the handler of `vector`. May raise. */
void cpu_interrupt(struct cpu *cpu, int vector, enum interrupt_kind kind, const uint32_t *error);
#define cpu_gp(cpu) cpu_raise_error((cpu), VEC_GP, 0)

/* ---- debug.c ---- */
/* Which of four debug registers are breakpoints at `linear`, a bit each. */
unsigned cpu_code_hits(const uint64_t dr[4], uint64_t dr7, uint64_t linear);
/* Whether four debug registers watch data. */
bool cpu_watches(uint64_t dr7);
/* Whether a debugger's breakpoint is on the page of `linear`. */
bool cpu_break_near(const struct cpu *cpu, uint64_t linear);
/* Before an INT3: may not return. */
void cpu_int3_stop(struct cpu *cpu);

/* ---- task.c ---- */

enum task_switch { TASK_JUMP, TASK_CALL, TASK_IRET };
/* To the task of a TSS selector; interrupts are calls. `flags` is what is saved of the
 * old task's. rip is where that goes on. May raise. */
void cpu_task_switch(struct cpu *cpu, uint16_t selector, enum task_switch kind, uint64_t flags);

/* ---- exec_system.c ---- */

void cpu_load_cr3(struct cpu *cpu, uint64_t value);

/* ---- spaces.c ---- */

/* What dispatcher and page walk remember is out of date. */
static inline void cpu_new_epoch(struct cpu *cpu)
{
        cpu->epoch = ++cpu->epochs;
}
/* From the address space `from`, which is kept, to another, of which what is known counts where
 * `keep`. CR3 has been written. */
void cpu_space_switch(struct cpu *cpu, uint16_t from, uint16_t to, bool keep);
/* Forgets one that does not run, or all. */
void cpu_space_forget(struct cpu *cpu, uint16_t pcid);
void cpu_spaces_forget(struct cpu *cpu);

/* ---- linear.c, tlb.c, walk.c, physical.c; see mmu.h ---- */
void cpu_tlb_init(struct cpu *cpu);
void cpu_tlb_flush(struct cpu *cpu, bool global_too);
void cpu_tlb_flush_page(struct cpu *cpu, uint64_t linear);
/* Linear to guest physical; raises #PF. */
uint64_t cpu_translate(struct cpu *cpu, uint64_t linear, enum mem_access access,
                       enum mem_context context);
/* Linear memory that is contiguous in ours. */
struct span {
        uint8_t *at;         /* NULL: not plain memory */
        unsigned size_bytes; /* at least one, at most what was asked for */
        uint64_t gpa;        /* only where `code` */
        bool code;           /* writes within its page are told of by cpu_code_written() */
};
/* From `linear` on, filling the TLB on the way; raises what an access to the first byte
 * raises. Not with CTX_CHECKED. */
struct span cpu_span(struct cpu *cpu, uint64_t linear, unsigned size_bytes, bool write);
/* This vCPU wrote to the page by other ways than the slow ones below. */
void cpu_code_written(struct cpu *cpu, uint64_t gpa);
void cpu_load_slow(struct cpu *cpu, uint64_t linear, void *bytes, unsigned size);
void cpu_store_slow(struct cpu *cpu, uint64_t linear, const void *bytes, unsigned size);
/* As supervisor whatever the CPL: descriptor tables, TSS. */
void cpu_load_system(struct cpu *cpu, uint64_t linear, void *bytes, unsigned size);
void cpu_store_system(struct cpu *cpu, uint64_t linear, const void *bytes, unsigned size);
/* Checks that [linear, +size) may be written, raises otherwise. */
void cpu_probe_write(struct cpu *cpu, uint64_t linear, unsigned size);
/* Fetches up to `size` bytes; returns how many before a page that faults, and
 * then raises only when nothing could be fetched. */
uint8_t *cpu_fetch_page(struct cpu *cpu, uint64_t linear, uint64_t *ret_gpa);
uint8_t *cpu_ram(struct cpu *cpu, uint64_t gpa, bool write);
/* Code of this page is about to be decoded: stores to it must be seen. Returns the page's
 * generation, 0 where there is no memory. Bytes read from now on are of this generation, or the
 * page has another by the time the store counts. */
uint32_t cpu_mark_code(struct cpu *cpu, uint64_t gpa);
/* Catches up with code marked or changed by others. */
void cpu_code_catch_up(struct cpu *cpu);
bool cpu_pdptes_valid(struct cpu *cpu);
/* Segmented address in other than 64-bit code: checks type and limit. */
uint64_t cpu_linear_legacy(struct cpu *cpu, unsigned seg, uint64_t offset, unsigned size,
                           bool write);

/* ---- keys.c ---- */
/* Whether the protection key of a page denies a data access to it. */
bool cpu_key_denies(const struct cpu *cpu, unsigned key, bool user_page, bool write, bool user);
/* PKRU or IA32_PKRS, which `rights` points to, becomes `value`. */
void cpu_set_key_rights(struct cpu *cpu, uint32_t *rights, uint32_t value);
/* The key of the page that a place of the TLB is filled with. */
static inline void tlb_note_key(struct tlb *t, unsigned i, uint8_t key)
{
        t->key[i] = key;
        if (key) {
                t->keyed[i / 64] |= 1ull << i % 64;
                t->keyed_words |= 1ull << i / 64;
        }
}

/* ---- segment.c ---- */
void cpu_load_segment(struct cpu *cpu, unsigned seg, uint16_t selector);
void cpu_set_real_segment(struct cpu *cpu, unsigned seg, uint16_t selector);
int cpu_read_descriptor(struct cpu *cpu, uint16_t selector, uint64_t *ret);
void cpu_far_jump(struct cpu *cpu, uint16_t selector, uint64_t offset);
void cpu_far_call(struct cpu *cpu, uint16_t selector, uint64_t offset, unsigned size);
void cpu_far_return(struct cpu *cpu, unsigned size, unsigned pop_bytes);
void cpu_interrupt_return(struct cpu *cpu, unsigned size);
void cpu_set_flags(struct cpu *cpu, uint64_t value, uint64_t mask);
struct cpu_segment cpu_stack_for_interrupt(struct cpu *cpu, uint16_t selector, unsigned cpl);
void cpu_load_ldt(struct cpu *cpu, uint16_t selector);
void cpu_load_tr(struct cpu *cpu, uint16_t selector);
/* The same in a task switch: what is wrong with them is an #TS. */
void cpu_load_ldt_for_task(struct cpu *cpu, uint16_t selector);
void cpu_load_data_for_task(struct cpu *cpu, unsigned seg, uint16_t selector);
/* Jump within the code segment: canonical or limit check, then rip. */
void cpu_jump(struct cpu *cpu, uint64_t target, unsigned opsize);
void cpu_load_cs64(struct cpu *cpu, uint16_t selector, unsigned dpl, bool l);

/* ---- fpu.c ---- */
void cpu_fpu_enter(struct cpu *cpu); /* host MXCSR becomes the guest's */
void cpu_fpu_leave(struct cpu *cpu); /* all FPU state is in cpu->s again */
void cpu_x87_sync(struct cpu *cpu);
void cpu_x87_load(struct cpu *cpu);
void cpu_set_mxcsr(struct cpu *cpu, uint32_t value);
/* The guest's x87 control word is this now. */
void cpu_x87_control(struct cpu *cpu, uint32_t control);
uint32_t cpu_get_mxcsr(struct cpu *cpu);

/* ---- thunk.c ---- */
int cpu_thunks_create(struct cpu *cpu, struct err *err);
void cpu_thunks_destroy(struct cpu *cpu);
/* NULL when the pool is full: flush all code and start again. */
void (*cpu_thunk_get(struct cpu *cpu, const struct insn *insn))(struct cpu *, void *);
void cpu_thunks_flush(struct cpu *cpu);

/* ---- pools.c ---- */
int cpu_pools_create(struct cpu *cpu, struct err *err);
void cpu_pools_destroy(struct cpu *cpu);
/* Blocks and steps are taken from the start again; for cpu_code_flush(). */
void cpu_pools_flush(struct cpu *cpu);

/* ---- blocks.c ---- */
/* The block of the current mode that was decoded at this guest physical address, or NULL. It
 * may be out of date. */
struct block *cpu_block_at(const struct cpu *cpu, uint64_t gpa);
/* Begins to fetch what it will look at. */
void cpu_block_expect(const struct cpu *cpu, uint64_t gpa);
/* Makes the newest block of the pool the one of its address. Another may be forgotten. */
void cpu_block_add(struct cpu *cpu, const struct block *block);
/* Forgets all blocks, before the pool of them is emptied. */
void cpu_blocks_flush(struct cpu *cpu);

/* ---- bind.c ---- */
/* Chooses step->run for the decoded instruction. False: thunk pool is full. */
bool cpu_bind(struct cpu *cpu, struct step *step);

/* ---- msr.c, cpuid.c ---- */
void cpu_cpuid_read_host(struct cpu *cpu);
bool cpu_msr_read(struct cpu *cpu, uint32_t index, uint64_t *ret);
bool cpu_msr_write(struct cpu *cpu, uint32_t index, uint64_t value);
uint64_t cpu_tsc(struct cpu *cpu);

/* ---- inline accessors ---- */
static inline void *mem_host(struct cpu *cpu, uint64_t linear, unsigned size, bool write)
{
        unsigned i = tlb_index(linear);
        uint64_t offset = linear + (write ? cpu->tlb->write[i] : cpu->tlb->read[i]);
        if (likely(offset <= PAGE_SIZE_BYTES - size))
                return cpu->tlb->host[i] + offset;
        return NULL;
}

#define DEFINE_ACCESS(bits)                                                                        \
        typedef uint##bits##_t unaligned##bits __attribute__((aligned(1), may_alias));             \
        static inline uint##bits##_t load##bits(struct cpu *cpu, uint64_t linear)                  \
        {                                                                                          \
                const volatile unaligned##bits *p = mem_host(cpu, linear, bits / 8, false);        \
                if (likely(p != NULL))                                                             \
                        return *p;                                                                 \
                uint##bits##_t value;                                                              \
                cpu_load_slow(cpu, linear, &value, bits / 8);                                      \
                return value;                                                                      \
        }                                                                                          \
        static inline void store##bits(struct cpu *cpu, uint64_t linear, uint##bits##_t value)     \
        {                                                                                          \
                volatile unaligned##bits *p = mem_host(cpu, linear, bits / 8, true);               \
                if (likely(p != NULL))                                                             \
                        *p = value;                                                                \
                else                                                                               \
                        cpu_store_slow(cpu, linear, &value, bits / 8);                             \
        }
DEFINE_ACCESS(8)
DEFINE_ACCESS(16)
DEFINE_ACCESS(32)
DEFINE_ACCESS(64)

static inline uint64_t load_size(struct cpu *cpu, uint64_t linear, unsigned size)
{
        return size == 8   ? load64(cpu, linear)
               : size == 4 ? load32(cpu, linear)
               : size == 2 ? load16(cpu, linear)
                           : load8(cpu, linear);
}

static inline void store_size(struct cpu *cpu, uint64_t linear, uint64_t value, unsigned size)
{
        if (size == 8)
                store64(cpu, linear, value);
        else if (size == 4)
                store32(cpu, linear, (uint32_t)value);
        else if (size == 2)
                store16(cpu, linear, (uint16_t)value);
        else
                store8(cpu, linear, (uint8_t)value);
}

#define SLOT(cpu, type, offset) (*(type *)(void *)((char *)(cpu) + (offset)))

/* Offset within the segment of the memory operand. */
static inline uint64_t step_offset(struct cpu *cpu, const struct step *step)
{
        return (SLOT(cpu, uint64_t, step->base) +
                (SLOT(cpu, uint64_t, step->index) << step->i.scale) + (uint64_t)step->i.disp) &
               address_mask(step);
}

static inline uint64_t seg_linear(struct cpu *cpu, unsigned seg, uint64_t offset, unsigned size,
                                  bool write)
{
        if (unlikely(cpu->legacy))
                return cpu_linear_legacy(cpu, seg, offset, size, write);
        return offset + cpu->seg_base[seg];
}

static inline uint64_t step_linear(struct cpu *cpu, const struct step *step, unsigned size,
                                   bool write)
{
        return seg_linear(cpu, step->i.seg, step_offset(cpu, step), size, write);
}

/* A register operand of `size` bytes at `offset`; 32-bit writes clear the rest. */
static inline uint64_t reg_get(struct cpu *cpu, unsigned offset, unsigned size)
{
        return size == 8   ? SLOT(cpu, uint64_t, offset)
               : size == 4 ? SLOT(cpu, uint32_t, offset)
               : size == 2 ? SLOT(cpu, uint16_t, offset)
                           : SLOT(cpu, uint8_t, offset);
}

static inline void reg_set(struct cpu *cpu, unsigned offset, uint64_t value, unsigned size)
{
        if (size == 8)
                SLOT(cpu, uint64_t, offset) = value;
        else if (size == 4)
                SLOT(cpu, uint64_t, offset) = (uint32_t)value;
        else if (size == 2)
                SLOT(cpu, uint16_t, offset) = (uint16_t)value;
        else
                SLOT(cpu, uint8_t, offset) = (uint8_t)value;
}

static inline uint64_t stack_mask(const struct cpu *cpu)
{
        if (likely(!cpu->legacy))
                return UINT64_MAX;
        return cpu->s.seg[CPU_SS].attributes & ATTR_DB ? 0xffffffff : 0xffff;
}

/* rSP by the stack's width, the rest of the register kept for 16 bits. */
static inline void set_rsp(struct cpu *cpu, uint64_t value, uint64_t mask)
{
        if (mask == 0xffff)
                cpu->s.gpr[CPU_RSP] = (cpu->s.gpr[CPU_RSP] & ~mask) | (value & mask);
        else
                cpu->s.gpr[CPU_RSP] = value & mask;
}

static inline void push(struct cpu *cpu, uint64_t value, unsigned size)
{
        uint64_t mask = stack_mask(cpu);
        uint64_t sp = (cpu->s.gpr[CPU_RSP] - size) & mask;
        store_size(cpu, seg_linear(cpu, CPU_SS, sp, size, true), value, size);
        set_rsp(cpu, sp, mask);
}

/* Reads the stack `skip` bytes above its top; rSP is not changed. */
static inline uint64_t stack_read(struct cpu *cpu, unsigned skip, unsigned size)
{
        uint64_t sp = (cpu->s.gpr[CPU_RSP] + skip) & stack_mask(cpu);
        return load_size(cpu, seg_linear(cpu, CPU_SS, sp, size, false), size);
}

static inline bool canonical(uint64_t address)
{
        return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

static inline bool condition_holds(uint64_t flags, unsigned cc)
{
        bool r;
        bool sf_ne_of = (flags >> 7 ^ flags >> 11) & 1;
        switch (cc >> 1 & 7) {
        case 0:
                r = flags & FLAG_OF;
                break;
        case 1:
                r = flags & FLAG_CF;
                break;
        case 2:
                r = flags & FLAG_ZF;
                break;
        case 3:
                r = flags & (FLAG_CF | FLAG_ZF);
                break;
        case 4:
                r = flags & FLAG_SF;
                break;
        case 5:
                r = flags & FLAG_PF;
                break;
        case 6:
                r = sf_ne_of;
                break;
        default:
                r = sf_ne_of || flags & FLAG_ZF;
                break;
        }
        return r != (cc & 1);
}
