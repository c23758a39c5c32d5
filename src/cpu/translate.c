/* From a decoded block to host code. See translate.h for the idea. */
#include "cpu/profile.h"
#include "cpu/translate_work.h"

#define ROOM (48u << 10) /* more than the largest block takes, stubs too */

static void emit_steps(struct work *w)
{
        struct merged *m = w->merged, *end = m + w->merged_length;
        for (unsigned n = 0; n < w->length; n++) {
                if (m < end && m->first == n) {
                        emit_merged(w, m);
                        n = m++->last;
                        continue;
                }
                if (form_leaves(w->forms[n]) && w->forms[n] != FORM_END)
                        emit_x87_pointers(w);
                emit_step(w, n);
        }
}

static void emit_stub(struct work *w, struct stub *s)
{
        struct emitter *e = &w->e;
        const struct translator *t = &w->cpu->translator;
        if (s->from)
                emit_patch(s->from, e->at);
        if (s->rcx_moved)
                emit_mov_reg(e, CPU_RCX, w->t[2]);
        if (s->loads_vectors) {
                emit_gs_set64(e, FIELD(back), (uintptr_t)t->executable + w->after_checks);
                emit_gs_jump(e, FIELD(vec_loader));
                return;
        }
        if (s->goes_on) {
                emit_recovered(w);
                return;
        }
        if (s->has_target)
                emit_gs(e, EMIT_STORE, s->target, FIELD(target));
        unsigned n = work_exit_of(w, s)->step;
        if (w->recovers && n > w->flags_writer)
                emit_recovery(w, w->t[2], n, s->has_target);
        work_restore_temporaries(w);
        if (s->chains) {
                uint8_t *on = emit_jump(e);
                emit_patch(on, e->at);
                work_exit_of(w, s)->patch_plain = (uint32_t)(on - t->writable);
        }
        emit_gs_set32(e, FIELD(exit_index), s->exit);
        emit_patch(emit_jump(e), t->writable + (s->helper ? t->helper : t->leave));
}

/* Behind those of other blocks, so that what runs lies together. */
static void emit_stubs(struct work *w)
{
        struct translator *t = &w->cpu->translator;
        uint32_t starts[STUBS];
        w->e.at = t->writable + TRANSLATE_STUBS + t->stubs_used;
        for (unsigned k = 0; k < w->stubs_length; k++) {
                starts[k] = work_offset(w);
                emit_stub(w, &w->stubs[k]);
        }
        for (unsigned k = 0; k < w->faults_length; k++)
                t->faults[t->faults_length++] = (struct translated_fault){
                        w->faults[k].at, starts[w->faults[k].stub]
                };
        t->stubs_used = work_offset(w) - TRANSLATE_STUBS;
}

static bool has_room(const struct translator *t)
{
        return t->used + ROOM <= TRANSLATE_STUBS &&
               TRANSLATE_STUBS + t->stubs_used + ROOM <= TRANSLATE_CODE_BYTES &&
               t->exits_length + STUBS + BLOCK_STEPS <= TRANSLATE_EXITS &&
               t->faults_length + FAULTS <= TRANSLATE_FAULTS;
}

/* All ways in; what has to be in registers is there behind it. */
static void emit_entries(struct work *w)
{
        struct block *b = w->block;
        b->uses = (w->vectors ? BLOCK_VECTORS : 0) | (w->x87 ? BLOCK_X87 : 0) |
                  (w->live[0] ? BLOCK_FLAGS : 0) | BLOCK_ALONE;
        b->temporaries = w->spilled;
        b->common = work_offset(w);
        if (w->spilled != TRANSLATE_COMMON)
                work_move_registers(w, EMIT_LOAD, TRANSLATE_COMMON);
        b->code = work_offset(w);
        work_move_registers(w, EMIT_STORE, w->spilled);
        b->spilled = b->warm = work_offset(w);
        if (w->spilled == TRANSLATE_COMMON)
                b->common = b->spilled;
        if (w->x87) {
                uint32_t exit = work_exit(w, EXIT_LOAD_X87, 0, w->at[0]);
                emit_zero_check(w, FIELD(x87_parked), exit, w->live[0])->helper = true;
                w->cpu->translator.exits[exit].resume = work_offset(w);
        }
        if (w->vectors) {
                emit_zero_check(w, FIELD(vec_parked), 0, w->live[0])->loads_vectors = true;
                if (!w->x87)
                        b->warm = work_offset(w);
        }
        w->after_checks = work_offset(w);
        w->body = w->e.at;
        if (unlikely(w->cpu->profile))
                translate_count(w);
}

bool cpu_translate_block(struct cpu *cpu, struct block *block)
{
        struct translator *t = &cpu->translator;
        if (!has_room(t)) {
                cpu_code_flush(cpu);
                return false;
        }
        struct work w;
        work_init(&w, cpu, block);
        t->used = (t->used + 15) & ~15u;
        block->key = cpu->translate_key;
        w.e.at = t->writable + t->used;
        translate_plan(&w);
        emit_entries(&w);
        emit_steps(&w);
        emit_x87_pointers(&w);
        if (!form_leaves(w.forms[w.length - 1]))
                emit_goto(&w, w.length - 1, w.at[w.length], translate_flags_at(&w, w.at[w.length]));
        for (unsigned k = 0; k < w.merged_length; k++)
                emit_unmerged(&w, &w.merged[k]);
        cpu_code_memory_fill(t, work_offset(&w));
        uint32_t stubs = TRANSLATE_STUBS + t->stubs_used;
        emit_stubs(&w);
        cpu->counters.blocks_translated++;
        if (unlikely(cpu->profile)) {
                cpu_profile_translated(cpu, t->executable + block->common, t->used - block->common);
                cpu_profile_translated(cpu, t->executable + stubs, work_offset(&w) - stubs);
        }
        return true;
}

void cpu_translate_bridge(struct cpu *cpu, const struct translated_exit *x)
{
        struct translator *t = &cpu->translator;
        struct block *from = x->block;
        if (!has_room(t))
                return;
        struct work w;
        work_init(&w, cpu, from);
        bool few = __builtin_popcount(from->temporaries) < (int)TEMPORARIES;
        w.spilled = few ? TRANSLATE_COMMON : from->temporaries;
        unsigned found = 0;
        for (unsigned r = 16; r-- > 0;)
                if (w.spilled >> r & 1)
                        w.t[found++] = (uint8_t)r;
        t->used = (t->used + 15) & ~15u;
        uint8_t *start = w.e.at = t->writable + t->used;
        if (few)
                work_move_registers(&w, EMIT_STORE, w.spilled);
        emit_gs(&w.e, EMIT_LOAD, w.t[0], FIELD(page_linear));
        emit_lea(&w.e, w.t[0], w.t[0], EMIT_NO_REG, 0, x->offset);
        emit_indirect(&w, x->step, w.t[0], 0, false);
        cpu_code_memory_fill(t, work_offset(&w));
        emit_stubs(&w);
        emit_patch(t->writable + (few ? x->patch_plain : x->patch), start);
}
