/* Host code for guest instructions that need not be simulated.
 *
 * A thunk is a function f(cpu in rdi, memory in rsi) that loads the registers
 * the instruction names from struct cpu, executes the instruction, and stores
 * what it wrote. Vector registers keep their numbers; general registers named
 * by the instruction are renamed to caller-saved ones where needed, and a memory
 * operand becomes [rsi]. Example, guest `vpaddd ymm1, ymm2, [rax+rcx*4+16]`:
 *
 *         vmovdqu ymm1, [rdi+192] ; vmovdqu ymm2, [rdi+224]
 *         vpaddd  ymm1, ymm2, [rsi]
 *         vmovdqu [rdi+192], ymm1 ; vzeroupper ; ret
 *
 * Thunks are found by their encoding, so their number is that of distinct
 * register combinations, not of places in the guest's code. The pool is one
 * memfd mapped twice: no page is writable and executable at the same address.
 */
#include "cpu/core.h"
#include "cpu/decode_tables.h"
#include "cpu/translate.h"

#include <string.h>
#include <sys/mman.h>

#define THUNK_BYTES 384u /* more than the longest */

/* Operands of one instruction, as the thunk sees them. */
struct plan {
        uint16_t read, written; /* guest general registers */
        uint32_t vec_read, vec_written;
        uint8_t host[16]; /* host register of a guest one */
        /* Guest register whose bits 8-15 are the r/m operand, REG_NONE; and the host
         * register for it. */
        uint8_t high_byte, high_host;
};

struct emitter {
        uint8_t *at;
};

static void emit(struct emitter *e, unsigned byte)
{
        *e->at++ = (uint8_t)byte;
}

static void emit32(struct emitter *e, uint32_t value)
{
        memcpy(e->at, &value, 4);
        e->at += 4;
}

static bool has_size(const struct insn *insn, unsigned size)
{
        for (unsigned i = 0; i < 4; i++)
                if (insn->row->operands[i].kind && insn->row->operands[i].size == size)
                        return true;
        return false;
}

static void plan_operand(struct plan *p, const struct insn *insn, unsigned n)
{
        struct operand o = insn->row->operands[n];
        uint64_t props = insn->row->properties;
        bool written = n == 0 ? !(props & RO) : n == 1 && props & (RW2 | DW2);
        bool read = n != 0 || !(props & DW) || !insn->vex;
        unsigned r = insn->reg;
        switch (o.kind) {
        case OPK_E:
                if (insn->is_mem || o.size == SZ_F87)
                        return;
                r = insn->rm;
                if (insn_operand_size(insn, o) == 1 && !insn->rex && r >= 4 && r < 8) {
                        p->high_byte = (uint8_t)(r - 4);
                        return;
                }
                break;
        case OPK_G:
                break;
        case OPK_B:
                r = insn->vvvv;
                break;
        case OPK_W:
                if (insn->is_mem)
                        return;
                r = insn->rm;
                goto vector;
        case OPK_H:
                if (!insn->vex)
                        return;
                r = insn->vvvv;
                goto vector;
        case OPK_L:
                r = insn->is4;
                goto vector;
        case OPK_X0:
                r = 0;
                goto vector;
        case OPK_V:
        vector:
                p->vec_read |= read ? 1u << r : 0;
                p->vec_written |= written ? 1u << r : 0;
                return;
        default:
                return;
        }
        p->read |= (uint16_t)(1u << r);
        p->written |= written ? (uint16_t)(1u << r) : 0;
}

/* Legacy encodings without H have their destination first all the same: the
 * row "H, W, I" of a legacy shift writes W. */
static void plan_legacy_shift(struct plan *p, const struct insn *insn)
{
        if (insn->row->operands[0].kind == OPK_H && !insn->vex)
                p->vec_written |= 1u << insn->rm;
        bool scalar_store = insn->row->operands[0].kind == OPK_W && !insn->is_mem;
        if (scalar_store && !insn->vex)
                p->vec_read |= 1u << insn->rm;
}

/* Operands, as far as registers go; general ones too. */
static void plan_operands(struct plan *p, const struct insn *insn)
{
        for (unsigned n = 0; n < 4; n++)
                plan_operand(p, insn, n);
        plan_legacy_shift(p, insn);
        if (insn->op == OP_HOST_PCMPESTRM || (insn->map == MAP_0F3A && insn->code == 0x62))
                p->vec_written |= 1, p->vec_read |= 1;
}

static bool plan_make(struct plan *p, const struct insn *insn)
{
        static const uint8_t pool[] = { 0, 1, 2, 8, 9, 10, 11 };
        const struct decode_implicit *implicit = &decode_implicit[insn->op];
        *p = (struct plan){ .high_byte = REG_NONE };
        plan_operands(p, insn);
        p->read |= implicit->read | implicit->written;
        p->written |= implicit->written;
        if (insn->op == OP_X87 && insn->gpr_written & 1)
                p->read |= 1, p->written |= 1;
        uint16_t fixed = implicit->read | implicit->written, taken = fixed;
        for (unsigned g = 0; g < 16; g++)
                p->host[g] = (uint8_t)g;
        for (unsigned g = 0; g < 16; g++) {
                if (!(p->read >> g & 1) || fixed >> g & 1)
                        continue;
                unsigned k = 0;
                while (k < sizeof(pool) && taken >> pool[k] & 1)
                        k++;
                if (k == sizeof(pool))
                        return false;
                p->host[g] = pool[k];
                taken |= (uint16_t)(1u << pool[k]);
        }
        p->high_host = 11;
        return p->high_byte == REG_NONE || !(taken >> 11 & 1);
}

/* The instruction with registers renamed and memory at [rsi]. */
static void emit_insn(struct emitter *e, const struct insn *insn, const struct plan *p)
{
        const struct opcode *row = insn->row;
        unsigned reg = insn->modrm >> 3 & 7, rm = insn->modrm & 7, vvvv = 0;
        for (unsigned i = 0; i < 4; i++) {
                unsigned kind = row->operands[i].kind;
                if (kind == OPK_G)
                        reg = p->host[insn->reg];
                else if (kind == OPK_V || kind == OPK_P)
                        reg = insn->reg;
                else if (kind == OPK_E && row->operands[i].size != SZ_F87)
                        rm = p->high_byte != REG_NONE ? p->high_host : p->host[insn->rm];
                else if (kind == OPK_W || kind == OPK_Q)
                        rm = insn->rm;
                else if (kind == OPK_B)
                        vvvv = p->host[insn->vvvv];
                else if (kind == OPK_H && insn->vex)
                        vvvv = insn->vvvv;
        }
        unsigned modrm = insn->is_mem ? (reg & 7) << 3 | 6 : 0xc0 | (reg & 7) << 3 | (rm & 7);
        if (insn->is_mem)
                rm = 6;
        if (insn->vex) {
                emit(e, 0xc4);
                emit(e, (reg & 8 ? 0 : 0x80) | 0x40 | (rm & 8 ? 0 : 0x20) | insn->map);
                emit(e,
                     (insn->w ? 0x80u : 0) | (~vvvv & 15) << 3 | (insn->vex_l ? 4u : 0) | insn->pp);
        } else {
                bool by_size = has_size(insn, SZ_V) || insn->op == OP_X87;
                if (by_size ? insn->opsize == 2 : insn->pp == PP_66)
                        emit(e, 0x66);
                if (insn->op != OP_X87 && insn->pp >= PP_F3)
                        emit(e, insn->pp == PP_F3 ? 0xf3 : 0xf2);
                unsigned rex = (insn->w ? 8u : 0) | (reg & 8 ? 4u : 0) | (rm & 8 ? 1u : 0);
                if (rex)
                        emit(e, 0x40 | rex);
                if (insn->map != MAP_ONE)
                        emit(e, 0x0f);
                if (insn->map >= MAP_0F38)
                        emit(e, insn->map == MAP_0F38 ? 0x38 : 0x3a);
        }
        emit(e, insn->code);
        emit(e, modrm);
        for (unsigned i = 0; i < insn->imm_size; i++)
                emit(e, (unsigned)(insn->imm >> 8 * i) & 0xff);
}

static void emit_gpr(struct emitter *e, unsigned opcode, unsigned host, uint32_t offset)
{
        emit(e, 0x48 | (host & 8 ? 4u : 0));
        emit(e, opcode);
        emit(e, 0x80 | (host & 7) << 3 | 7);
        emit32(e, offset);
}

static void emit_vec(struct emitter *e, unsigned opcode, unsigned n)
{
        emit(e, 0xc5);
        emit(e, (n & 8 ? 0 : 0x80) | 0x7e);
        emit(e, opcode);
        emit(e, 0x80 | (n & 7) << 3 | 7);
        emit32(e, (uint32_t)(offsetof(struct cpu_state, vec) + 32 * n));
}

/* Arithmetic flags from state.rflags to the host's. */
static void emit_load_flags(struct emitter *e)
{
        emit(e, 0x8b); /* mov eax, [rdi+rflags] */
        emit(e, 0x87);
        emit32(e, offsetof(struct cpu_state, rflags));
        emit(e, 0x25); /* and eax, arithmetic */
        emit32(e, FLAGS_ARITHMETIC);
        emit(e, 0x50); /* push rax; popfq */
        emit(e, 0x9d);
}

static void emit_store_flags(struct emitter *e, uint32_t written)
{
        emit(e, 0x9c); /* pushfq; pop rsi */
        emit(e, 0x5e);
        emit(e, 0x81); /* and esi, written */
        emit(e, 0xe6);
        emit32(e, written);
        emit(e, 0x81); /* and dword [rdi+rflags], ~written */
        emit(e, 0xa7);
        emit32(e, offsetof(struct cpu_state, rflags));
        emit32(e, ~written);
        emit(e, 0x09); /* or [rdi+rflags], esi */
        emit(e, 0xb7);
        emit32(e, offsetof(struct cpu_state, rflags));
}

static void emit_thunk(struct emitter *e, const struct insn *insn, const struct plan *p)
{
        for (unsigned n = 0; n < 16; n++)
                if (p->vec_read >> n & 1)
                        emit_vec(e, 0x6f, n);
        if (insn->eflags.read)
                emit_load_flags(e);
        for (unsigned g = 0; g < 16; g++) {
                if (!(p->read >> g & 1))
                        continue;
                emit_gpr(e, 0x8b, p->host[g], 8 * g);
        }
        if (p->high_byte != REG_NONE) {
                emit(e, 0x44); /* movzx r11d, byte [rdi+...] */
                emit(e, 0x0f);
                emit(e, 0xb6);
                emit(e, 0x80 | (p->high_host & 7) << 3 | 7);
                emit32(e, 8u * p->high_byte + 1);
        }
        emit_insn(e, insn, p);
        if (insn->eflags.write)
                emit_store_flags(e, insn->eflags.write);
        for (unsigned g = 0; g < 16; g++)
                if (p->written >> g & 1)
                        emit_gpr(e, 0x89, p->host[g], 8 * g);
        for (unsigned n = 0; n < 16; n++)
                if (p->vec_written >> n & 1)
                        emit_vec(e, 0x7f, n);
        if (p->vec_read | p->vec_written) {
                emit(e, 0xc5); /* vzeroupper */
                emit(e, 0xf8);
                emit(e, 0x77);
        }
        emit(e, 0xc3);
}

int cpu_thunks_create(struct cpu *cpu, struct err *err)
{
        struct thunk_pool *pool = &cpu->thunks;
        auto_fd fd = memfd_create("isle-thunks", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, THUNK_POOL_BYTES) < 0)
                return err_set(err, errno, "memory for instruction thunks");
        void *w = mmap(NULL, THUNK_POOL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (w == MAP_FAILED)
                return err_set(err, errno, "map instruction thunks");
        void *x = mmap(NULL, THUNK_POOL_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
        if (x == MAP_FAILED) {
                int r = err_set(err, errno, "map instruction thunks executable");
                munmap(w, THUNK_POOL_BYTES);
                return r;
        }
        pool->writable = w;
        pool->executable = x;
        pool->used = 16;
        return 0;
}

void cpu_thunks_destroy(struct cpu *cpu)
{
        struct thunk_pool *pool = &cpu->thunks;
        if (!pool->writable)
                return;
        munmap(pool->writable, THUNK_POOL_BYTES);
        munmap((void *)(uintptr_t)pool->executable, THUNK_POOL_BYTES);
        pool->writable = NULL;
}

void cpu_thunks_flush(struct cpu *cpu)
{
        memset(cpu->thunks.entries, 0, sizeof(cpu->thunks.entries));
        cpu->thunks.used = 16;
        cpu->thunks.length = 0;
        cpu->counters.thunk_flushes++;
}

static void thunk_key(const struct insn *insn, const struct plan *p, uint8_t key[16])
{
        struct emitter e = { key };
        memset(key, 0, 16);
        emit_insn(&e, insn, p); /* at most 12 bytes */
        key[12] = insn->reg;
        key[13] = (uint8_t)(insn->is_mem ? 0x80 : insn->rm | (p->high_byte != REG_NONE ? 0x40 : 0));
        key[14] = insn->vvvv;
        key[15] = insn->op == OP_X87;
}

void (*cpu_thunk_get(struct cpu *cpu, const struct insn *insn))(struct cpu *, void *)
{
        struct thunk_pool *pool = &cpu->thunks;
        struct plan p;
        uint8_t key[16];
        if (!plan_make(&p, insn))
                return NULL;
        thunk_key(insn, &p, key);
        uint64_t a, b;
        memcpy(&a, key, 8);
        memcpy(&b, key + 8, 8);
        uint64_t hash = (a ^ b * 0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd;
        unsigned i = hash >> 40 & (THUNK_HASH - 1);
        while (pool->entries[i].at && memcmp(pool->entries[i].key, key, 16) != 0)
                i = (i + 1) & (THUNK_HASH - 1);
        struct thunk_entry *entry = &pool->entries[i];
        if (!entry->at) {
                if (pool->used + THUNK_BYTES > THUNK_POOL_BYTES ||
                    pool->length + 1 >= THUNK_HASH * 3 / 4)
                        return NULL;
                memcpy(entry->key, key, 16);
                entry->at = pool->used;
                struct emitter e = { pool->writable + pool->used };
                emit_thunk(&e, insn, &p);
                pool->used = ((uint32_t)(e.at - pool->writable) + 15) & ~15u;
                pool->length++;
                cpu->counters.thunks_made++;
        }
        return (void (*)(struct cpu *, void *))(uintptr_t)(pool->executable + entry->at);
}
