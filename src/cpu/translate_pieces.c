/* What the emission of every step is made of: exits and stubs, the look at the TLB, addresses.
 * See translate_work.h. */
#include "cpu/exec.h"
#include "cpu/translate_work.h"

#define CC_ABOVE 7

uint32_t work_offset(const struct work *w)
{
        return (uint32_t)(w->e.at - w->cpu->translator.writable);
}

void work_move_registers(struct work *w, unsigned opcode, uint16_t set)
{
        for (unsigned r = 0; r < 16; r++)
                if (set >> r & 1)
                        emit_gs(&w->e, opcode, r, GPR(r));
}

void work_restore_temporaries(struct work *w)
{
        work_move_registers(w, EMIT_LOAD, w->spilled);
}

uint32_t work_exit(struct work *w, enum exit_kind kind, unsigned step, int32_t offset)
{
        struct translator *t = &w->cpu->translator;
        uint32_t index = t->exits_length++;
        t->exits[index] = (struct translated_exit){
                .block = w->block,
                .step = (uint8_t)step,
                .offset = offset,
                .kind = (uint8_t)kind,
                .last = step + 1 == w->length,
                .x87 = (uint8_t)(w->x87_last ? w->x87_last - w->block->steps + 1 : 0)
        };
        return index;
}

struct translated_exit *work_exit_of(struct work *w, const struct stub *s)
{
        return &w->cpu->translator.exits[s->exit];
}

struct stub *work_stub(struct work *w, uint8_t *from, uint32_t exit)
{
        struct stub *s = &w->stubs[w->stubs_length++];
        *s = (struct stub){ .from = from, .exit = exit };
        return s;
}

struct stub *work_slow_stub(struct work *w, unsigned n, uint8_t *from)
{
        struct stub *s = work_stub(w, from, work_exit(w, EXIT_HELPER, n, w->at[n + 1]));
        s->helper = true;
        return s;
}

void work_resume_here(struct work *w, const struct stub *s)
{
        work_exit_of(w, s)->resume = work_offset(w);
}

void work_note_fault(struct work *w, const struct stub *s)
{
        w->faults[w->faults_length++] = (struct translated_fault){ work_offset(w),
                                                                   (uint32_t)(s - w->stubs) };
}

void work_bytes(struct work *w, const uint8_t *bytes, unsigned size)
{
        memcpy(w->e.at, bytes, size);
        w->e.at += size;
}

uint8_t *emit_look_up(struct work *w, unsigned n, unsigned size, bool write)
{
        struct emitter *e = &w->e;
        unsigned a = w->t[0], b = w->t[1];
        unsigned context = w->block->key & 3;
        uint32_t table = FIELD(tlbs) + context * (uint32_t)sizeof(struct tlb);
        uint32_t tags = table + (uint32_t)(write ? offsetof(struct tlb, write)
                                                 : offsetof(struct tlb, read));
        uint32_t hosts = table + (uint32_t)offsetof(struct tlb, host);
        uint8_t *miss;
        if (!w->live[n]) {
                emit_rotate(e, b, a, PAGE_SHIFT);
                emit_and(e, b, TLB_ENTRIES - 1);
                emit_gs_index(e, EMIT_ADD, a, b, tags);
                emit1(e, 0x48 | (a & 8 ? 1 : 0)); /* cmp a, 4096 - size */
                emit1(e, 0x81);
                emit1(e, 0xf8 | (a & 7));
                emit4(e, PAGE_SIZE_BYTES - size);
                miss = emit_jump_if(e, CC_ABOVE);
                emit_gs_index(e, EMIT_LOAD, b, b, hosts);
                return miss;
        }
        emit_mov_reg(e, w->t[2], CPU_RCX);
        emit_pext_gs(e, b, a, FIELD(page_number_bits));
        emit_gs_index(e, EMIT_LOAD, CPU_RCX, b, tags);
        emit_lea(e, a, a, CPU_RCX, 0, 0);
        emit_lea(e, CPU_RCX, a, EMIT_NO_REG, 0, (int32_t)size - 1);
        emit_pext_gs(e, CPU_RCX, CPU_RCX, FIELD(page_bits));
        emit_gs_index(e, EMIT_LOAD, b, b, hosts);
        emit_jrcxz(e, 5);
        miss = emit_jump(e);
        emit_mov_reg(e, CPU_RCX, w->t[2]);
        return miss;
}

struct stub *emit_check(struct work *w, unsigned n, unsigned size, bool write)
{
        struct stub *s = work_slow_stub(w, n, emit_look_up(w, n, size, write));
        s->rcx_moved = w->live[n];
        return s;
}

void emit_address_of(struct work *w, const struct insn *i, int32_t disp)
{
        struct emitter *e = &w->e;
        unsigned a = w->t[0], b = w->t[1];
        if (i->base == BASE_RIP) {
                emit_gs(e, EMIT_LOAD, a, FIELD(page_linear));
                emit_lea(e, a, a, EMIT_NO_REG, 0, disp);
        } else if (i->adsize == 8 && i->base < 16 && i->index == REG_NONE && disp == 0) {
                emit_mov_reg(e, a, i->base);
        } else {
                if (i->adsize == 4)
                        emit1(e, 0x67);
                emit_lea(e, a, i->base, i->index, i->scale, disp);
        }
        if (i->seg == CPU_FS || i->seg == CPU_GS) {
                emit_gs(e, EMIT_LOAD, b, FIELD(seg_base) + 8u * i->seg);
                emit_lea(e, a, a, b, 0, 0);
        }
}

void emit_address(struct work *w, unsigned n)
{
        const struct insn *i = &w->block->steps[n].i;
        int64_t from = i->base == BASE_RIP ? w->at[n + 1] : 0;
        emit_address_of(w, i, (int32_t)(from + i->disp));
}

void emit_rewritten(struct work *w, const struct step *st, unsigned base, unsigned index,
                    int32_t disp)
{
        const struct insn *i = &st->i;
        const uint8_t *in = st->bytes;
        struct emitter *e = &w->e;
        unsigned at = 0, extended = emit_rex(0, base, index);
        for (;; at++) {
                uint8_t p = in[at];
                bool dropped = p == 0x67 || p == 0x2e || p == 0x36 || p == 0x3e || p == 0x26 ||
                               p == 0x64 || p == 0x65 || (p & 0xf0) == 0x40;
                if (p == 0x66 || p == 0xf2 || p == 0xf3 || p == 0xf0)
                        emit1(e, p);
                else if (!dropped)
                        break;
        }
        if (i->vex) {
                uint8_t r = in[at + 1] & 0x80,
                        rest = in[at] == 0xc5 ? in[at + 1] & 0x7f : in[at + 2];
                emit1(e, 0xc4);
                emit1(e, r | (~extended << 5 & 0x60) | i->map);
                emit1(e, rest);
                emit1(e, i->code);
        } else {
                unsigned rex = (i->rex & 0xcu) | extended;
                if (rex || i->rex)
                        emit1(e, 0x40 | rex);
                work_bytes(w, in + at, i->modrm_at - at);
        }
        emit_memory(e, i->modrm >> 3 & 7, base, index, 0, disp);
        unsigned tail = i->modrm_at + 1u + ((i->modrm & 7) == 4) + i->disp_size;
        work_bytes(w, in + tail, i->length - tail);
}

struct stub *emit_zero_check(struct work *w, uint32_t offset, uint32_t exit, bool flags)
{
        struct emitter *e = &w->e;
        if (!flags) {
                emit_gs_is_zero(e, offset);
                return work_stub(w, emit_jump_if(e, CC_ZERO ^ 1), exit);
        }
        emit_mov_reg(e, w->t[2], CPU_RCX);
        emit_gs32(e, EMIT_LOAD, CPU_RCX, offset);
        emit_jrcxz(e, 5);
        struct stub *s = work_stub(w, emit_jump(e), exit);
        s->rcx_moved = true;
        emit_mov_reg(e, CPU_RCX, w->t[2]);
        return s;
}
