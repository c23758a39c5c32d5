/* Translated blocks that count themselves; see profile.h. */
#include "cpu/profile.h"
#include "cpu/translate_work.h"

/* How often a step of its own looks at the TLB. */
static unsigned looks_of(const struct work *w, unsigned n)
{
        const struct insn *i = &w->block->steps[n].i;
        switch (w->forms[n]) {
        case FORM_MEMORY:
        case FORM_BITS:
        case FORM_PUSH:
        case FORM_PUSH_IMM:
        case FORM_POP:
        case FORM_LEAVE:
        case FORM_STOS:
        case FORM_CALL:
        case FORM_RET:
                return 1;
        case FORM_MOVS:
        case FORM_PUSH_MEM:
                return 2;
        case FORM_CALL_IND:
                return i->is_mem ? 2 : 1;
        case FORM_JMP_IND:
                return i->is_mem;
        default:
                return 0;
        }
}

static unsigned looks_of_all(const struct work *w)
{
        unsigned looks = 0;
        for (unsigned n = 0; n < w->length; n++)
                looks += looks_of(w, n);
        for (unsigned k = 0; k < w->merged_length; k++) {
                const struct merged *m = &w->merged[k];
                for (unsigned n = m->first; n <= m->last; n++)
                        looks -= looks_of(w, n);
                looks++;
        }
        return looks;
}

void translate_count(struct work *w)
{
        struct emitter *e = &w->e;
        enum form last = w->forms[w->length - 1];
        bool indirect = last == FORM_RET || last == FORM_JMP_IND || last == FORM_CALL_IND;
        const uint64_t *runs = cpu_profile_translating(w->cpu, w->block, w->length, looks_of_all(w),
                                                       indirect);
        unsigned a = w->t[0], b = w->t[1];
        emit1(e, 0x48 | a >> 3); /* mov a, address */
        emit1(e, 0xb8 | (a & 7));
        emit8(e, (uint64_t)(uintptr_t)runs);
        emit_mov(e, EMIT_LOAD, b, a, EMIT_NO_REG);
        emit_lea(e, b, b, EMIT_NO_REG, 0, 1);
        emit_mov(e, EMIT_STORE, b, a, EMIT_NO_REG);
}
