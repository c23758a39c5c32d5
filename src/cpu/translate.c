/* From a decoded block to host code. See translate.h for the idea. */
#include "cpu/exec.h"
#include "cpu/translate_work.h"

#define ROOM     (48u << 10) /* more than the largest block takes, stubs too */
#define CC_ABOVE 7
#define CC_ZERO  4

/* ---- pieces ---- */

static uint32_t offset_here(const struct work *w)
{
        return (uint32_t)(w->e.at - w->cpu->translator.writable);
}

static void move_registers(struct work *w, unsigned opcode, uint16_t set)
{
        for (unsigned r = 0; r < 16; r++)
                if (set >> r & 1)
                        emit_gs(&w->e, opcode, r, GPR(r));
}

static void restore_temporaries(struct work *w)
{
        move_registers(w, EMIT_LOAD, w->spilled);
}

static uint32_t new_exit(struct work *w, enum exit_kind kind, unsigned step, int32_t offset)
{
        struct translator *t = &w->cpu->translator;
        uint32_t index = t->exits_length++;
        t->exits[index] = (struct translated_exit){ .block = w->block,
                                                    .step = &w->block->steps[step],
                                                    .offset = offset,
                                                    .kind = (uint8_t)kind,
                                                    .last = step + 1 == w->length,
                                                    .x87 = w->x87_last };
        return index;
}

static struct translated_exit *exit_of(struct work *w, const struct stub *s)
{
        return &w->cpu->translator.exits[s->exit];
}

static struct stub *new_stub(struct work *w, uint8_t *from, uint32_t exit)
{
        struct stub *s = &w->stubs[w->stubs_length++];
        *s = (struct stub){ .from = from, .exit = exit };
        return s;
}

/* A way out of the main path into the interpreter's version of step `n`. */
static struct stub *slow_stub(struct work *w, unsigned n, uint8_t *from)
{
        struct stub *s = new_stub(w, from, new_exit(w, EXIT_HELPER, n, w->at[n + 1]));
        s->helper = true;
        return s;
}

/* t[0] is a linear address; afterwards t[1] + t[0] is the host's. The jump for where it is
 * not is returned; in front of it RCX was moved to t[2] where step `n` needs flags. */
static uint8_t *emit_look_up(struct work *w, unsigned n, unsigned size, bool write)
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
                emit_pext_gs(e, b, a, FIELD(page_number_bits));
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

/* The same; where it misses, the step is done slowly. */
static struct stub *emit_check(struct work *w, unsigned n, unsigned size, bool write)
{
        struct stub *s = slow_stub(w, n, emit_look_up(w, n, size, write));
        s->rcx_moved = w->live[n];
        return s;
}

/* t[0] = linear address of what `disp` is the displacement of; with BASE_RIP, that from
 * the page's start. */
static void emit_address_of(struct work *w, const struct insn *i, int32_t disp)
{
        struct emitter *e = &w->e;
        unsigned a = w->t[0], b = w->t[1];
        if (i->base == BASE_RIP) {
                emit_gs(e, EMIT_LOAD, a, FIELD(page_linear));
                emit_lea(e, a, a, EMIT_NO_REG, 0, disp);
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

/* The same of a step's memory operand. */
static void emit_address(struct work *w, unsigned n)
{
        const struct insn *i = &w->block->steps[n].i;
        int64_t from = i->base == BASE_RIP ? w->at[n + 1] : 0;
        emit_address_of(w, i, (int32_t)(from + i->disp));
}

/* The instruction about to be emitted may fault on the host. */
static void note_fault(struct work *w, const struct stub *s)
{
        w->faults[w->faults_length++] = (struct translated_fault){ offset_here(w),
                                                                   (uint32_t)(s - w->stubs) };
}

static void emit_bytes(struct work *w, const uint8_t *bytes, unsigned size)
{
        memcpy(w->e.at, bytes, size);
        w->e.at += size;
}

/* The guest's instruction with its memory operand replaced by [base + index + disp]. */
static void emit_rewritten(struct work *w, const struct step *st, unsigned base, unsigned index,
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
                emit_bytes(w, in + at, i->modrm_at - at);
        }
        emit_memory(e, i->modrm >> 3 & 7, base, index, 0, disp);
        unsigned tail = i->modrm_at + 1u + ((i->modrm & 7) == 4) + i->disp_size;
        emit_bytes(w, in + tail, i->length - tail);
}

/* FIP and FOP as the x87 instructions of the block leave them. */
static void emit_x87_pointers(struct work *w)
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

/* Keeps account of what the host's registers hold beside the general ones. */
static void note_state(struct work *w, const struct step *st)
{
        const struct insn *i = &st->i;
        if (i->op == OP_X87 && !x87_control(i))
                w->x87_last = st;
        if (i->vex && i->vex_l && i->row->properties & SSE && !w->uppers_noted) {
                emit_gs_set32(&w->e, FIELD(uppers), UPPERS_USED);
                w->uppers_noted = true;
        }
}

static void resume_here(struct work *w, const struct stub *s)
{
        exit_of(w, s)->resume = offset_here(w);
}

/* ---- steps ---- */

static void emit_helper(struct work *w, unsigned n)
{
        bool ends = w->forms[n] == FORM_END;
        uint32_t index = new_exit(w, EXIT_HELPER, n, w->at[n + 1]);
        restore_temporaries(w);
        emit_gs_set32(&w->e, FIELD(exit_index), index);
        emit_patch(emit_jump(&w->e), w->cpu->translator.writable + w->cpu->translator.helper);
        w->x87_last = NULL; /* the helper has put its pointers in place */
        if (!ends)
                w->cpu->translator.exits[index].resume = offset_here(w);
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
        note_state(w, st);
        if (translate_can_fault(&st->i))
                note_fault(w, s);
        emit_rewritten(w, st, w->t[1], w->t[0], 0);
        resume_here(w, s);
}

static void emit_copy(struct work *w, unsigned n)
{
        const struct step *st = &w->block->steps[n];
        if (!translate_can_fault(&st->i)) {
                note_state(w, st);
                emit_bytes(w, st->bytes, st->i.length);
                return;
        }
        const struct stub *s = slow_stub(w, n, NULL);
        note_fault(w, s);
        emit_bytes(w, st->bytes, st->i.length);
        resume_here(w, s);
}

static void emit_vzero(struct work *w, unsigned n)
{
        const struct step *st = &w->block->steps[n];
        emit_bytes(w, st->bytes, st->i.length);
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
        struct stub *waiting = slow_stub(w, n, emit_jump(e));
        waiting->rcx_moved = true;
        emit_mov_reg(e, CPU_RCX, w->t[2]);
        emit_interrupt_flag(w, FLAG_IF);
        resume_here(w, waiting);
}

static void emit_lea_rip(struct work *w, unsigned n)
{
        const struct insn *i = &w->block->steps[n].i;
        emit_gs(&w->e, EMIT_LOAD, i->reg, FIELD(page_linear));
        emit_lea(&w->e, i->reg, i->reg, EMIT_NO_REG, 0, (int32_t)(w->at[n + 1] + i->disp));
}

/* Checks the eight bytes that a push is about to write. */
static const struct stub *emit_push_check(struct work *w, unsigned n)
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
        resume_here(w, s);
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
        resume_here(w, from);
        resume_here(w, to);
}

static const struct stub *emit_pop_check(struct work *w, unsigned n, unsigned from)
{
        emit_lea(&w->e, w->t[0], from, EMIT_NO_REG, 0, 0);
        return emit_check(w, n, 8, false);
}

static void emit_pop(struct work *w, unsigned n)
{
        const struct stub *s = emit_pop_check(w, n, CPU_RSP);
        unsigned to = w->block->steps[n].i.rm;
        emit_mov(&w->e, EMIT_LOAD, to, w->t[1], w->t[0]);
        if (to != CPU_RSP)
                emit_lea(&w->e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, 8);
        resume_here(w, s);
}

static void emit_leave(struct work *w, unsigned n)
{
        const struct stub *s = emit_pop_check(w, n, CPU_RBP);
        emit_lea(&w->e, CPU_RSP, CPU_RBP, EMIT_NO_REG, 0, 8);
        emit_mov(&w->e, EMIT_LOAD, CPU_RBP, w->t[1], w->t[0]);
        resume_here(w, s);
}

/* ---- ways out ---- */

/* Goes on where the field at `offset` is zero; the stub for where it is not is returned. */
static struct stub *emit_zero_check(struct work *w, uint32_t offset, uint32_t exit, bool flags)
{
        struct emitter *e = &w->e;
        if (!flags) {
                emit_gs_is_zero(e, offset);
                return new_stub(w, emit_jump_if(e, CC_ZERO ^ 1), exit);
        }
        emit_mov_reg(e, w->t[2], CPU_RCX);
        emit_gs32(e, EMIT_LOAD, CPU_RCX, offset);
        emit_jrcxz(e, 5);
        struct stub *s = new_stub(w, emit_jump(e), exit);
        s->rcx_moved = true;
        emit_mov_reg(e, CPU_RCX, w->t[2]);
        return s;
}

/* Past the dispatcher unless it is wanted. */
static void emit_poll(struct work *w, uint32_t exit, bool flags)
{
        emit_zero_check(w, FIELD(poll), exit, flags);
}

/* Jumps to wherever the linear address in t[0] is translated. A way that only leads forward
 * need not look whether the dispatcher is wanted: no loop is made of such ways alone. */
static void emit_indirect(struct work *w, unsigned n, uint16_t pop_bytes, bool pushed, bool polls)
{
        struct emitter *e = &w->e;
        unsigned a = w->t[0], b = w->t[1], c = w->t[2];
        uint32_t table = FIELD(jump_tables) + (w->block->key & 3u) * sizeof(struct jump_table);
        emit_mov_reg(e, c, CPU_RCX);
        emit_pext_gs(e, b, a, FIELD(jump_bits));
        emit_gs_index(e, EMIT_LOAD, CPU_RCX, b,
                      table + (uint32_t)offsetof(struct jump_table, negated));
        emit_lea(e, CPU_RCX, CPU_RCX, a, 0, 0);
        emit_jrcxz(e, 5);
        uint32_t index = new_exit(w, EXIT_INDIRECT, n, 0);
        w->cpu->translator.exits[index].pop_bytes = pop_bytes;
        w->cpu->translator.exits[index].pushed = pushed;
        struct stub *miss = new_stub(w, emit_jump(e), index);
        miss->has_target = miss->rcx_moved = true;
        if (polls) {
                emit_gs32(e, EMIT_LOAD, CPU_RCX, FIELD(poll));
                emit_jrcxz(e, 5);
                struct stub *polled = new_stub(w, emit_jump(e), index);
                polled->has_target = polled->rcx_moved = true;
        }
        emit_mov_reg(e, CPU_RCX, c);
        emit_gs_index(e, EMIT_LOAD, c, b, table + (uint32_t)offsetof(struct jump_table, page));
        emit_gs(e, EMIT_STORE, c, FIELD(page_linear));
        if (w->spilled == TRANSLATE_COMMON) {
                emit_gs_index_jump(e, b, table + (uint32_t)offsetof(struct jump_table, common));
                return;
        }
        emit_gs_index(e, EMIT_LOAD, b, b, table + (uint32_t)offsetof(struct jump_table, code));
        emit_gs(e, EMIT_STORE, b, FIELD(target));
        restore_temporaries(w);
        emit_gs_jump(e, FIELD(target));
}

/* Leads the jump at `from` out of the block to `offset` of the page. */
static void chain(struct work *w, unsigned n, uint8_t *from, int32_t offset)
{
        uint32_t index = new_exit(w, EXIT_DIRECT, n, offset);
        w->cpu->translator.exits[index].patch = (uint32_t)(from - w->cpu->translator.writable);
        new_stub(w, from, index)->chains = true;
}

/* Goes on at `offset` of the page or beyond it. */
static void emit_goto(struct work *w, unsigned n, int32_t offset, uint16_t live)
{
        struct emitter *e = &w->e;
        if (!translate_same_page(w, offset)) {
                emit_gs(e, EMIT_LOAD, w->t[0], FIELD(page_linear));
                emit_lea(e, w->t[0], w->t[0], EMIT_NO_REG, 0, offset);
                emit_indirect(w, n, 0, w->forms[n] == FORM_CALL, offset <= w->at[n]);
                return;
        }
        if (offset <= w->at[n]) /* backwards: look up now and then */
                emit_poll(w, new_exit(w, EXIT_DIRECT, n, offset), live);
        chain(w, n, emit_jump(e), offset);
}

/* Back to the start of this very block, registers as they are. */
static void emit_loop(struct work *w, unsigned n)
{
        emit_poll(w, new_exit(w, EXIT_DIRECT, n, w->at[0]), w->live[0]);
        emit_patch(emit_jump(&w->e), w->body);
}

static void emit_jcc(struct work *w, unsigned n)
{
        struct emitter *e = &w->e;
        unsigned condition = w->block->steps[n].i.code & 15;
        int32_t target = translate_target(w), next = w->at[n + 1];
        if (!w->loops && translate_same_page(w, target) && target > w->at[n]) {
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

static void emit_call(struct work *w, unsigned n)
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
                emit_goto(w, n, translate_target(w), FLAGS_ALL);
                return;
        }
        emit_gs(e, EMIT_LOAD, a, FIELD(target));
        emit_indirect(w, n, 0, true, true);
}

static void emit_ret(struct work *w, unsigned n)
{
        uint16_t bytes = (uint16_t)(8 + (uint16_t)w->block->steps[n].i.imm);
        emit_pop_check(w, n, CPU_RSP);
        emit_mov(&w->e, EMIT_LOAD, w->t[0], w->t[1], w->t[0]);
        emit_lea(&w->e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, bytes);
        emit_indirect(w, n, bytes, false, true);
}

static void emit_jmp_ind(struct work *w, unsigned n)
{
        const struct insn *i = &w->block->steps[n].i;
        if (i->is_mem) {
                emit_address(w, n);
                emit_check(w, n, 8, false);
                emit_mov(&w->e, EMIT_LOAD, w->t[0], w->t[1], w->t[0]);
        } else {
                emit_lea(&w->e, w->t[0], i->rm, EMIT_NO_REG, 0, 0);
        }
        emit_indirect(w, n, 0, false, true);
}

static void emit_nothing(struct work *w, unsigned n)
{
        (void)w, (void)n;
}

static void emit_jmp(struct work *w, unsigned n)
{
        int32_t target = translate_target(w);
        if (w->loops)
                emit_loop(w, n);
        else
                emit_goto(w, n, target, translate_flags_at(w, target));
}

static void (*const emitters[])(struct work *w, unsigned n) = {
        [FORM_COPY] = emit_copy,
        [FORM_MEMORY] = emit_memory_step,
        [FORM_LEA_RIP] = emit_lea_rip,
        [FORM_NOTHING] = emit_nothing,
        [FORM_PUSH] = emit_push,
        [FORM_PUSH_IMM] = emit_push,
        [FORM_PUSH_MEM] = emit_push_memory,
        [FORM_POP] = emit_pop,
        [FORM_LEAVE] = emit_leave,
        [FORM_HELPER] = emit_helper,
        [FORM_JMP] = emit_jmp,
        [FORM_JCC] = emit_jcc,
        [FORM_CALL] = emit_call,
        [FORM_RET] = emit_ret,
        [FORM_JMP_IND] = emit_jmp_ind,
        [FORM_CALL_IND] = emit_call,
        [FORM_END] = emit_helper,
        [FORM_VZERO] = emit_vzero,
        [FORM_SWAPGS] = emit_swapgs,
        [FORM_CLI] = emit_cli,
        [FORM_STI] = emit_sti,
};
_Static_assert(sizeof(emitters) / sizeof(emitters[0]) == FORM_COUNT, "one emitter per form");

/* ---- merged accesses: t[0] is the host's address of the run's first byte ---- */

static void emit_merged_memory(struct work *w, unsigned n)
{
        const struct step *st = &w->block->steps[n];
        note_state(w, st);
        if (translate_can_fault(&st->i)) {
                const struct stub *s = slow_stub(w, n, NULL);
                w->fault_exits[n] = s->exit;
                note_fault(w, s);
        }
        emit_rewritten(w, st, w->t[0], EMIT_NO_REG, w->place[n]);
}

static void emit_merged_push(struct work *w, unsigned n)
{
        const struct insn *i = &w->block->steps[n].i;
        struct emitter *e = &w->e;
        emit1(e, 0x48 | emit_rex(w->forms[n] == FORM_PUSH ? i->rm : 0u, w->t[0], EMIT_NO_REG));
        if (w->forms[n] == FORM_PUSH) {
                emit1(e, EMIT_STORE);
                emit_memory(e, i->rm, w->t[0], EMIT_NO_REG, 0, w->place[n]);
        } else {
                emit1(e, 0xc7); /* mov qword, imm32 */
                emit_memory(e, 0, w->t[0], EMIT_NO_REG, 0, w->place[n]);
                emit4(e, (uint32_t)i->imm);
        }
        emit_lea(e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, -8);
}

static void emit_merged_load(struct work *w, unsigned n, unsigned to, int32_t pop_bytes)
{
        emit_mov_place(&w->e, EMIT_LOAD, to, w->t[0], w->place[n]);
        emit_lea(&w->e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, pop_bytes);
}

static void emit_merged_call(struct work *w, unsigned n)
{
        struct emitter *e = &w->e;
        emit_gs(e, EMIT_LOAD, w->t[1], FIELD(page_linear));
        emit_lea(e, w->t[1], w->t[1], EMIT_NO_REG, 0, w->at[n + 1]);
        emit_mov_place(e, EMIT_STORE, w->t[1], w->t[0], w->place[n]);
        emit_lea(e, CPU_RSP, CPU_RSP, EMIT_NO_REG, 0, -8);
        emit_goto(w, n, translate_target(w), FLAGS_ALL);
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
                emit_indirect(w, n, bytes, false, true);
                return;
        default:
                emitters[w->forms[n]](w, n);
                return;
        }
}

static void emit_merged(struct work *w, struct merged *m)
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
        emit_lea(&w->e, w->t[0], w->t[0], w->t[1], 0, 0);
        for (unsigned n = m->first; n <= m->last; n++)
                emit_merged_step(w, n);
        m->end = w->e.at;
}

/* The run again, where each step looks for itself. */
static void emit_unmerged(struct work *w, const struct merged *m)
{
        struct translated_exit *exits = w->cpu->translator.exits;
        emit_patch(m->miss, w->e.at);
        if (m->rcx_moved)
                emit_mov_reg(&w->e, CPU_RCX, w->t[2]);
        w->x87_last = m->x87_last;
        w->uppers_noted = false;
        for (unsigned n = m->first; n <= m->last; n++) {
                emitters[w->forms[n]](w, n);
                if (w->fault_exits[n])
                        exits[w->fault_exits[n]].resume = offset_here(w);
        }
        if (!form_leaves(w->forms[m->last]))
                emit_patch(emit_jump(&w->e), m->end);
}

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
                emitters[w->forms[n]](w, n);
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
        if (s->has_target)
                emit_gs(e, EMIT_STORE, w->t[0], FIELD(target));
        restore_temporaries(w);
        if (s->chains) {
                uint8_t *on = emit_jump(e);
                emit_patch(on, e->at);
                exit_of(w, s)->patch_plain = (uint32_t)(on - t->writable);
        }
        emit_gs_set32(e, FIELD(exit_index), s->exit);
        emit_patch(emit_jump(e), t->writable + (s->helper ? t->helper : t->leave));
}

static void emit_stubs(struct work *w)
{
        struct translator *t = &w->cpu->translator;
        uint32_t starts[STUBS];
        for (unsigned k = 0; k < w->stubs_length; k++) {
                starts[k] = offset_here(w);
                emit_stub(w, &w->stubs[k]);
        }
        for (unsigned k = 0; k < w->faults_length; k++)
                t->faults[t->faults_length++] = (struct translated_fault){
                        w->faults[k].at, starts[w->faults[k].stub]
                };
}

static bool has_room(const struct translator *t)
{
        return t->used + ROOM <= TRANSLATE_CODE_BYTES &&
               t->exits_length + STUBS + BLOCK_STEPS <= TRANSLATE_EXITS &&
               t->faults_length + FAULTS <= TRANSLATE_FAULTS;
}

/* All ways in; what has to be in registers is there behind it. */
static void emit_entries(struct work *w)
{
        struct block *b = w->block;
        b->uses = (w->vectors ? BLOCK_VECTORS : 0) | (w->x87 ? BLOCK_X87 : 0);
        b->temporaries = w->spilled;
        b->common = offset_here(w);
        if (w->spilled != TRANSLATE_COMMON)
                move_registers(w, EMIT_LOAD, TRANSLATE_COMMON);
        b->code = offset_here(w);
        move_registers(w, EMIT_STORE, w->spilled);
        b->spilled = b->warm = offset_here(w);
        if (w->spilled == TRANSLATE_COMMON)
                b->common = b->spilled;
        if (w->x87) {
                uint32_t exit = new_exit(w, EXIT_LOAD_X87, 0, w->at[0]);
                emit_zero_check(w, FIELD(x87_parked), exit, w->live[0])->helper = true;
                w->cpu->translator.exits[exit].resume = offset_here(w);
        }
        if (w->vectors) {
                emit_zero_check(w, FIELD(vec_parked), 0, w->live[0])->loads_vectors = true;
                if (!w->x87)
                        b->warm = offset_here(w);
        }
        w->after_checks = offset_here(w);
        w->body = w->e.at;
}

bool cpu_translate_block(struct cpu *cpu, struct block *block)
{
        struct translator *t = &cpu->translator;
        if (!has_room(t)) {
                cpu_code_flush(cpu);
                return false;
        }
        struct work w = { .cpu = cpu, .block = block };
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
        emit_stubs(&w);
        t->used = offset_here(&w);
        cpu->counters.blocks_translated++;
        return true;
}

void cpu_translate_bridge(struct cpu *cpu, const struct translated_exit *x)
{
        struct translator *t = &cpu->translator;
        struct block *from = x->block;
        if (!has_room(t))
                return;
        struct work w = { .cpu = cpu, .block = from, .spilled = from->temporaries };
        unsigned found = 0;
        for (unsigned r = 0; r < 16; r++)
                if (w.spilled >> r & 1)
                        w.t[found++] = (uint8_t)r;
        t->used = (t->used + 15) & ~15u;
        uint8_t *start = w.e.at = t->writable + t->used;
        emit_gs(&w.e, EMIT_LOAD, w.t[0], FIELD(page_linear));
        emit_lea(&w.e, w.t[0], w.t[0], EMIT_NO_REG, 0, x->offset);
        emit_indirect(&w, (unsigned)(x->step - from->steps), 0, false, true);
        emit_stubs(&w);
        t->used = offset_here(&w);
        emit_patch(t->writable + x->patch, start);
}
