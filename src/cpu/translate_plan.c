/* Decides how a block is translated. See translate.h for the idea. */
#include "cpu/exec.h"
#include "cpu/translate_work.h"

/* ---- what each step is ---- */

/* Distances that stay within 32 bits when counted from the page's start. */
static bool near(int64_t distance)
{
        const int64_t room = 2 * (int64_t)PAGE_SIZE_BYTES;
        return distance > INT32_MIN + room && distance < INT32_MAX - room;
}

/* Whether emit_address() can form the memory operand's address. */
static bool addressable(const struct insn *i)
{
        return i->base != BASE_RIP || (i->adsize == 8 && near(i->disp));
}

static enum form form_of_control(const struct insn *i)
{
        bool direct = i->op == OP_JMP || i->op == OP_JCC || i->op == OP_CALL;
        if (i->opsize != 8 || (direct && !near((int64_t)i->imm)) || (i->is_mem && !addressable(i)))
                return FORM_END;
        switch (i->op) {
        case OP_JMP:
                return FORM_JMP;
        case OP_JCC:
                return FORM_JCC;
        case OP_CALL:
                return FORM_CALL;
        case OP_RET:
                return FORM_RET;
        case OP_JMP_IND:
                return FORM_JMP_IND;
        case OP_CALL_IND:
                return FORM_CALL_IND;
        default:
                return FORM_END;
        }
}

static bool vectors_allowed(const struct cpu *cpu, const struct insn *i)
{
        return !cpu->unmasked_simd && !cpu->blocked[i->vex ? UNIT_AVX : UNIT_SSE];
}

static enum form form_of_helper(const struct cpu *cpu, const struct insn *i)
{
        bool plain = i->map == MAP_ONE && i->opsize == 8;
        if (i->op == OP_PUSH && plain && i->code >= 0x50 && i->code <= 0x57)
                return FORM_PUSH;
        if (i->op == OP_PUSH && plain && (i->code == 0x68 || i->code == 0x6a))
                return FORM_PUSH_IMM;
        if (i->op == OP_PUSH && plain && i->is_mem && addressable(i))
                return FORM_PUSH_MEM;
        if (i->op == OP_POP && plain && i->code >= 0x58 && i->code <= 0x5f)
                return FORM_POP;
        if (i->op == OP_PUSHF && i->opsize == 8)
                return FORM_PUSHF;
        if (i->op == OP_LEAVE && i->opsize == 8)
                return FORM_LEAVE;
        if (i->op == OP_STOS && i->rep && i->adsize == 8)
                return FORM_STOS;
        if (i->op == OP_MOVS && i->rep && i->adsize == 8 && i->seg != CPU_FS && i->seg != CPU_GS)
                return FORM_MOVS;
        if (i->op == OP_STMXCSR && vectors_allowed(cpu, i) && addressable(i))
                return FORM_MEMORY; /* with all exceptions masked the host's is the guest's */
        if (i->op == OP_VZERO && vectors_allowed(cpu, i))
                return FORM_VZERO;
        if (i->op == OP_FWAIT && cpu->translate_key & TRANSLATE_X87)
                return FORM_NOTHING;
        if (i->op == OP_POP_SEG || i->op == OP_MOV_TO_SEG || i->op == OP_LOAD_FAR)
                return FORM_END;
        return FORM_HELPER;
}

/* Operations of the general registers that the host may do for the guest. */
static bool plain_op(unsigned op)
{
        return (op >= OP_ADD && op <= OP_MOVSX) || op == OP_LEA || op == OP_XCHG || op == OP_XADD ||
               op == OP_CMPXCHG || op == OP_CMPXCHG8B || op == OP_CMOV || op == OP_SETCC ||
               op == OP_CBW || op == OP_CWD || op == OP_LAHF || op == OP_SAHF || op == OP_CLC ||
               op == OP_STC || op == OP_CMC || op == OP_NOP || op == OP_FENCE;
}

/* Instructions that the host does on the x87 state in its own registers. Those that may
 * unmask an exception, and those about all of the state, are left to the interpreter. */
static bool x87_copied(const struct cpu *cpu, const struct insn *i)
{
        unsigned escape = i->code & 7, reg = i->modrm >> 3 & 7;
        if (!(cpu->translate_key & TRANSLATE_X87) || i->mem_size > 10)
                return false;
        if (i->is_mem)
                return i->seg != CPU_FS && i->seg != CPU_GS && !(escape == 1 && reg == 5);
        return !(escape == 3 && reg == 4);
}

static enum form form_of_privileged(const struct cpu *cpu, const struct insn *i)
{
        if (cpu->cpl == 0 && i->op == OP_SWAPGS)
                return FORM_SWAPGS;
        if (cpu->cpl == 0 && i->op == OP_CLI)
                return FORM_CLI;
        if (cpu->cpl == 0 && i->op == OP_STI)
                return FORM_STI;
        if (i->op == OP_SERIALIZE)
                return FORM_SERIALIZE;
        return cpu_stays(i->op) ? FORM_HELPER : FORM_END;
}

static enum form form_of(const struct cpu *cpu, const struct step *st)
{
        const struct insn *i = &st->i;
        if (!i->row || st->run == exec_ud)
                return FORM_END;
        uint64_t p = i->row->properties;
        switch (i->class) {
        case CLASS_CONTROL:
                return form_of_control(i);
        case CLASS_PRIVILEGED:
                return form_of_privileged(cpu, i);
        case CLASS_HELPER:
                return form_of_helper(cpu, i);
        default:
                break;
        }
        if (i->op == OP_NOP)
                return FORM_NOTHING;
        if (i->op == OP_X87 ? !x87_copied(cpu, i)
                            : p & (MMX | VSIB) || (i->op < OP_HOST && !plain_op(i->op)))
                return FORM_HELPER;
        if (p & SSE && !vectors_allowed(cpu, i))
                return FORM_HELPER;
        if (i->op == OP_LEA && i->base == BASE_RIP)
                return i->opsize == 8 && addressable(i) ? FORM_LEA_RIP : FORM_HELPER;
        if (i->class == CLASS_COPY)
                return FORM_COPY;
        if (!i->has_modrm || !i->mem_size || i->mem_size > 32 || !addressable(i))
                return FORM_HELPER;
        /* A bit string reaches beyond its operand. */
        if (i->op >= OP_BT && i->op <= OP_BTC && i->row->operands[1].kind == OPK_G)
                return i->adsize == 8 && i->opsize >= 4 ? FORM_BITS : FORM_HELPER;
        return FORM_MEMORY;
}

/* Flags that a block needs at its start, seen from its first steps. */
static uint16_t flags_needed(const struct cpu *cpu, const struct block *b)
{
        uint16_t need = 0, written = 0;
        for (unsigned n = 0; n < b->length; n++) {
                const struct step *st = &b->steps[n];
                enum form f = form_of(cpu, st);
                if (f == FORM_HELPER || f == FORM_END)
                        break;
                if (form_keeps_flags(f))
                        continue;
                need |= st->i.eflags.read & ~written;
                written |= st->i.eflags.write;
                if ((written & FLAGS_ALL) == FLAGS_ALL)
                        return need;
        }
        return need | (FLAGS_ALL & ~written);
}

/* The block at `offset` of the block's page, where it is known. */
static const struct block *neighbour(const struct work *w, int32_t offset)
{
        const struct block *b = w->block, *to;
        if (offset < 0 || offset >= (int32_t)PAGE_SIZE_BYTES)
                return NULL;
        to = cpu_block_at(w->cpu, (b->gpa & ~PAGE_MASK) + (uint32_t)offset);
        return to && to->generation == b->generation ? to : NULL;
}

bool translate_same_page(const struct work *w, int32_t offset)
{
        const struct block *to = neighbour(w, offset);
        return offset >= 0 && offset < (int32_t)PAGE_SIZE_BYTES && !(to && to->page2);
}

bool translate_polls_later(const struct work *w, int32_t offset)
{
        const struct block *to = neighbour(w, offset);
        const struct insn *last = to ? &to->steps[to->length - 1].i : NULL;
        return last && !to->page2 && last->class == CLASS_CONTROL &&
               (last->op == OP_RET || last->op == OP_JMP_IND || last->op == OP_CALL_IND);
}

/* Flags needed at the place `offset` of the block's page. */
uint16_t translate_flags_at(const struct work *w, int32_t offset)
{
        const struct block *to = neighbour(w, offset);
        return to && !to->page2 ? flags_needed(w->cpu, to) : FLAGS_ALL;
}

int32_t translate_target(const struct work *w)
{
        unsigned last = w->length - 1;
        return w->at[w->length] + (int32_t)w->block->steps[last].i.imm;
}

static uint16_t flags_after(const struct work *w)
{
        uint16_t live = FLAGS_ALL;
        enum form f = w->forms[w->length - 1];
        bool direct = f == FORM_JMP || f == FORM_JCC || f == FORM_CALL;
        if (direct)
                live = w->loops ? w->live[0] : translate_flags_at(w, translate_target(w));
        if (f == FORM_JCC || !form_leaves(f))
                live |= translate_flags_at(w, w->at[w->length]);
        if (w->recovers)
                return 0;
        return form_leaves(f) && !direct ? FLAGS_ALL : live;
}

static void find_live_flags(struct work *w)
{
        w->live[0] = 0;
        for (unsigned round = 0; round < 2; round++) {
                uint16_t live = flags_after(w);
                w->live[w->length] = live;
                for (unsigned n = w->length; n-- > 0;) {
                        const struct flag_sets *f = &w->block->steps[n].i.eflags;
                        if (w->forms[n] == FORM_HELPER || w->forms[n] == FORM_END)
                                live = FLAGS_ALL;
                        else if (!form_keeps_flags(w->forms[n]))
                                live = (live & ~f->write) | f->read;
                        w->live[n] = live & FLAGS_ALL;
                }
                if (!w->loops)
                        break;
        }
}

#define AROUND 16u /* blocks that are asked */

/* Registers that the known blocks use to which this one may lead within its page. */
static uint16_t used_around(const struct work *w)
{
        const struct block *seen[AROUND] = { w->block };
        unsigned length = 1;
        uint16_t used = 0;
        for (unsigned k = 0; k < length; k++) {
                const struct block *b = seen[k];
                int32_t at = (int32_t)(b->gpa & PAGE_MASK);
                for (unsigned n = 0; n < b->length; n++) {
                        const struct insn *i = &b->steps[n].i;
                        bool helped = i->class == CLASS_HELPER || i->class == CLASS_PRIVILEGED;
                        used |= helped ? 0 : i->gpr_read | i->gpr_written;
                        at += i->length;
                }
                const struct insn *last = &b->steps[b->length - 1].i;
                bool jumps = last->op == OP_JMP || last->op == OP_JCC;
                const struct block *to[2] = { last->op == OP_JCC || last->class != CLASS_CONTROL
                                                      ? neighbour(w, at)
                                                      : NULL,
                                              jumps && near((int64_t)last->imm)
                                                      ? neighbour(w, at + (int32_t)last->imm)
                                                      : NULL };
                for (unsigned t = 0; t < 2; t++) {
                        unsigned known = 0;
                        while (known < length && seen[known] != to[t])
                                known++;
                        if (to[t] && known == length && length < AROUND)
                                seen[length++] = to[t];
                }
        }
        return used;
}

/* Temporaries that what leads to `offset` of the page takes. */
static unsigned needed_to_leave(const struct work *w, int32_t offset)
{
        if (!translate_same_page(w, offset))
                return TEMPORARIES;
        bool polls = offset <= w->at[w->length - 1] && !translate_polls_later(w, offset);
        uint16_t live = w->loops && offset == w->at[0] ? w->live[0] : translate_flags_at(w, offset);
        return polls && live ? TEMPORARIES : 0;
}

/* The same for step `n`, but for where it goes. */
static unsigned needed_by_step(const struct work *w, unsigned n)
{
        switch (w->forms[n]) {
        case FORM_COPY:
        case FORM_LEA_RIP:
        case FORM_NOTHING:
        case FORM_VZERO:
        case FORM_HELPER:
        case FORM_END:
        case FORM_JMP:
        case FORM_JCC:
                return 0;
        case FORM_MEMORY:
        case FORM_PUSH:
        case FORM_PUSH_IMM:
        case FORM_PUSH_MEM:
        case FORM_POP:
        case FORM_LEAVE:
                return w->live[n] ? TEMPORARIES : 2;
        default:
                return TEMPORARIES;
        }
}

/* How many temporaries the block cannot do without. */
static unsigned needed_temporaries(const struct work *w)
{
        enum form last = w->forms[w->length - 1];
        if (w->x87 || (w->vectors && w->live[0]))
                return TEMPORARIES;
        unsigned most = w->cpu->profile ? 2 : 0; /* translate_count() */
        for (unsigned n = 0; n < w->length; n++) {
                unsigned needed = needed_by_step(w, n);
                most = needed > most ? needed : most;
        }
        unsigned there = last == FORM_JMP || last == FORM_JCC
                                 ? needed_to_leave(w, translate_target(w))
                                 : 0;
        unsigned behind = last == FORM_JCC || !form_leaves(last)
                                  ? needed_to_leave(w, w->at[w->length])
                                  : 0;
        most = there > most ? there : most;
        return behind > most ? behind : most;
}

/* Three that neither the block uses nor its neighbours do, which so can have the same. Where there
 * are fewer, what the block cannot do without comes from those that only neighbours use; or of two
 * blocks of a loop each would spill what is the other's, all the time. */
static void choose_temporaries(struct work *w)
{
        static const uint8_t order[] = { 11, 10, 9, 8, 6, 7, 2, 0, 3, 15, 14, 13, 12, 5 };
        uint16_t used = w->used, around = used_around(w);
        unsigned needed = needed_temporaries(w), found = 0;
        for (unsigned k = 0; found < TEMPORARIES; k++) {
                unsigned r = order[k % sizeof(order)];
                bool second = k >= sizeof(order);
                if (second && found >= needed)
                        break;
                if (used >> r & 1 || (!second && around >> r & 1))
                        continue;
                used |= (uint16_t)(1u << r);
                w->t[found++] = (uint8_t)r;
                w->spilled |= (uint16_t)(1u << r);
        }
        if (w->spilled == TRANSLATE_COMMON)
                memcpy(w->t, order, sizeof(w->t));
}

/* Chooses forms and length. */
static void plan_steps(struct work *w)
{
        const struct block *b = w->block;
        w->used = 1u << CPU_RSP | 1u << CPU_RCX; /* rcx is for JRCXZ */
        int32_t at = (int32_t)(b->gpa & PAGE_MASK);
        for (w->length = 0; w->length < b->length; w->length++) {
                const struct insn *i = &b->steps[w->length].i;
                enum form f = form_of(w->cpu, &b->steps[w->length]);
                uint16_t more = f == FORM_HELPER || f == FORM_END ? 0
                                                                  : i->gpr_read | i->gpr_written;
                if (__builtin_popcount((uint16_t)(w->used | more)) > 16 - TEMPORARIES)
                        break;
                w->used |= more;
                w->forms[w->length] = f;
                w->at[w->length] = at;
                at += i->length;
                w->at[w->length + 1] = at;
                if (f == FORM_COPY || f == FORM_MEMORY || f == FORM_VZERO) {
                        w->vectors |= (i->row->properties & SSE) != 0;
                        w->x87 |= i->op == OP_X87;
                }
        }
        enum form last = w->forms[w->length - 1];
        w->loops = (last == FORM_JMP || last == FORM_JCC) && translate_target(w) == w->at[0];
}

void translate_plan(struct work *w)
{
        plan_steps(w);
        find_live_flags(w);
        choose_temporaries(w);
        translate_plan_recovery(w);
        if (w->recovers)
                find_live_flags(w);
        translate_merge(w);
}
