/* Random cases out of the decoder's own tables: a row is chosen, encoded with
 * random operands, and kept when the decoder agrees that it is one the host and
 * the guest must treat alike. */
#include "cpu/decode_tables.h"
#include "cpu/tests/native.h"

#include <string.h>

struct random {
        uint64_t s;
};

static uint64_t rnd(struct random *r)
{
        r->s += 0x9e3779b97f4a7c15;
        uint64_t z = r->s;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
}

static bool chance(struct random *r, unsigned one_in)
{
        return rnd(r) % one_in == 0;
}

static uint64_t edge(struct random *r)
{
        static const uint64_t values[] = { 0,
                                           1,
                                           2,
                                           0x7f,
                                           0x80,
                                           0xff,
                                           0x7fff,
                                           0x8000,
                                           0x7fffffff,
                                           0x80000000,
                                           0xffffffff,
                                           0x7fffffffffffffff,
                                           0x8000000000000000,
                                           UINT64_MAX,
                                           0x3ff0000000000000,
                                           0x7ff0000000000000,
                                           0x7ff8000000000001,
                                           0x3f8000007f800000,
                                           0x7f800001ff800000,
                                           0x0000000100000001 };
        if (chance(r, 2))
                return values[rnd(r) % (sizeof(values) / sizeof(values[0]))];
        uint64_t v = rnd(r);
        return chance(r, 3) ? v & 0xff : v;
}

void native_fill(uint64_t data_seed, uint8_t *data)
{
        struct random r = { data_seed };
        for (unsigned i = 0; i < NATIVE_DATA_BYTES; i += 8) {
                uint64_t v = i % 64 ? r.s += 0x9e3779b97f4a7c15 : edge(&r);
                memcpy(data + i, &v, 8);
        }
}

uint64_t native_hash(const uint8_t *data)
{
        uint64_t h = 0xcbf29ce484222325;
        for (unsigned i = 0; i < NATIVE_DATA_BYTES; i += 8) {
                uint64_t v;
                memcpy(&v, data + i, 8);
                h = (h ^ v) * 0x9e3779b97f4a7c15;
                h ^= h >> 29;
        }
        return h;
}

/* Not comparable: time, identity, another process's segments, the host's XCR0,
 * pointers into the thunk, flags that would trap here, what most hosts lack. */
static bool excluded(const struct insn *i)
{
        static const uint16_t ops[] = {
                OP_VMCALL,    OP_RDTSC,    OP_RDTSCP,      OP_RDPID,        OP_CPUID,
                OP_SYSCALL,   OP_SYSENTER, OP_XSAVE,       OP_XSAVEC,       OP_XSAVEOPT,
                OP_XRSTOR,    OP_XGETBV,   OP_FXSAVE,      OP_FXRSTOR,      OP_RDFSBASE,
                OP_RDGSBASE,  OP_WRFSBASE, OP_WRGSBASE,    OP_SGDT,         OP_SIDT,
                OP_SLDT,      OP_STR,      OP_SMSW,        OP_LAR,          OP_LSL,
                OP_VERR,      OP_VERW,     OP_PUSH_SEG,    OP_POP_SEG,      OP_MOV_TO_SEG,
                OP_LOAD_FAR,  OP_INT,      OP_INT1,        OP_POPF,         OP_IRET,
                OP_RET_FAR,   OP_JMP_FAR,  OP_CALL_FAR,    OP_PUSHF,        OP_CALL_FAR_IND,
                OP_RDPKRU,    OP_WRPKRU,   OP_JMP_FAR_IND, OP_MOV_FROM_SEG, OP_INTO,
                OP_RDPMC,     OP_LDMXCSR,  OP_BOUND,       OP_SYSEXIT,      OP_SYSRET,
                OP_SERIALIZE,
        };
        for (unsigned n = 0; n < sizeof(ops) / sizeof(ops[0]); n++)
                if (i->op == ops[n])
                        return true;
        if (i->map == MAP_0F && i->code == 0xc7 && i->op == OP_HOST) /* RDRAND, RDSEED */
                return true;
        /* Environment images hold pointers; FLDENV may unmask exceptions. */
        if (i->op == OP_X87 && i->is_mem && i->mem_size >= 14)
                return true;
        if (i->op == OP_X87 && i->is_mem && i->code == 0xd9 && (i->modrm >> 3 & 7) == 5)
                return true; /* FLDCW */
        if (i->seg == 4 || i->seg == 5)
                return true; /* FS and GS are the process's */
        /* Where the development host (AMD family 1Ah) departs from the SDM: PREFETCHW
         * with a register is #UD, SHA does not demand alignment; which byte of a masked
         * store CR2 names is open. */
        if (i->map == MAP_0F && i->code == 0x0d && !i->is_mem)
                return true;
        if (FEAT_OF(i->row->properties) == FEATURE_SHA && i->is_mem)
                return true;
        return i->op == OP_MASKMOVQ;
}

/* Where a branch goes must be the next instruction. */
static bool tame_branch(struct insn *i, uint8_t *b)
{
        if (i->class != CLASS_CONTROL || i->op == OP_UD || i->op == OP_INT3)
                return true;
        bool relative = i->row->operands[0].kind == OPK_J;
        if (!relative || (i->has_66 && i->op != OP_JCC) || i->has_66)
                return false;
        memset(b + i->imm_at, 0, i->imm_size);
        return true;
}

static unsigned encode(struct random *r, const struct opcode *row, bool bits32, uint8_t *b)
{
        unsigned n = 0;
        uint64_t p = row->properties;
        bool vex = p & VEX && (!(p & LEG) || chance(r, 2));
        unsigned pp = (unsigned)rnd(r) & 3;
        if (p & 15)
                while (!(p >> pp & 1))
                        pp = (pp + 1) & 3;
        else
                pp = chance(r, 4) ? PP_66 : PP_NONE;
        if (row->op >= OP_MOVS && row->op <= OP_SCAS && chance(r, 2))
                b[n++] = chance(r, 2) ? 0xf3 : 0xf2;
        unsigned rexbits = bits32 ? 0 : (unsigned)rnd(r) & 15;
        if (vex) {
                bool w = p & W1 ? true : p & W0 ? false : chance(r, 2);
                bool l = p & L1 ? true : p & L0 ? false : chance(r, 2);
                b[n++] = 0xc4;
                b[n++] = (uint8_t)((bits32 ? 0xe0 : (~rexbits << 5 & 0xe0)) | row->map);
                uint8_t v = (uint8_t)rnd(r) & 15;
                bool uses = false;
                for (unsigned i = 0; i < 4; i++)
                        uses |= row->operands[i].kind == OPK_H || row->operands[i].kind == OPK_B;
                if (!uses)
                        v = 15;
                else if (bits32)
                        v |= 8;
                b[n++] = (uint8_t)((w ? 0x80 : 0) | v << 3 | (l ? 4 : 0) | pp);
        } else {
                static const uint8_t bytes[] = { 0, 0x66, 0xf3, 0xf2 };
                if (p & (P_F3 | P_F2) && pp >= PP_F3 && chance(r, 6))
                        b[n++] = 0x66;
                if (pp)
                        b[n++] = bytes[pp];
                if (p & LOCKS && chance(r, 3))
                        b[n++] = 0xf0;
                if (chance(r, 12) && !bits32)
                        b[n++] = 0x67;
                if (!bits32 && chance(r, 2))
                        b[n++] = (uint8_t)(0x40 | rexbits);
                if (row->map != MAP_ONE)
                        b[n++] = 0x0f;
                if (row->map >= MAP_0F38)
                        b[n++] = row->map == MAP_0F38 ? 0x38 : 0x3a;
        }
        b[n++] = row->code;
        for (unsigned i = n; i < n + 12; i++)
                b[i] = (uint8_t)rnd(r);
        if (!(p & NOMODRM)) {
                uint8_t modrm = b[n];
                if (p & (0xffull << 4)) {
                        unsigned reg = modrm >> 3 & 7;
                        while (!(p >> (4 + reg) & 1))
                                reg = (reg + 1) & 7;
                        modrm = (uint8_t)((modrm & 0xc7) | reg << 3);
                }
                if (p & MEM || (!(p & REG) && chance(r, 2)))
                        modrm = (uint8_t)((modrm & 0x3f) | (chance(r, 3) ? 0 : 0x40));
                else
                        modrm |= 0xc0;
                b[n] = modrm;
        }
        return n;
}

/* Flags this instance really leaves undefined (the table's answer is for all). */
static uint32_t undefined_flags(const struct insn *i)
{
        uint32_t u = i->eflags.undefined;
        if (i->op >= OP_ROL && i->op <= OP_SHRD) {
                bool by_cl = i->gpr_read & 2 && !i->imm_size;
                unsigned bits = 8 * insn_operand_size(i, i->row->operands[0]);
                unsigned count = (unsigned)i->imm & (bits == 64 ? 63 : 31);
                bool one = i->row->operands[1].kind == OPK_ONE;
                if (one || (i->imm_size && !by_cl)) {
                        if (one)
                                count = 1;
                        if (count == 0)
                                return 0;
                        if (count <= bits)
                                u &= ~FLAG_CF;
                        if (count == 1)
                                u &= ~FLAG_OF;
                        if (count > bits && (i->op == OP_SHLD || i->op == OP_SHRD))
                                u = FLAGS_ARITHMETIC;
                } else if (bits >= 32) {
                        u &= ~FLAG_CF;
                } else if (i->op == OP_SHLD || i->op == OP_SHRD) {
                        u = FLAGS_ARITHMETIC;
                }
        }
        return u;
}

/* Results that are undefined, not only flags. */
static bool undefined_result(const struct insn *i)
{
        if (i->op == OP_SHLD || i->op == OP_SHRD)
                return i->opsize == 2;
        return i->op == OP_BSWAP && i->opsize == 2;
}

static void make_state(struct random *r, bool bits32, struct native_state *s)
{
        memset(s, 0, sizeof(*s));
        for (unsigned i = 0; i < 16; i++) {
                s->gpr[i] = edge(r);
                if (!chance(r, 3))
                        s->gpr[i] = NATIVE_DATA + 0x100 + rnd(r) % (NATIVE_DATA_BYTES - 0x200);
                if (chance(r, 16))
                        s->gpr[i] = NATIVE_RODATA + rnd(r) % 0x1000;
                if (bits32)
                        s->gpr[i] = i < 8 ? (uint32_t)s->gpr[i] : 0;
        }
        if (chance(r, 2))
                s->gpr[1] = rnd(r) % 40; /* counts */
        s->gpr[4] = NATIVE_DATA + 0x1000 + (rnd(r) % 0x2000 & ~7ull);
        s->rip = NATIVE_CODE;
        s->rflags = 0x202 | (rnd(r) & FLAGS_ARITHMETIC);
        if (chance(r, 4))
                s->rflags |= FLAG_DF;
        for (unsigned i = 0; i < 16; i++)
                for (unsigned k = 0; k < 4; k++) {
                        uint64_t v = edge(r);
                        if (bits32 && i >= 8)
                                v = 0;
                        memcpy(s->ymm[i] + 8 * k, &v, 8);
                }
        uint16_t fcw = 0x37f;
        uint32_t mxcsr = 0x1f80;
        if (chance(r, 4))
                mxcsr |= (uint32_t)rnd(r) & 0xe000;
        if (chance(r, 4))
                mxcsr |= (uint32_t)rnd(r) & 0x40;
        if (chance(r, 8))
                mxcsr &= ~((uint32_t)rnd(r) & 0x1f80);
        if (chance(r, 8))
                fcw &= (uint16_t) ~(rnd(r) & 0x3f);
        if (chance(r, 4))
                fcw = (uint16_t)((fcw & ~0xf00u) | (rnd(r) & 0xc00) |
                                 (chance(r, 2) ? 0x300 : 0x200));
        memcpy(s->fx, &fcw, 2);
        memcpy(s->fx + 24, &mxcsr, 4);
        uint16_t fsw = (uint16_t)(rnd(r) & 0x7800);
        memcpy(s->fx + 2, &fsw, 2);
        s->fx[4] = (uint8_t)rnd(r);
        for (unsigned i = 0; i < 8; i++) {
                static const uint16_t exponents[] = {
                        0, 0x3fff, 0x7fff, 0xffff, 0xbfff, 0x4005, 1
                };
                uint64_t mantissa = edge(r) | (chance(r, 5) ? 0 : 1ull << 63);
                uint16_t exponent = exponents[rnd(r) % 7];
                memcpy(s->fx + 32 + 16 * i, &mantissa, 8);
                memcpy(s->fx + 32 + 16 * i + 8, &exponent, 2);
        }
        for (unsigned i = 0; i < 16; i++)
                memcpy(s->fx + 160 + 16 * i, s->ymm[i], 16);
}

void native_make(uint64_t seed, uint64_t number, bool bits32, struct native_case *c)
{
        struct random r = { seed * 0x9e3779b97f4a7c15 ^ number * 0xd1342543de82ef95 };
        unsigned wanted = 1 + (unsigned)rnd(&r) % 5, n = 0, tries = 0;
        rnd(&r);
        memset(c, 0, sizeof(*c));
        c->bits32 = bits32;
        c->data_seed = rnd(&r);
        make_state(&r, bits32, &c->state);
        while (n < wanted && tries++ < 500) {
                uint8_t b[32];
                struct insn i;
                const struct opcode *row = &decode_rows[rnd(&r) % decode_rows_length];
                encode(&r, row, bits32, b);
                int length = decode(b, 15, bits32 ? DECODE_32 : DECODE_64, &i);
                if (length <= 0 || excluded(&i) || undefined_result(&i) || !tame_branch(&i, b))
                        continue;
                if (i.eflags.read & c->undefined)
                        continue;
                /* A fault in the middle leaves flags of before. */
                bool may_skip = (i.rep && (i.op == OP_SCAS || i.op == OP_CMPS)) ||
                                (i.op >= OP_ROL && i.op <= OP_SHRD); /* by zero */
                if (!may_skip)
                        c->undefined &= ~(uint32_t)i.eflags.write;
                c->undefined |= undefined_flags(&i);
                memcpy(c->code + c->code_size, b, (size_t)length);
                c->code_size += (unsigned)length;
                n++;
        }
}
