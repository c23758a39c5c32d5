/* Runs of steps that share one look at the TLB, as emitted: t[1] + t[0] is the host's address of
 * the run's first byte. Which they are translate_merge.c decided. */
#include "cpu/exec.h"
#include "cpu/translate_work.h"

static void emit_merged_memory(struct work *w, unsigned n)
{
        const struct step *st = &w->block->steps[n];
        work_note_state(w, st);
        if (translate_can_fault(&st->i)) {
                const struct stub *s = work_slow_stub(w, n, NULL);
                w->fault_exits[n] = s->exit;
                work_note_fault(w, s);
        }
        emit_rewritten(w, st, w->t[1], w->t[0], w->place[n]);
}

static void emit_merged_push(struct work *w, unsigned n)
{
        const struct insn *i = &w->block->steps[n].i;
        struct emitter *e = &w->e;
        if (w->forms[n] == FORM_PUSH) {
                emit_mov_place(e, EMIT_STORE, i->rm, w->t[1], w->t[0], w->place[n]);
        } else {
                emit1(e, 0x48 | emit_rex(0, w->t[1], w->t[0])); /* mov qword, imm32 */
                emit1(e, 0xc7);
                emit_memory(e, 0, w->t[1], w->t[0], 0, w->place[n]);
                emit4(e, (uint32_t)i->imm);
        }
        emit_lea(e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, -8);
}

static void emit_merged_load(struct work *w, unsigned n, unsigned to, int32_t pop_bytes)
{
        emit_mov_place(&w->e, EMIT_LOAD, to, w->t[1], w->t[0], w->place[n]);
        emit_lea(&w->e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, pop_bytes);
}

static void emit_merged_call(struct work *w, unsigned n)
{
        struct emitter *e = &w->e;
        unsigned c = w->t[2];
        emit_gs(e, EMIT_LOAD, c, FIELD(page_linear));
        emit_lea(e, c, c, EMIT_NO_REG, 0, w->at[n + 1]);
        emit_mov_place(e, EMIT_STORE, c, w->t[1], w->t[0], w->place[n]);
        emit_lea(e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, -8);
        emit_goto(w, n, translate_target(w), w->live[n + 1]);
}

static void emit_merged_step(struct work *w, unsigned n)
{
        const struct insn *i = &w->block->steps[n].i;
        uint16_t bytes = (uint16_t)(8 + (uint16_t)i->imm);
        switch (w->forms[n]) {
        case FORM_MEMORY:
                emit_merged_memory(w, n);
                return;
        case FORM_PUSH:
        case FORM_PUSH_IMM:
                emit_merged_push(w, n);
                return;
        case FORM_POP:
                emit_merged_load(w, n, i->rm, 8);
                return;
        case FORM_CALL:
                emit_merged_call(w, n);
                return;
        case FORM_RET:
                emit_merged_load(w, n, w->t[0], bytes);
                emit_indirect(w, n, w->t[0], bytes, false);
                return;
        default:
                emit_step(w, n);
                return;
        }
}

void emit_merged(struct work *w, struct merged *m)
{
        const struct insn *i = &w->block->steps[m->first].i;
        bool stack = w->forms[m->first] != FORM_MEMORY;
        m->x87_last = w->x87_last;
        m->rcx_moved = w->live[m->first];
        if (stack)
                emit_lea(&w->e, w->t[0], CPU_RSP, EMIT_NO_REG, 0, m->low);
        else
                emit_address_of(w, i, m->low);
        m->miss = emit_look_up(w, m->first, m->size, m->write);
        for (unsigned n = m->first; n <= m->last; n++)
                emit_merged_step(w, n);
        m->end = w->e.at;
}

void emit_unmerged(struct work *w, const struct merged *m)
{
        struct translated_exit *exits = w->cpu->translator.exits;
        emit_patch(m->miss, w->e.at);
        if (m->rcx_moved)
                emit_mov_reg(&w->e, CPU_RCX, w->t[2]);
        w->x87_last = m->x87_last;
        w->uppers_noted = false;
        for (unsigned n = m->first; n <= m->last; n++) {
                emit_step(w, n);
                if (w->fault_exits[n])
                        exits[w->fault_exits[n]].resume = work_offset(w);
        }
        if (!form_leaves(w->forms[m->last]))
                emit_patch(emit_jump(&w->e), m->end);
}
