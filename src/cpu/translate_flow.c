/* Ways out of a block: branches, calls, returns. See translate_work.h. */
#include "cpu/translate_work.h"

/* Past the dispatcher unless it is wanted. */
static void emit_poll(struct work *w, uint32_t exit, bool flags)
{
        emit_zero_check(w, FIELD(poll), exit, flags);
}

#define PLACE_REGISTER 10u /* of the common temporaries */
#define LINK_REGISTER  9u  /* the same: where flags are made again; see translator.recover */

/* From this block's temporaries to the common ones, with the place in t[1]. */
static void emit_common(struct work *w)
{
        work_move_registers(w, EMIT_STORE, TRANSLATE_COMMON & ~w->spilled);
        if (w->t[1] != PLACE_REGISTER)
                emit_mov_reg(&w->e, PLACE_REGISTER, w->t[1]);
        work_move_registers(w, EMIT_LOAD, w->spilled & ~TRANSLATE_COMMON);
}

uint32_t translate_places(const struct work *w)
{
        return FIELD(jump_tables) + (w->block->key & 3u) * (uint32_t)sizeof(struct jump_table);
}

/* t[1] = place of the target; leaves by `exit` where it is not there. Flags that cannot be made
 * again are kept, with the target in t[0]. */
static void emit_find_place(struct work *w, uint32_t exit, unsigned target)
{
        struct emitter *e = &w->e;
        unsigned b = w->t[1], c = w->t[2];
        uint32_t negated = translate_places(w) + (uint32_t)offsetof(struct jump_place, negated);
        struct stub *miss;
        if (w->recovers) {
                emit_bits_gs(e, EMIT_PDEP, b, target, FIELD(jump_bits));
                emit_mov_reg(e, c, target);
                emit_gs_at(e, EMIT_ADD, c, b, negated);
                miss = work_stub(w, emit_jump_if(e, CC_ZERO ^ 1), exit);
        } else {
                emit_mov_reg(e, c, CPU_RCX);
                emit_bits_gs(e, EMIT_PDEP, b, target, FIELD(jump_bits));
                emit_gs_at(e, EMIT_LOAD, CPU_RCX, b, negated);
                emit_lea(e, CPU_RCX, CPU_RCX, target, 0, 0);
                emit_jrcxz(e, 5);
                miss = work_stub(w, emit_jump(e), exit);
                miss->rcx_moved = true;
                emit_mov_reg(e, CPU_RCX, c);
        }
        miss->has_target = true;
        miss->target = (uint8_t)target;
}

void emit_recovered(struct work *w)
{
        emit_recovery(w, LINK_REGISTER, w->length - 1, true);
        emit_gs_at_jump(&w->e, PLACE_REGISTER,
                        translate_places(w) + (uint32_t)offsetof(struct jump_place, common));
}

void emit_indirect(struct work *w, unsigned n, unsigned target, uint16_t pop_bytes, bool pushed)
{
        struct emitter *e = &w->e;
        unsigned a = w->t[0], b = w->t[1];
        uint32_t places = translate_places(w);
        uint32_t index = work_exit(w, EXIT_INDIRECT, n, 0);
        w->cpu->translator.exits[index].pop_bytes = pop_bytes;
        w->cpu->translator.exits[index].pushed = pushed;
        emit_find_place(w, index, target);
        emit_gs_at(e, EMIT_LOAD, a, b, places + (uint32_t)offsetof(struct jump_place, page));
        emit_gs(e, EMIT_STORE, a, FIELD(page_linear));
        emit_common(w);
        if (w->recovers) {
                emit_lea_code(e, LINK_REGISTER);
                work_stub(w, e->at - 4, index)->goes_on = true;
        }
        emit_gs_at_jump(e, PLACE_REGISTER,
                        places + (uint32_t)(w->recovers ? offsetof(struct jump_place, clean)
                                                        : offsetof(struct jump_place, common)));
}

/* Leads the jump at `from` out of the block to `offset` of the page. */
static void chain(struct work *w, unsigned n, uint8_t *from, int32_t offset)
{
        uint32_t index = work_exit(w, EXIT_DIRECT, n, offset);
        w->block->uses &= (uint8_t)~BLOCK_ALONE;
        w->cpu->translator.exits[index].patch = (uint32_t)(from - w->cpu->translator.writable);
        work_stub(w, from, index)->chains = true;
}

/* Goes on at `offset` of the page or beyond it. */
void emit_goto(struct work *w, unsigned n, int32_t offset, uint16_t live)
{
        struct emitter *e = &w->e;
        if (!translate_same_page(w, offset)) {
                emit_gs(e, EMIT_LOAD, w->t[0], FIELD(page_linear));
                emit_lea(e, w->t[0], w->t[0], EMIT_NO_REG, 0, offset);
                emit_indirect(w, n, w->t[0], 0, w->forms[n] == FORM_CALL);
                return;
        }
        if (offset <= w->at[n] && !translate_polls_later(w, offset)) /* backwards */
                emit_poll(w, work_exit(w, EXIT_DIRECT, n, offset), live);
        chain(w, n, emit_jump(e), offset);
}

/* Back to the start of this very block, registers as they are. */
static void emit_loop(struct work *w, unsigned n)
{
        emit_poll(w, work_exit(w, EXIT_DIRECT, n, w->at[0]), w->live[0]);
        emit_patch(emit_jump(&w->e), w->body);
}

void emit_jcc(struct work *w, unsigned n)
{
        struct emitter *e = &w->e;
        unsigned condition = w->block->steps[n].i.code & 15;
        int32_t target = translate_target(w), next = w->at[n + 1];
        bool polls = target <= w->at[n] && !translate_polls_later(w, target);
        if (!w->loops && translate_same_page(w, target) && !polls) {
                chain(w, n, emit_jump_if(e, condition), target);
        } else {
                uint8_t *out = emit_jump_if(e, condition ^ 1);
                if (w->loops)
                        emit_loop(w, n);
                else
                        emit_goto(w, n, target, translate_flags_at(w, target));
                emit_patch(out, e->at);
        }
        emit_goto(w, n, next, translate_flags_at(w, next));
}

void emit_call(struct work *w, unsigned n)
{
        struct emitter *e = &w->e;
        bool indirect = w->forms[n] == FORM_CALL_IND;
        const struct insn *i = &w->block->steps[n].i;
        unsigned a = w->t[0], b = w->t[1];
        if (indirect && i->is_mem) {
                emit_address(w, n);
                emit_check(w, n, 8, false);
                emit_mov(e, EMIT_LOAD, a, b, a);
                emit_gs(e, EMIT_STORE, a, FIELD(target));
        } else if (indirect) {
                emit_gs(e, EMIT_STORE, i->rm, FIELD(target));
        }
        emit_push_check(w, n);
        emit_lea(e, a, a, b, 0, 0);
        emit_gs(e, EMIT_LOAD, b, FIELD(page_linear));
        emit_lea(e, b, b, EMIT_NO_REG, 0, w->at[n + 1]);
        emit_mov(e, EMIT_STORE, b, a, EMIT_NO_REG);
        emit_lea(e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, -8);
        if (!indirect) {
                emit_goto(w, n, translate_target(w), w->live[n + 1]);
                return;
        }
        emit_gs(e, EMIT_LOAD, a, FIELD(target));
        emit_indirect(w, n, a, 0, true);
}

void emit_ret(struct work *w, unsigned n)
{
        uint16_t bytes = (uint16_t)(8 + (uint16_t)w->block->steps[n].i.imm);
        emit_pop_check(w, n, CPU_RSP);
        emit_mov(&w->e, EMIT_LOAD, w->t[0], w->t[1], w->t[0]);
        emit_lea(&w->e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, bytes);
        emit_indirect(w, n, w->t[0], bytes, false);
}

void emit_jmp_ind(struct work *w, unsigned n)
{
        const struct insn *i = &w->block->steps[n].i;
        unsigned target = w->t[0];
        if (i->is_mem) {
                emit_address(w, n);
                emit_check(w, n, 8, false);
                emit_mov(&w->e, EMIT_LOAD, w->t[0], w->t[1], w->t[0]);
        } else if (w->recovers) {
                target = i->rm;
        } else {
                emit_mov_reg(&w->e, w->t[0], i->rm);
        }
        emit_indirect(w, n, target, 0, false);
}

void emit_jmp(struct work *w, unsigned n)
{
        int32_t target = translate_target(w);
        if (w->loops)
                emit_loop(w, n);
        else
                emit_goto(w, n, target, translate_flags_at(w, target));
}
