/* What the two halves of the translator share: a block on its way to host code.
 *
 * translate_plan.c decides, without emitting anything: how each step is done, which
 * flags are needed where, which registers serve as temporaries. translate.c then
 * emits by that plan, from what translate_steps.c, translate_flow.c and
 * translate_shared.c have for each form. One `struct work` lives while one block is
 * translated.
 */
#pragma once

#include "cpu/emit.h"
#include "cpu/translate.h"

#define FIELD(name) ((uint32_t)offsetof(struct cpu, name))
#define GPR(n)      (FIELD(s.gpr) + 8u * (n))

#define CC_ZERO 4

#define STUBS     (4 * BLOCK_STEPS + 8)
#define FAULTS    (2 * BLOCK_STEPS + 1)
#define FLAGS_ALL FLAGS_ARITHMETIC

#define TEMPORARIES 3u /* at most */

/* How a step is done. */
enum form {
        FORM_COPY,   /* the same bytes */
        FORM_MEMORY, /* re-encoded on a host address */
        FORM_BITS,   /* the same of a bit string */
        FORM_LEA_RIP,
        FORM_NOTHING,
        FORM_VZERO,
        FORM_SWAPGS,
        FORM_CLI,
        FORM_STI,
        FORM_SERIALIZE,
        FORM_PUSH,
        FORM_PUSH_IMM,
        FORM_PUSH_MEM,
        FORM_PUSHF,
        FORM_POP,
        FORM_LEAVE,
        FORM_STOS,   /* REP STOS within a page */
        FORM_MOVS,   /* REP MOVS within a page and from within one */
        FORM_HELPER, /* by the interpreter, then on */
        FORM_JMP,
        FORM_JCC,
        FORM_CALL,
        FORM_RET,
        FORM_JMP_IND,
        FORM_CALL_IND,
        FORM_END, /* by the interpreter, then to the dispatcher */
        FORM_COUNT
};

/* Code off the main path, emitted at another place: TRANSLATE_STUBS. */
struct stub {
        uint8_t *from;      /* jump that leads here; NULL: only the fault table does */
        uint32_t exit;      /* index of the record */
        bool helper;        /* to the helper trampoline; else leave */
        bool rcx_moved;     /* rcx waits in t[2] */
        bool chains;        /* what it leads to may be led to directly later */
        bool loads_vectors; /* the vector registers, then on to the warm entry */
        bool has_target;    /* register `target` is an indirect jump's */
        uint8_t target;
        bool goes_on; /* emit_recovered() */
};

/* A run of steps whose accesses are relative to the same registers and close together: they
 * share one look at the TLB, for all bytes from the first to the last of any of them. Where
 * that fails, because they are not all in one page, say, or one of them may not be written,
 * a copy of the run in which every step looks for itself is executed instead. */
struct merged {
        uint8_t first, last; /* steps */
        bool write;
        int32_t low; /* displacement of the first byte */
        uint16_t size;

        uint8_t *miss; /* jump to the copy */
        uint8_t *end;  /* where the copy goes on */
        bool rcx_moved;
        const struct step *x87_last; /* at the start */
};

struct work {
        /* given, and planned */
        struct cpu *cpu;
        struct block *block;
        unsigned length;
        enum form forms[BLOCK_STEPS];
        int32_t at[BLOCK_STEPS + 1];    /* offsets in the page */
        uint16_t live[BLOCK_STEPS + 1]; /* flags needed before the step */
        uint16_t used;                  /* registers that cannot be temporaries */
        uint8_t t[TEMPORARIES];         /* temporaries; of the common ones the highest first */
        uint16_t spilled;               /* they as a set: guest values are in struct cpu */
        bool vectors, x87;              /* the block works on these registers of the host's */
        bool loops;                     /* the last branch goes to the start */
        /* Flags behind step `flags_writer` need not be kept: emit_recovery() makes them again. */
        bool recovers;
        uint8_t flags_writer;
        struct merged merged[BLOCK_STEPS / 2];
        unsigned merged_length;
        uint16_t place[BLOCK_STEPS]; /* of a merged access, from its run's first byte */

        /* emitted */
        struct emitter e;
        uint8_t *body;                     /* behind the entries */
        uint32_t after_checks;             /* the same as an offset */
        bool uppers_noted;                 /* that upper halves are in use */
        const struct step *x87_last;       /* that moved FIP, of the native ones so far */
        uint32_t fault_exits[BLOCK_STEPS]; /* that go on in the copy of a run; 0: none */
        unsigned stubs_length, faults_length;
        /* Four kilobytes that work_init() leaves as they are. */
        struct stub stubs[STUBS];
        struct translated_fault faults[FAULTS]; /* stub: index until resolved */
};

static inline void work_init(struct work *w, struct cpu *cpu, struct block *block)
{
        __builtin_memset(w, 0, offsetof(struct work, stubs));
        w->cpu = cpu;
        w->block = block;
}

/* ---- translate_plan.c ---- */

/* Fills everything that the first half of `struct work` holds, from `cpu` and
 * `block`. The block may be cut short. */
void translate_plan(struct work *w);
/* Arithmetic flags that whatever stands at `offset` of the block's page needs. */
uint16_t translate_flags_at(const struct work *w, int32_t offset);
/* Whether all code at `offset` is of the block's own page: not even its first instruction
 * crosses into the next. Chains lead only there, since what they lead to must be as valid
 * as what they come from. */
bool translate_same_page(const struct work *w, int32_t offset);
/* Where the last step's direct branch goes, relative to the page's start. */
int32_t translate_target(const struct work *w);

/* Whether control that goes on at `offset` of the page comes to an indirect jump before it
 * comes to any other. */
bool translate_polls_later(const struct work *w, int32_t offset);

/* ---- translate_recover.c ---- */

/* Decides whether the flags at the block's end can be made again from registers. */
void translate_plan_recovery(struct work *w);
/* Makes them, at step `n`, or where it has `left` the block. Register `lost` and the flags
 * before are lost. */
void emit_recovery(struct work *w, unsigned lost, unsigned n, bool left);

/* ---- translate_merge.c ---- */

/* Finds the runs, after all else is planned. */
void translate_merge(struct work *w);
/* By how much the step moves RSP; false where that is not known before. */
bool translate_stack_move(const struct work *w, unsigned n, int64_t *ret);

/* ---- translate_pieces.c ---- */

/* Where the next byte goes, as an offset in the code cache. */
uint32_t work_offset(const struct work *w);
/* EMIT_LOAD or EMIT_STORE of a set of guest registers, from or to struct cpu. */
void work_move_registers(struct work *w, unsigned opcode, uint16_t set);
void work_restore_temporaries(struct work *w);
/* Index of a new record; `offset` is rip behind it, from the page's start. */
uint32_t work_exit(struct work *w, enum exit_kind kind, unsigned step, int32_t offset);
struct translated_exit *work_exit_of(struct work *w, const struct stub *s);
struct stub *work_stub(struct work *w, uint8_t *from, uint32_t exit);
/* A way out of the main path into the interpreter's version of step `n`. */
struct stub *work_slow_stub(struct work *w, unsigned n, uint8_t *from);
/* What the stub leads to goes on here. */
void work_resume_here(struct work *w, const struct stub *s);
/* The instruction about to be emitted may fault on the host. */
void work_note_fault(struct work *w, const struct stub *s);
void work_bytes(struct work *w, const uint8_t *bytes, unsigned size);
/* t[0] is a linear address; afterwards t[1] + t[0] is the host's. The jump for where it is
 * not is returned; in front of it RCX was moved to t[2] where step `n` needs flags. */
uint8_t *emit_look_up(struct work *w, unsigned n, unsigned size, bool write);
/* The same; where it misses, the step is done slowly. */
struct stub *emit_check(struct work *w, unsigned n, unsigned size, bool write);
/* t[0] = linear address of what `disp` is the displacement of; with BASE_RIP, that from
 * the page's start. */
void emit_address_of(struct work *w, const struct insn *i, int32_t disp);
/* The same of a step's memory operand. */
void emit_address(struct work *w, unsigned n);
/* The guest's instruction with its memory operand replaced by [base + index + disp]. */
void emit_rewritten(struct work *w, const struct step *st, unsigned base, unsigned index,
                    int32_t disp);
/* Goes on where the field at `offset` is zero; the stub for where it is not is returned. */
struct stub *emit_zero_check(struct work *w, uint32_t offset, uint32_t exit, bool flags);

/* ---- translate_steps.c ---- */

/* Step `n` by itself, by its form. */
void emit_step(struct work *w, unsigned n);
/* FIP and FOP as the x87 instructions of the block leave them. */
void emit_x87_pointers(struct work *w);
/* Keeps account of what the host's registers hold beside the general ones. */
void work_note_state(struct work *w, const struct step *st);
/* Checks the eight bytes that a push is about to write. */
const struct stub *emit_push_check(struct work *w, unsigned n);
/* The same of those that a pop reads at `from`. */
const struct stub *emit_pop_check(struct work *w, unsigned n, unsigned from);

/* ---- translate_flow.c ---- */

/* Offset of the jump table of the block's context in struct cpu. */
uint32_t translate_places(const struct work *w);
/* Jumps to wherever the linear address in register `target` is translated: in t[0] or, where flags
 * are made again, one of the guest's. */
void emit_indirect(struct work *w, unsigned n, unsigned target, uint16_t pop_bytes, bool pushed);
/* Where a target leads back to that needs the flags which its jump lost. */
void emit_recovered(struct work *w);
/* Goes on at `offset` of the page or beyond it; `live` flags are needed there. */
void emit_goto(struct work *w, unsigned n, int32_t offset, uint16_t live);
void emit_jcc(struct work *w, unsigned n);
void emit_jmp(struct work *w, unsigned n);
void emit_jmp_ind(struct work *w, unsigned n);
void emit_call(struct work *w, unsigned n);
void emit_ret(struct work *w, unsigned n);

/* ---- translate_shared.c ---- */

/* The steps of a run, with one look at the TLB for all of them. */
void emit_merged(struct work *w, struct merged *m);
/* The run again, where each step looks for itself. */
void emit_unmerged(struct work *w, const struct merged *m);

/* ---- translate_count.c ---- */

/* The block counts its runs, for a profile. Flags and all registers but the temporaries stay. */
void translate_count(struct work *w);

/* ---- of instructions ---- */

/* Whether the host may raise what the interpreter then raises in the guest. */
static inline bool translate_can_fault(const struct insn *i)
{
        return i->op == OP_DIV || i->op == OP_IDIV || i->mem_aligned ||
               (i->op == OP_CMPXCHG8B && i->opsize == 8);
}

/* Whether a register operand is one of AH, CH, DH and BH. */
static inline bool translate_high_byte(const struct insn *i)
{
        for (unsigned n = 0; n < 4; n++) {
                struct operand o = i->row->operands[n];
                if (o.kind == OPK_G && insn_operand_size(i, o) == 1 && !i->rex && i->reg >= 4 &&
                    i->reg < 8)
                        return true;
        }
        return false;
}

/* Whether such a step leaves arithmetic flags alone, whatever the decoder says of it. */
static inline bool form_keeps_flags(enum form f)
{
        return f == FORM_NOTHING || f == FORM_SWAPGS || f == FORM_CLI || f == FORM_STI ||
               f == FORM_SERIALIZE;
}

/* Whether nothing of the block follows such a step. */
static inline bool form_leaves(enum form f)
{
        return f >= FORM_JMP;
}
