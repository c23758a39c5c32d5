/* The translator: host code for blocks of guest code that run often.
 *
 * Theory of operation. Guest and host are the same architecture, so most guest
 * instructions are host instructions. While translated code runs
 *
 *   - guest general registers are in the host's registers of the same number,
 *     rsp included (there is no host stack; helpers switch to it);
 *   - the guest's arithmetic flags are the host's; all other bits of RFLAGS, DF
 *     too, stay in state.rflags;
 *   - the host's GS base is the struct cpu, so gs:[offset] is a field of it;
 *   - vector registers are in the host's from the first block that uses them on until
 *     a helper runs, which parks them in struct cpu; so is the x87 state, which stays
 *     there through helpers, too, as long as no exception of it is unmasked.
 *
 * An instruction without memory operand or privilege is copied. One with a
 * memory operand gets a look-up in the TLB and is re-encoded on the host address:
 *
 *       guest   add eax, [rbx+8]
 *       host    lea  r14, [rbx+8]
 *               rorx r15, r14, 12 ; and r15d, 4095
 *               add  r14, gs:[tags + r15*8]       ; offset in the page, or large
 *               cmp  r14, 4096-4 ; ja slow
 *               mov  r15, gs:[host pages + r15*8]
 *               add  eax, [r15+r14]
 *
 * where r14 and r15 are *temporaries*, registers that the block does not use; their
 * guest values wait in struct cpu meanwhile ("spilled"). Where the guest's flags are still needed
 * the and, add and cmp become pext, lea and jrcxz, which leave flags alone. In front of an
 * indirect jump they need not be where they can be made again: see translate_recover.c.
 *
 * "slow" and everything else (system instructions, strings, x87...) is a *helper
 * step*: registers go to struct cpu and the interpreter's function of that very
 * instruction runs. So a TLB miss, MMIO, a page fault or a page-crossing access
 * needs no second implementation: the interpreter does it, fills the TLB on the
 * way, raises the exception if there is one. Exceptions are exact but for the
 * arithmetic flags at an instruction before which they were dead.
 *
 * Faults of the host while it executes a guest's instruction (#DE of a
 * division, #GP of a misaligned MOVAPS) come as signals; a table leads from the
 * host address to the helper step of that instruction, where the interpreter
 * raises what is due.
 *
 * A block has several entries: `code` for who comes with all registers in place, which
 * spills; `spilled` for who has the same temporaries spilled already, and `warm` if vector
 * registers are loaded, too; `common` for who has TRANSLATE_COMMON spilled, whatever the
 * block itself needs. So spills happen where the set changes, not at every block.
 *
 * Blocks of one guest page are chained directly. Their code knows its page by
 * gs:[page_linear] only, so one translation serves every address the page is
 * mapped at. A branch to another page, an indirect jump and a return look the
 * target up in a jump table (per context) and jump on without leaving.
 *
 * Interrupts and kicks set `poll`, which backward branches read, and make look-ups in the
 * jump table miss: see cpu_jumps_stop().
 *
 * Stale code. A store to a page that holds decoded code has no TLB entry, is
 * slow, and moves the page's generation on; blocks are looked up by generation.
 * Code that changes its own page leaves at once. Chains stay within a page, so
 * they never lead from a valid block to a stale one.
 *
 * Needs BMI2 and user-mode FSGSBASE on the host; without, everything is
 * interpreted.
 */
#pragma once

#include "cpu/core.h"

#define TRANSLATE_CODE_BYTES (192u << 20)
#define TRANSLATE_STUBS      (108u << 20) /* offset of what is hardly ever run: 44 % of all */
#define TRANSLATE_EXITS      (1u << 21)
#define TRANSLATE_FAULTS     (1u << 19)

/* Why translated code called us; one per place that can. */
struct translated_exit {
        struct block *block;
        uint32_t resume; /* code offset to go on at; 0: leave for the dispatcher */
        /* Code offsets of jumps that may be led to the target: with temporaries spilled, and
         * behind where they are restored. */
        uint32_t patch, patch_plain;
        int32_t offset;     /* rip relative to the page's start: next or target */
        uint16_t pop_bytes; /* what an indirect exit already took off the stack */
        uint8_t kind;       /* enum exit_kind */
        uint8_t step;       /* number of the helper step, or of the branch */
        uint8_t x87;        /* 1 + number of the last before that moved FIP; 0: none */
        bool pushed;        /* a call already pushed its return address */
        bool last;          /* of its block */
};
_Static_assert(sizeof(struct translated_exit) == 32, "there are six for each block");

static inline const struct step *translated_step(const struct translated_exit *x)
{
        return &x->block->steps[x->step];
}

/* Registers that most blocks have as temporaries: those that compilers use last. */
#define TRANSLATE_COMMON ((uint16_t)(1u << 11 | 1u << 10 | 1u << 9))

enum exit_kind { EXIT_HELPER, EXIT_DIRECT, EXIT_INDIRECT, EXIT_LOAD_X87 };

struct translated_fault {
        uint32_t at, stub; /* code offsets */
};

/* The code cache itself, of TRANSLATE_CODE_BYTES; `nameless`: it has no file. After an error
 * destroy it, too. */
int cpu_code_memory_create(struct translator *t, bool nameless, struct err *err);
void cpu_code_memory_destroy(struct translator *t);
/* Code goes up to the offset `used` now. All but a first large page is made large when it is
 * begun: a fault of the host for it instead of 512 and of those of who executes it. And a guest's
 * compiler has more than 100 MiB of code, for which the host would walk small pages. */
void cpu_code_memory_fill(struct translator *t, uint32_t used);
int cpu_translator_create(struct cpu *cpu, struct err *err);
void cpu_translator_destroy(struct cpu *cpu);
/* Forgets all code. */
void cpu_translator_flush(struct cpu *cpu);
/* Indirect jumps look up again; `kernel_too` false keeps global pages' entries. */
void cpu_jumps_flush(struct cpu *cpu, bool kernel_too);
/* The same for code of one guest physical page, which changed. */
void cpu_jumps_forget_page(struct cpu *cpu, uint64_t gpa);
/* The same for code of the user's at one page of linear addresses. */
void cpu_jumps_forget_linear(struct cpu *cpu, uint64_t linear);
void cpu_jumps_init(struct cpu *cpu);
/* Memory of the tables goes back to the host. */
void cpu_jumps_trim(struct cpu *cpu);
/* Backward branches and indirect jumps come to the dispatcher, until it resumes; from any
 * thread. */
void cpu_jumps_stop(struct cpu *cpu);
void cpu_jumps_resume(struct cpu *cpu);
/* Takes the user's out; the latest of them, as many as there is room for, can be given back later,
 * where their blocks are still good. */
unsigned cpu_jumps_take(struct cpu *cpu, struct saved_jump *ret, unsigned room);
void cpu_jumps_give(struct cpu *cpu, const struct saved_jump *jumps, unsigned length);
/* Jumps to rip find this translated block. */
void cpu_jump_remember(struct cpu *cpu, const struct block *block);
/* Code for rip in the current context, or NULL. With code the shadow of STI or MOV SS
 * is over, since at least one instruction is done before the next look at interrupts. */
const uint8_t *cpu_jump_find(struct cpu *cpu);
/* Makes code for a decoded block. False: not now (the cache was flushed, and with
 * it the block). */
bool cpu_translate_block(struct cpu *cpu, struct block *block);
/* Leads the direct exit `x` through the jump table from now on: to a block that is not as
 * surely valid as that of the exit. */
void cpu_translate_bridge(struct cpu *cpu, const struct translated_exit *x);
/* Runs it until something needs the dispatcher; rip and all state are exact then. */
void cpu_translated_run(struct cpu *cpu, struct block *block);
/* Around cpu_run(): GS base and the signal stack of this thread. */
void cpu_translator_enter(struct cpu *cpu);
void cpu_translator_leave(struct cpu *cpu);
