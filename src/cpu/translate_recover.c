/* Flags that a block leaves behind, made again when somebody turns out to need them.
 *
 * Where an indirect jump goes is not known, so all flags are live in front of it, and looks at
 * tables would have to leave them alone. But what wrote them last can mostly be done again:
 *
 *       guest     sub rax, 1            recovery   mov r9, rax
 *                 jmp [rdi+rcx*8]                  add r9, 1
 *                                                  sub r9, 1
 *
 * as long as its registers are not written behind it. So flags are dead behind such an
 * instruction: looks use CMP and ADD, and recovery is in the stubs only. Whether the target needs
 * flags its block knows: `clean` of its place in the jump table then leads back to the recovery
 * of the jump, whose address is in r9.
 */
#include "cpu/exec.h"
#include "cpu/translate_work.h"

enum source { SOURCE_NONE, SOURCE_REG, SOURCE_IMM };

/* `op dst, src` of 32 or 64 bits. */
struct operands {
        unsigned dst, src;
        enum source source;
};

static bool adds(const struct insn *i)
{
        return i->op == OP_ADD || i->op == OP_SUB;
}

static bool compares(const struct insn *i)
{
        return i->op == OP_CMP || i->op == OP_TEST;
}

/* False where it is not one that can be done again. */
static bool operands_of(const struct insn *i, struct operands *o)
{
        bool logic = i->op == OP_AND || i->op == OP_OR || i->op == OP_XOR;
        if ((!adds(i) && !compares(i) && !logic) || i->map != MAP_ONE || i->vex || i->opsize < 4 ||
            (i->eflags.write & FLAGS_ALL) != FLAGS_ALL || (i->is_mem && !logic) || i->mem_write)
                return false;
        unsigned code = i->code;
        bool to_reg = (code & 0xc7) == 0x03, to_rm = (code & 0xc7) == 0x01 || code == 0x85;
        bool group = code == 0x81 || code == 0x83 || code == 0xf7;
        bool rax = (code & 0xc7) == 0x05 || code == 0xa9;
        if (!to_reg && !to_rm && !group && !rax)
                return false; /* bytes */
        *o = (struct operands){ to_reg ? i->reg
                                : rax  ? CPU_RAX
                                       : i->rm,
                                to_reg ? i->rm : i->reg, group || rax ? SOURCE_IMM : SOURCE_REG };
        if (logic)
                o->source = SOURCE_NONE; /* what is left says all */
        return true;
}

/* Whether what else moves RSP behind the writer, which added to it, can be told. */
static bool stack_kept(const struct work *w, unsigned writer, const struct operands *o)
{
        if (!adds(&w->block->steps[writer].i) || o->source != SOURCE_IMM)
                return false;
        for (unsigned n = writer + 1; n + 1 < w->length; n++) {
                int64_t moved;
                if (w->block->steps[n].i.gpr_written & 1u << CPU_RSP &&
                    !translate_stack_move(w, n, &moved))
                        return false;
        }
        return true;
}

static bool kept(const struct work *w, unsigned writer, const struct operands *o)
{
        uint16_t needed = (uint16_t)(1u << o->dst);
        if (o->source == SOURCE_REG)
                needed |= (uint16_t)(1u << o->src);
        if (needed & 1u << CPU_RSP)
                return stack_kept(w, writer, o);
        /* Where the jump changes temporaries the common ones are lost before the recovery. */
        if (w->spilled != TRANSLATE_COMMON && needed & TRANSLATE_COMMON)
                return false;
        for (unsigned n = writer + 1; n < w->length; n++)
                if (w->block->steps[n].i.gpr_written & needed)
                        return false;
        /* The sum took the place of what would be taken off again. */
        const struct insn *i = &w->block->steps[writer].i;
        return !adds(i) || o->source != SOURCE_REG || o->dst != o->src;
}

/* Whether it leaves by the jump table and nothing else. */
static bool leaves_by_table(const struct work *w)
{
        enum form f = w->forms[w->length - 1];
        if (f == FORM_RET || f == FORM_JMP_IND || f == FORM_CALL_IND)
                return true;
        return (f == FORM_JMP || f == FORM_CALL) && !translate_same_page(w, translate_target(w));
}

void translate_plan_recovery(struct work *w)
{
        struct operands o;
        w->recovers = false;
        if (!leaves_by_table(w))
                return;
        for (unsigned n = w->length - 1; n-- > 0;) {
                const struct insn *i = &w->block->steps[n].i;
                if (w->forms[n] == FORM_HELPER)
                        return;
                if (form_keeps_flags(w->forms[n]) || !i->eflags.write)
                        continue;
                w->flags_writer = (uint8_t)n;
                w->recovers = (w->forms[n] == FORM_COPY || w->forms[n] == FORM_MEMORY) &&
                              operands_of(i, &o) && kept(w, n, &o);
                return;
        }
}

/* `code` rm, reg of the writer's size. */
static void emit_rm_reg(struct work *w, const struct insn *i, unsigned code, unsigned rm,
                        unsigned reg)
{
        unsigned rex = emit_rex(reg, rm, EMIT_NO_REG) | (i->opsize == 8 ? 8u : 0);
        if (rex)
                emit1(&w->e, 0x40 | rex);
        emit1(&w->e, code);
        emit1(&w->e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* ADD or SUB to register `c` of what the writer added or took off. */
static void emit_arithmetic(struct work *w, const struct insn *i, const struct operands *o,
                            unsigned c, bool add)
{
        if (o->source == SOURCE_REG) {
                emit_rm_reg(w, i, add ? 0x01 : 0x29, c, o->src);
                return;
        }
        emit_rm_reg(w, i, 0x81, c, add ? 0 : 5);
        emit4(&w->e, (uint32_t)i->imm);
}

/* By how much RSP was moved since the writer. */
static int32_t stack_moved(const struct work *w, unsigned n, bool left)
{
        int64_t sum = 0, moved;
        for (unsigned k = w->flags_writer + 1u; k < n; k++)
                if (w->block->steps[k].i.gpr_written & 1u << CPU_RSP &&
                    translate_stack_move(w, k, &moved))
                        sum += moved;
        enum form f = w->forms[n];
        if (left && f == FORM_RET)
                sum += 8 + (uint16_t)w->block->steps[n].i.imm;
        else if (left && (f == FORM_CALL || f == FORM_CALL_IND))
                sum -= 8;
        return (int32_t)sum;
}

void emit_recovery(struct work *w, unsigned lost, unsigned n, bool left)
{
        const struct step *st = &w->block->steps[w->flags_writer];
        const struct insn *i = &st->i;
        struct operands o;
        if (!operands_of(i, &o))
                return;
        if (compares(i)) {
                work_bytes(w, st->bytes, i->length);
        } else if (adds(i)) {
                int32_t moved = o.dst == CPU_RSP ? stack_moved(w, n, left) : 0;
                emit_lea(&w->e, lost, o.dst, EMIT_NO_REG, 0, -moved);
                emit_arithmetic(w, i, &o, lost, i->op == OP_SUB);
                emit_arithmetic(w, i, &o, lost, i->op == OP_ADD);
        } else {
                emit_rm_reg(w, i, 0x85, o.dst, o.dst);
        }
}
