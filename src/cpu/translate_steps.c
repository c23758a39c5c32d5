/* How each form of step is emitted, but for branches. See translate_work.h. */
#include "cpu/exec.h"
#include "cpu/translate_work.h"

void emit_x87_pointers(struct work *w)
{
        const struct block *b = w->block;
        if (!w->x87_last)
                return;
        int32_t at = w->at[w->x87_last - b->steps];
        emit_gs(&w->e, EMIT_LOAD, w->t[0], FIELD(page_linear));
        emit_lea(&w->e, w->t[0], w->t[0], EMIT_NO_REG, 0, at);
        emit_gs(&w->e, EMIT_STORE, w->t[0], FIELD(fip));
        emit_gs_set32(&w->e, FIELD(fop), x87_opcode(&w->x87_last->i));
        w->x87_last = NULL;
}

void work_note_state(struct work *w, const struct step *st)
{
        const struct insn *i = &st->i;
        if (i->op == OP_X87 && !x87_control(i))
                w->x87_last = st;
        if (i->vex && i->vex_l && i->row->properties & SSE && !w->uppers_noted) {
                emit_gs_set32(&w->e, FIELD(uppers), UPPERS_USED);
                w->uppers_noted = true;
        }
}

static void emit_helper(struct work *w, unsigned n)
{
        bool ends = w->forms[n] == FORM_END;
        uint32_t index = work_exit(w, EXIT_HELPER, n, w->at[n + 1]);
        work_restore_temporaries(w);
        emit_gs_set32(&w->e, FIELD(exit_index), index);
        emit_patch(emit_jump(&w->e), w->cpu->translator.writable + w->cpu->translator.helper);
        w->x87_last = NULL; /* the helper has put its pointers in place */
        if (!ends)
                w->cpu->translator.exits[index].resume = work_offset(w);
}

static void emit_memory_step(struct work *w, unsigned n)
{
        const struct step *st = &w->block->steps[n];
        if (translate_high_byte(&st->i) && (w->t[0] | w->t[1]) & 8) {
                emit_helper(w, n);
                return;
        }
        emit_address(w, n);
        if (st->i.op == OP_X87 && !x87_control(&st->i))
                emit_gs(&w->e, EMIT_STORE, w->t[0], FIELD(fdp));
        const struct stub *s = emit_check(w, n, st->i.mem_size, st->i.mem_write);
        work_note_state(w, st);
        if (translate_can_fault(&st->i))
                work_note_fault(w, s);
        emit_rewritten(w, st, w->t[1], w->t[0], 0);
        work_resume_here(w, s);
}

/* t[1] = by how many operands what the bit number in a register says is away from the memory
 * operand: rounded down, of a signed number. t[2] is lost. */
static void emit_bits_away(struct work *w, unsigned n)
{
        const struct insn *i = &w->block->steps[n].i;
        unsigned away = w->t[1];
        emit_set32(&w->e, w->t[2], i->opsize == 8 ? 6 : 5);
        emit_sarx(&w->e, i->opsize == 8, away, i->reg, w->t[2]);
        if (i->opsize == 4)
                emit_sign_extend(&w->e, away);
}

/* The host's instruction reaches as far as the guest's: what is looked up is the operand that it
 * reaches, and what it is given lies as far before that on the host. */
static void emit_bits(struct work *w, unsigned n)
{
        const struct step *st = &w->block->steps[n];
        struct emitter *e = &w->e;
        unsigned a = w->t[0], away = w->t[1], size = st->i.opsize;
        unsigned shift = (unsigned)__builtin_ctz(size);
        emit_address(w, n);
        emit_bits_away(w, n);
        emit_lea(e, a, a, away, shift, 0);
        const struct stub *s = emit_check(w, n, size, st->i.mem_write);
        emit_lea(e, a, w->t[1], a, 0, 0);
        emit_bits_away(w, n);
        emit_not(e, away);
        emit_lea(e, away, EMIT_NO_REG, away, shift, (int32_t)size); /* -away operands */
        emit_rewritten(w, st, a, away, 0);
        work_resume_here(w, s);
}

static void emit_copy(struct work *w, unsigned n)
{
        const struct step *st = &w->block->steps[n];
        if (!translate_can_fault(&st->i)) {
                work_note_state(w, st);
                work_bytes(w, st->bytes, st->i.length);
                return;
        }
        const struct stub *s = work_slow_stub(w, n, NULL);
        work_note_fault(w, s);
        work_bytes(w, st->bytes, st->i.length);
        work_resume_here(w, s);
}

static void emit_vzero(struct work *w, unsigned n)
{
        const struct step *st = &w->block->steps[n];
        work_bytes(w, st->bytes, st->i.length);
        emit_gs_set32(&w->e, FIELD(uppers), UPPERS_CLEARED);
        w->uppers_noted = false;
}

static void emit_swapgs(struct work *w, unsigned n)
{
        struct emitter *e = &w->e;
        unsigned a = w->t[0], b = w->t[1];
        (void)n;
        emit_gs(e, EMIT_LOAD, a, FIELD(s.seg[CPU_GS].base));
        emit_gs(e, EMIT_LOAD, b, FIELD(s.kernel_gs_base));
        emit_gs(e, EMIT_STORE, a, FIELD(s.kernel_gs_base));
        emit_gs(e, EMIT_STORE, b, FIELD(s.seg[CPU_GS].base));
        emit_gs(e, EMIT_STORE, b, FIELD(seg_base[CPU_GS]));
}

/* IF becomes 0 or `flag`; arithmetic flags are not touched. */
static void emit_interrupt_flag(struct work *w, uint32_t flag)
{
        struct emitter *e = &w->e;
        unsigned a = w->t[0];
        emit_gs(e, EMIT_LOAD, a, FIELD(s.rflags));
        emit_bits_gs(e, EMIT_PEXT, a, a, FIELD(no_if_bits));
        emit_bits_gs(e, EMIT_PDEP, a, a, FIELD(no_if_bits));
        if (flag)
                emit_lea(e, a, a, EMIT_NO_REG, 0, (int32_t)flag);
        emit_gs(e, EMIT_STORE, a, FIELD(s.rflags));
}

static void emit_cli(struct work *w, unsigned n)
{
        (void)n;
        emit_interrupt_flag(w, 0);
}

/* With nothing waiting its shadow needs no care where an instruction follows in the block. */
static void emit_sti(struct work *w, unsigned n)
{
        struct emitter *e = &w->e;
        if (n + 1 == w->length) {
                emit_helper(w, n);
                return;
        }
        emit_mov_reg(e, w->t[2], CPU_RCX);
        emit_gs32(e, EMIT_LOAD, CPU_RCX, FIELD(pending));
        emit_jrcxz(e, 5);
        struct stub *waiting = work_slow_stub(w, n, emit_jump(e));
        waiting->rcx_moved = true;
        emit_mov_reg(e, CPU_RCX, w->t[2]);
        emit_interrupt_flag(w, FLAG_IF);
        work_resume_here(w, waiting);
}

/* Code that another vCPU changed is asked for; without, decoded code is as new as memory. The next
 * instruction is in another block. */
static void emit_serialize(struct work *w, unsigned n)
{
        uint32_t exit = work_exit(w, EXIT_HELPER, n, w->at[n + 1]);
        struct stub *waiting = emit_zero_check(w, FIELD(pending), exit, w->live[n]);
        waiting->helper = true;
        work_resume_here(w, waiting);
}

static void emit_lea_rip(struct work *w, unsigned n)
{
        const struct insn *i = &w->block->steps[n].i;
        emit_gs(&w->e, EMIT_LOAD, i->reg, FIELD(page_linear));
        emit_lea(&w->e, i->reg, i->reg, EMIT_NO_REG, 0, (int32_t)(w->at[n + 1] + i->disp));
}

const struct stub *emit_push_check(struct work *w, unsigned n)
{
        emit_lea(&w->e, w->t[0], CPU_RSP, EMIT_NO_REG, 0, -8);
        return emit_check(w, n, 8, true);
}

static void emit_push(struct work *w, unsigned n)
{
        const struct insn *i = &w->block->steps[n].i;
        struct emitter *e = &w->e;
        const struct stub *s = emit_push_check(w, n);
        if (w->forms[n] == FORM_PUSH) {
                emit_mov(e, EMIT_STORE, i->rm, w->t[1], w->t[0]);
        } else {
                emit1(e, 0x48 | emit_rex(0, w->t[1], w->t[0])); /* mov qword, imm32 */
                emit1(e, 0xc7);
                emit_memory(e, 0, w->t[1], w->t[0], 0, 0);
                emit4(e, (uint32_t)i->imm);
        }
        emit_lea(e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, -8);
        work_resume_here(w, s);
}

/* The value waits in `target`. */
static void emit_push_memory(struct work *w, unsigned n)
{
        struct emitter *e = &w->e;
        unsigned a = w->t[0], b = w->t[1];
        emit_address(w, n);
        const struct stub *from = emit_check(w, n, 8, false);
        emit_mov(e, EMIT_LOAD, a, b, a);
        emit_gs(e, EMIT_STORE, a, FIELD(target));
        const struct stub *to = emit_push_check(w, n);
        emit_lea(e, a, a, b, 0, 0);
        emit_gs(e, EMIT_LOAD, b, FIELD(target));
        emit_mov(e, EMIT_STORE, b, a, EMIT_NO_REG);
        emit_lea(e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, -8);
        work_resume_here(w, from);
        work_resume_here(w, to);
}

/* Arithmetic flags come from the host's by way of its stack, the others from `s`; none of
 * them is touched. */
static void emit_pushf(struct work *w, unsigned n)
{
        struct emitter *e = &w->e;
        unsigned a = w->t[0], b = w->t[1], c = w->t[2];
        const struct stub *s = emit_push_check(w, n);
        emit_lea(e, a, a, b, 0, 0);
        emit_mov_reg(e, b, CPU_RSP);
        emit_gs(e, EMIT_LOAD, CPU_RSP, FIELD(host_rsp));
        emit1(e, 0x9c); /* pushfq; pop c */
        if (c & 8)
                emit1(e, 0x41);
        emit1(e, 0x58 | (c & 7));
        emit_mov_reg(e, CPU_RSP, b);
        emit_bits_gs(e, EMIT_PEXT, c, c, FIELD(arithmetic_bits));
        emit_bits_gs(e, EMIT_PDEP, c, c, FIELD(arithmetic_bits));
        emit_gs(e, EMIT_LOAD, b, FIELD(s.rflags));
        emit_bits_gs(e, EMIT_PEXT, b, b, FIELD(pushed_bits));
        emit_bits_gs(e, EMIT_PDEP, b, b, FIELD(pushed_bits));
        emit_lea(e, b, b, c, 0, 0);
        emit_mov(e, EMIT_STORE, b, a, EMIT_NO_REG);
        emit_lea(e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, -8);
        work_resume_here(w, s);
}

const struct stub *emit_pop_check(struct work *w, unsigned n, unsigned from)
{
        emit_mov_reg(&w->e, w->t[0], from);
        return emit_check(w, n, 8, false);
}

static void emit_pop(struct work *w, unsigned n)
{
        const struct stub *s = emit_pop_check(w, n, CPU_RSP);
        unsigned to = w->block->steps[n].i.rm;
        emit_mov(&w->e, EMIT_LOAD, to, w->t[1], w->t[0]);
        if (to != CPU_RSP)
                emit_lea(&w->e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, 8);
        work_resume_here(w, s);
}

static void emit_leave(struct work *w, unsigned n)
{
        const struct stub *s = emit_pop_check(w, n, CPU_RBP);
        emit_lea(&w->e, CPU_RSP, CPU_RBP, EMIT_NO_REG, 0, 8);
        emit_mov(&w->e, EMIT_LOAD, CPU_RBP, w->t[1], w->t[0]);
        work_resume_here(w, s);
}

/* RCX = 0 where that many elements from offset t[0] of a page on are all in it; there are not too
 * many to tell. */
static void emit_within_page(struct work *w, unsigned shift)
{
        emit_lea(&w->e, CPU_RCX, w->t[0], CPU_RCX, shift, -1);
        emit_pext_gs(&w->e, CPU_RCX, CPU_RCX, FIELD(page_bits));
}

/* The same of 1 to 4096 elements, upwards; t[2] is RCX, t[0] is lost. */
static void emit_string_checks(struct work *w, unsigned shift)
{
        struct emitter *e = &w->e;
        unsigned a = w->t[0];
        emit_within_page(w, shift);
        emit_lea(e, a, w->t[2], EMIT_NO_REG, 0, -1);
        emit_pext_gs(e, a, a, FIELD(page_bits));
        emit_lea(e, CPU_RCX, CPU_RCX, a, 0, 0);
        emit_gs(e, EMIT_LOAD, a, FIELD(s.rflags));
        emit_pext_gs(e, a, a, FIELD(direction_bits));
        emit_lea(e, CPU_RCX, CPU_RCX, a, 0, 0);
}

/* Goes on where RCX is zero, with what it was, which is in t[2]; else slowly. */
static const struct stub *emit_string_choice(struct work *w, unsigned n)
{
        emit_jrcxz(&w->e, 5);
        struct stub *far = work_slow_stub(w, n, emit_jump(&w->e));
        far->rcx_moved = true;
        emit_mov_reg(&w->e, CPU_RCX, w->t[2]);
        return far;
}

/* Upwards and 1 to 4096 bytes, all of them in the page of the first, by the host's own: the
 * bits that say otherwise are added up in RCX. Flags are not touched. */
static void emit_stos(struct work *w, unsigned n)
{
        struct emitter *e = &w->e;
        const struct step *st = &w->block->steps[n];
        unsigned a = w->t[0], b = w->t[1], c = w->t[2];
        unsigned shift = (unsigned)__builtin_ctz(st->size);
        emit_mov_reg(e, a, CPU_RDI);
        const struct stub *miss = emit_check(w, n, st->size, true);
        emit_mov_reg(e, c, CPU_RCX);
        emit_lea(e, b, b, a, 0, 0);
        emit_string_checks(w, shift);
        const struct stub *far = emit_string_choice(w, n);
        emit_mov_reg(e, a, CPU_RDI);
        emit_mov_reg(e, CPU_RDI, b);
        work_bytes(w, st->bytes, st->i.length);
        emit_lea(e, CPU_RDI, a, c, shift, 0);
        work_resume_here(w, miss);
        work_resume_here(w, far);
}

/* The same with a source that is all in one page; its host address waits in `target`, RDI where
 * temporaries wait. */
static void emit_movs(struct work *w, unsigned n)
{
        struct emitter *e = &w->e;
        const struct step *st = &w->block->steps[n];
        unsigned a = w->t[0], b = w->t[1], c = w->t[2];
        unsigned shift = (unsigned)__builtin_ctz(st->size);
        const struct stub *slow[4];
        emit_mov_reg(e, a, CPU_RSI);
        slow[0] = emit_check(w, n, st->size, false);
        emit_mov_reg(e, c, CPU_RCX);
        emit_lea(e, b, b, a, 0, 0);
        emit_gs(e, EMIT_STORE, b, FIELD(target));
        emit_within_page(w, shift);
        slow[1] = emit_string_choice(w, n);
        emit_mov_reg(e, a, CPU_RDI);
        slow[2] = emit_check(w, n, st->size, true);
        emit_mov_reg(e, c, CPU_RCX);
        emit_lea(e, b, b, a, 0, 0);
        emit_string_checks(w, shift);
        slow[3] = emit_string_choice(w, n);
        emit_mov_reg(e, a, CPU_RSI);
        emit_gs(e, EMIT_STORE, CPU_RDI, GPR(CPU_RDI));
        emit_mov_reg(e, CPU_RDI, b);
        emit_gs(e, EMIT_LOAD, CPU_RSI, FIELD(target));
        work_bytes(w, st->bytes, st->i.length);
        emit_lea(e, CPU_RSI, a, c, shift, 0);
        emit_gs(e, EMIT_LOAD, CPU_RDI, GPR(CPU_RDI));
        emit_lea(e, CPU_RDI, CPU_RDI, c, shift, 0);
        for (unsigned k = 0; k < 4; k++)
                work_resume_here(w, slow[k]);
}

static void emit_nothing(struct work *w, unsigned n)
{
        (void)w, (void)n;
}

static void (*const emitters[])(struct work *w, unsigned n) = {
        [FORM_COPY] = emit_copy,       [FORM_MEMORY] = emit_memory_step,
        [FORM_BITS] = emit_bits,       [FORM_LEA_RIP] = emit_lea_rip,
        [FORM_NOTHING] = emit_nothing, [FORM_PUSH] = emit_push,
        [FORM_PUSH_IMM] = emit_push,   [FORM_PUSH_MEM] = emit_push_memory,
        [FORM_PUSHF] = emit_pushf,     [FORM_POP] = emit_pop,
        [FORM_LEAVE] = emit_leave,     [FORM_STOS] = emit_stos,
        [FORM_MOVS] = emit_movs,       [FORM_HELPER] = emit_helper,
        [FORM_JMP] = emit_jmp,         [FORM_JCC] = emit_jcc,
        [FORM_CALL] = emit_call,       [FORM_RET] = emit_ret,
        [FORM_JMP_IND] = emit_jmp_ind, [FORM_CALL_IND] = emit_call,
        [FORM_END] = emit_helper,      [FORM_VZERO] = emit_vzero,
        [FORM_SWAPGS] = emit_swapgs,   [FORM_CLI] = emit_cli,
        [FORM_STI] = emit_sti,         [FORM_SERIALIZE] = emit_serialize,
};
_Static_assert(sizeof(emitters) / sizeof(emitters[0]) == FORM_COUNT, "one emitter per form");

void emit_step(struct work *w, unsigned n)
{
        emitters[w->forms[n]](w, n);
}
