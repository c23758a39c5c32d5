#include "cpu/decode.h"
#include "cpu/decode_tables.h"

#include <pthread.h>
#include <string.h>

enum { GPR_RAX, GPR_RCX, GPR_RDX, GPR_RBX, GPR_RSP, GPR_RBP, GPR_RSI, GPR_RDI };
enum { SEG_SS = 2, SEG_DS = 3 };

/* Where the decoder is in the bytes. */
struct cursor {
        const uint8_t *bytes;
        size_t size;
        unsigned at;
};

static struct decode_slot slots[DECODE_MAPS][256];
static pthread_once_t slots_once = PTHREAD_ONCE_INIT;

/* Rows of one opcode need not stand together in the tables; this sorts them by
 * (map, code) keeping their order. */
static const struct opcode *sorted_rows[2048];

static void slots_build(void)
{
        unsigned next = 0;
        for (unsigned map = 0; map < DECODE_MAPS; map++)
                for (unsigned code = 0; code < 256; code++)
                        slots[map][code].first = 0xffff;
        for (unsigned i = 0; i < decode_rows_length; i++)
                slots[decode_rows[i].map][decode_rows[i].code].count++;
        for (unsigned map = 0; map < DECODE_MAPS; map++) {
                for (unsigned code = 0; code < 256; code++) {
                        slots[map][code].first = (uint16_t)next;
                        next += slots[map][code].count;
                        slots[map][code].count = 0;
                }
        }
        for (unsigned i = 0; i < decode_rows_length; i++) {
                struct decode_slot *slot = &slots[decode_rows[i].map][decode_rows[i].code];
                sorted_rows[slot->first + slot->count++] = &decode_rows[i];
        }
}

void decode_init(void)
{
        pthread_once(&slots_once, slots_build);
}

static int need(const struct cursor *c, unsigned count)
{
        if (c->at + count > INSN_SIZE_LIMIT)
                return DECODE_LONG;
        if (c->at + count > c->size)
                return DECODE_SHORT;
        return 1;
}

/* Reads a little-endian number of 1, 2, 4 or 8 bytes; bounds were checked. */
static uint64_t take(struct cursor *c, unsigned size)
{
        uint64_t value = 0;
        memcpy(&value, c->bytes + c->at, size);
        c->at += size;
        return value;
}

static int64_t sign_extend(uint64_t value, unsigned size)
{
        unsigned shift = 64 - size * 8;
        return (int64_t)(value << shift) >> shift;
}

static bool segment_prefix(uint8_t byte, enum decode_mode mode, uint8_t *seg)
{
        switch (byte) {
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
                if (mode != DECODE_64)
                        *seg = byte >> 3 & 3;
                return true;
        case 0x64:
        case 0x65:
                *seg = (uint8_t)(byte - 0x60);
                return true;
        default:
                return false;
        }
}

static int prefixes(struct cursor *c, enum decode_mode mode, struct insn *insn)
{
        for (;;) {
                int r = need(c, 1);
                if (r < 0)
                        return r;
                uint8_t byte = c->bytes[c->at];
                if (mode == DECODE_64 && (byte & 0xf0) == 0x40) {
                        insn->rex = byte;
                        c->at++;
                        continue;
                }
                if (byte == 0x66)
                        insn->has_66 = true;
                else if (byte == 0x67)
                        insn->has_67 = true;
                else if (byte == 0xf0)
                        insn->lock = true;
                else if (byte == 0xf2 || byte == 0xf3)
                        insn->rep = byte;
                else if (!segment_prefix(byte, mode, &insn->seg))
                        return 1;
                insn->rex = 0; /* counts only right before the opcode */
                c->at++;
        }
}

/* At C4 or C5 that is VEX in this mode. */
static int vex_prefix(struct cursor *c, enum decode_mode mode, struct insn *insn)
{
        bool three = c->bytes[c->at] == 0xc4;
        int r = need(c, three ? 3 : 2);
        if (r < 0)
                return r;
        if (insn->rex || insn->has_66 || insn->rep || insn->lock)
                return DECODE_INVALID;
        c->at++;
        uint8_t first = (uint8_t)take(c, 1);
        uint8_t second = three ? (uint8_t)take(c, 1) : first & 0x7f;
        insn->vex = true;
        insn->rex = 0x40 | (first & 0x80 ? 0 : 4);
        unsigned map = MAP_0F;
        if (three) {
                insn->rex |= (uint8_t)((first & 0x40 ? 0 : 2) | (first & 0x20 ? 0 : 1) |
                                       (second & 0x80 ? 8 : 0));
                map = first & 0x1f;
        }
        if (map < MAP_0F || map > MAP_0F3A)
                return DECODE_INVALID;
        insn->map = (uint8_t)map;
        insn->vvvv = (uint8_t)(~second >> 3 & 15);
        insn->vex_l = second & 4;
        insn->pp = second & 3;
        if (mode != DECODE_64)
                insn->rex &= 0x48;
        return 1;
}

static int opcode_byte(struct cursor *c, enum decode_mode mode, struct insn *insn)
{
        uint8_t byte = c->bytes[c->at];
        if (byte == 0xc4 || byte == 0xc5) {
                int r = need(c, 2);
                if (r < 0)
                        return r;
                if (mode == DECODE_64 || c->bytes[c->at + 1] >= 0xc0) {
                        r = vex_prefix(c, mode, insn);
                        if (r <= 0)
                                return r;
                        r = need(c, 1);
                        if (r < 0)
                                return r;
                        insn->code = (uint8_t)take(c, 1);
                        return 1;
                }
        }
        c->at++;
        insn->map = MAP_ONE;
        insn->pp = insn->rep == 0xf3   ? PP_F3
                   : insn->rep == 0xf2 ? PP_F2
                   : insn->has_66      ? PP_66
                                       : PP_NONE;
        if (byte == 0x0f) {
                int r = need(c, 1);
                if (r < 0)
                        return r;
                byte = (uint8_t)take(c, 1);
                insn->map = MAP_0F;
                if (byte == 0x38 || byte == 0x3a) {
                        insn->map = byte == 0x38 ? MAP_0F38 : MAP_0F3A;
                        r = need(c, 1);
                        if (r < 0)
                                return r;
                        byte = (uint8_t)take(c, 1);
                }
        }
        insn->code = byte;
        return 1;
}

static bool has_operand(const struct opcode *row, unsigned kind)
{
        for (unsigned i = 0; i < 4; i++)
                if (row->operands[i].kind == kind)
                        return true;
        return false;
}

static bool row_matches(const struct opcode *row, const struct insn *insn, enum decode_mode mode)
{
        uint64_t p = row->properties;
        bool legacy = (p & LEG) || !(p & VEX);
        if (insn->vex ? !(p & VEX) : !legacy)
                return false;
        if ((p & 15) && !(p >> insn->pp & 1))
                return false;
        if ((p & I64 && mode == DECODE_64) || (p & O64 && mode != DECODE_64))
                return false;
        if (p & (0xffull << 4) && !(p >> (4 + (insn->modrm >> 3 & 7)) & 1))
                return false;
        bool reg = insn->modrm >= 0xc0;
        if ((p & MEM && reg) || (p & REG && !reg))
                return false;
        if (p & (1ull << 22) && (p >> 23 & 7) != (insn->modrm & 7))
                return false;
        if (!insn->vex)
                return true;
        if ((p & W0 && insn->w) || (p & W1 && !insn->w))
                return false;
        if ((p & L0 && insn->vex_l) || (p & L1 && !insn->vex_l))
                return false;
        return insn->vvvv == 0 || has_operand(row, OPK_H) || has_operand(row, OPK_B);
}

static int find_row(struct cursor *c, enum decode_mode mode, struct insn *insn)
{
        const struct decode_slot *slot = &slots[insn->map][insn->code];
        if (slot->count == 0)
                return DECODE_INVALID;
        if (!(sorted_rows[slot->first]->properties & NOMODRM)) {
                int r = need(c, 1);
                if (r < 0)
                        return r;
                insn->has_modrm = true;
                insn->modrm_at = (uint8_t)c->at;
                insn->modrm = (uint8_t)take(c, 1);
        }
        for (unsigned i = 0; i < slot->count; i++) {
                if (row_matches(sorted_rows[slot->first + i], insn, mode)) {
                        insn->row = sorted_rows[slot->first + i];
                        insn->op = insn->row->op;
                        return 1;
                }
        }
        return DECODE_INVALID;
}

static void find_sizes(enum decode_mode mode, struct insn *insn)
{
        uint64_t p = insn->row->properties;
        if (mode == DECODE_64) {
                insn->adsize = insn->has_67 ? 4 : 8;
                insn->opsize = insn->w ? 8 : insn->has_66 ? 2 : 4;
                if (p & F64 || (p & D64 && insn->opsize == 4))
                        insn->opsize = 8;
        } else {
                bool big = mode == DECODE_32;
                insn->adsize = big != insn->has_67 ? 4 : 2;
                insn->opsize = big != insn->has_66 ? 4 : 2;
                if (insn->vex)
                        insn->opsize = 4;
                bool by_w = false; /* a general register's size: 32 bits here */
                for (unsigned i = 0; i < 4; i++)
                        by_w |= insn->row->operands[i].size == SZ_Y;
                insn->w = insn->w && insn->vex && !by_w;
        }
}

static int memory_16(struct cursor *c, struct insn *insn)
{
        static const uint8_t bases[8] = { GPR_RBX, GPR_RBX, GPR_RBP, GPR_RBP,
                                          GPR_RSI, GPR_RDI, GPR_RBP, GPR_RBX };
        unsigned mod = insn->modrm >> 6, rm = insn->modrm & 7;
        insn->base = bases[rm];
        insn->index = rm < 4 ? (rm & 1 ? GPR_RDI : GPR_RSI) : REG_NONE;
        if (mod == 0 && rm == 6)
                insn->base = REG_NONE;
        insn->disp_size = (uint8_t)(mod == 1 ? 1 : mod == 2 || (mod == 0 && rm == 6) ? 2 : 0);
        return need(c, insn->disp_size);
}

static int memory_32(struct cursor *c, enum decode_mode mode, struct insn *insn)
{
        unsigned mod = insn->modrm >> 6, rm = insn->modrm & 7;
        unsigned b = insn->rex & 1 ? 8 : 0, x = insn->rex & 2 ? 8 : 0;
        insn->base = (uint8_t)(rm | b);
        if (rm == 4) {
                int r = need(c, 1);
                if (r < 0)
                        return r;
                uint8_t sib = (uint8_t)take(c, 1);
                insn->scale = sib >> 6;
                insn->index = (uint8_t)((sib >> 3 & 7) | x);
                if (insn->index == 4 && !(insn->row->properties & VSIB))
                        insn->index = REG_NONE;
                insn->base = (uint8_t)((sib & 7) | b);
                if ((sib & 7) == 5 && mod == 0) {
                        insn->base = REG_NONE;
                        insn->disp_size = 4;
                }
        } else if (rm == 5 && mod == 0) {
                insn->base = mode == DECODE_64 ? BASE_RIP : REG_NONE;
                insn->disp_size = 4;
        }
        if (mod)
                insn->disp_size = mod == 1 ? 1 : 4;
        return need(c, insn->disp_size);
}

static int memory_operand(struct cursor *c, enum decode_mode mode, struct insn *insn)
{
        insn->is_mem = true;
        if (insn->row->properties & VSIB && (insn->adsize == 2 || (insn->modrm & 7) != 4))
                return DECODE_INVALID;
        int r = insn->adsize == 2 ? memory_16(c, insn) : memory_32(c, mode, insn);
        if (r < 0)
                return r;
        if (insn->disp_size) {
                insn->disp_at = (uint8_t)c->at;
                insn->disp = sign_extend(take(c, insn->disp_size), insn->disp_size);
        }
        if (insn->seg == REG_NONE)
                insn->seg = insn->base == GPR_RSP || insn->base == GPR_RBP ? SEG_SS : SEG_DS;
        return 1;
}

static int moffs(struct cursor *c, struct insn *insn)
{
        int r = need(c, insn->adsize);
        if (r < 0)
                return r;
        insn->is_mem = true;
        insn->disp_at = (uint8_t)c->at;
        insn->disp_size = insn->adsize;
        insn->disp = (int64_t)take(c, insn->adsize);
        if (insn->seg == REG_NONE)
                insn->seg = SEG_DS;
        return 1;
}

static int immediate(struct cursor *c, struct operand o, struct insn *insn)
{
        unsigned size = 1;
        if (o.size == SZ_W)
                size = 2;
        else if (o.size == SZ_Z || o.kind == OPK_FARP)
                size = insn->opsize == 2 ? 2 : 4;
        else if (o.size == SZ_V)
                size = insn->opsize;
        unsigned extra = o.kind == OPK_FARP ? 2 : insn->op == OP_ENTER ? 1 : 0;
        int r = need(c, size + extra);
        if (r < 0)
                return r;
        insn->imm_at = (uint8_t)c->at;
        insn->imm_size = (uint8_t)(size + extra);
        insn->imm = take(c, size);
        if (o.kind == OPK_J || insn->row->properties & SX)
                insn->imm = (uint64_t)sign_extend(insn->imm, size);
        if (extra)
                insn->imm2 = (uint16_t)take(c, extra);
        if (o.kind == OPK_L)
                insn->is4 = (uint8_t)insn->imm >> 4;
        return 1;
}

unsigned insn_operand_size(const struct insn *insn, struct operand o)
{
        unsigned x = insn->vex_l ? 32 : 16;
        switch ((enum operand_size)o.size) {
        case SZ_B:
                return 1;
        case SZ_W:
                return 2;
        case SZ_D:
                return 4;
        case SZ_Q:
                return 8;
        case SZ_DQ:
                return 16;
        case SZ_QQ:
                return 32;
        case SZ_V:
                return insn->opsize;
        case SZ_Z:
                return insn->opsize == 2 ? 2 : 4;
        case SZ_Y:
        case SZ_FS:
                return insn->w ? 8 : 4;
        case SZ_X:
                return x;
        case SZ_HX:
                return x / 2;
        case SZ_QX:
                return x / 4;
        case SZ_EX:
                return x / 8;
        case SZ_DUP:
                return insn->vex_l ? 32 : 8;
        case SZ_DB:
                return insn->is_mem ? 1 : 4;
        case SZ_DW:
                return insn->is_mem ? 2 : 4;
        case SZ_VW:
                return insn->is_mem ? 2 : insn->opsize;
        case SZ_P:
                return 2u + insn->opsize;
        case SZ_2V:
                return insn->op == OP_CMPXCHG8B && insn->opsize != 8 ? 8 : 2u * insn->opsize;
        case SZ_T:
                return insn->adsize == 8 || insn->opsize == 8 ? 10 : 6;
        case SZ_S64:
                return insn->opsize;
        case SZ_BIG:
                return 512;
        case SZ_F87:
        case SZ_NONE:
                return 0;
        }
        return 0;
}

/* General register `n` as a bit; byte registers 4-7 without REX are AH-BH. */
static uint16_t gpr_bit(const struct insn *insn, unsigned n, unsigned size)
{
        if (size == 1 && !insn->rex && n >= 4 && n < 8)
                n -= 4;
        return (uint16_t)(1u << n);
}

static void note_access(struct insn *insn, uint16_t bit, bool read, bool write)
{
        if (read)
                insn->gpr_read |= bit;
        if (write)
                insn->gpr_written |= bit;
}

static void note_memory(struct insn *insn, struct operand o, bool read, bool write)
{
        insn->mem_size = (uint16_t)insn_operand_size(insn, o);
        insn->mem_read = insn->mem_size && read;
        insn->mem_write = insn->mem_size && write;
        uint64_t p = insn->row->properties;
        if (o.kind == OPK_W && insn->mem_size >= 16)
                insn->mem_aligned = insn->vex ? (p & ALIGNED) != 0
                                              : !(p & NOALIGN) && insn->mem_size == 16;
}

/* Fills register sets and the memory operand's size from operand `i`. */
static void note_operand(struct insn *insn, unsigned i)
{
        struct operand o = insn->row->operands[i];
        uint64_t p = insn->row->properties;
        bool read = true, write = false;
        if (i == 0) {
                read = !(p & DW);
                write = !(p & RO);
        } else if (i == 1 && p & (RW2 | DW2)) {
                read = !(p & DW2);
                write = true;
        }
        unsigned size = insn_operand_size(insn, o);
        /* 8- and 16-bit results leave the rest of the register as it was. */
        bool partial = write && size < 4;
        switch (o.kind) {
        case OPK_E:
        case OPK_W:
        case OPK_Q:
                if (insn->is_mem)
                        note_memory(insn, o, read, write);
                else if (o.kind == OPK_E && o.size != SZ_F87)
                        note_access(insn, gpr_bit(insn, insn->rm, size), read || partial, write);
                break;
        case OPK_G:
                note_access(insn, gpr_bit(insn, insn->reg, size), read || partial, write);
                break;
        case OPK_B:
                note_access(insn, (uint16_t)(1u << insn->vvvv), read, write);
                break;
        case OPK_Z:
                note_access(insn, gpr_bit(insn, insn->rm, size), read || partial, write);
                break;
        case OPK_A:
                note_access(insn, 1, read || partial, write);
                break;
        case OPK_CL:
                insn->gpr_read |= 2;
                break;
        case OPK_DX:
                insn->gpr_read |= 4;
                break;
        case OPK_O:
                note_memory(insn, o, read, write);
                break;
        default:
                break;
        }
}

static void note_flags(struct insn *insn)
{
        static const uint16_t condition[8] = { FLAG_OF,           FLAG_CF,
                                               FLAG_ZF,           FLAG_CF | FLAG_ZF,
                                               FLAG_SF,           FLAG_PF,
                                               FLAG_SF | FLAG_OF, FLAG_ZF | FLAG_SF | FLAG_OF };
        insn->eflags = insn_flag_effects[insn->row->flags];
        if (insn->row->flags == F_CC)
                insn->eflags.read = insn->op == OP_LOOPE || insn->op == OP_LOOPNE
                                            ? FLAG_ZF
                                            : condition[insn->code >> 1 & 7];
        bool shift = insn->op >= OP_ROL && insn->op <= OP_SHRD;
        if (shift) {
                /* A zero count changes nothing; RCL by 9 or 17 may be zero too. */
                uint8_t counts = insn_operand_size(insn, insn->row->operands[0]) == 8 ? 63 : 31;
                if (insn->gpr_read & 2 || (insn->imm_size && !(insn->imm & counts)) ||
                    insn->op == OP_RCL || insn->op == OP_RCR)
                        insn->eflags.read |= insn->eflags.write;
        }
        if (insn->op == OP_X87 && !insn->is_mem) {
                unsigned escape = insn->code & 7, reg = insn->modrm >> 3 & 7;
                if ((escape == 2 || escape == 3) && reg < 4)
                        insn->eflags.read = FLAG_CF | FLAG_ZF | FLAG_PF;
                if ((escape == 3 || escape == 7) && (reg == 5 || reg == 6))
                        insn->eflags.write = FLAGS_ARITHMETIC;
        }
}

static void note_implicit(struct insn *insn)
{
        const struct decode_implicit *implicit = &decode_implicit[insn->op];
        insn->gpr_read |= implicit->read;
        insn->gpr_written |= implicit->written;
        /* Byte multiplication and division use AX only, unless DL is named. */
        if (insn->op >= OP_MUL && insn->op <= OP_IDIV && insn->op != OP_IMUL &&
            insn->code == 0xf6) {
                bool names_rdx = !insn->is_mem && gpr_bit(insn, insn->rm, 1) == 4;
                if (!names_rdx)
                        insn->gpr_read &= (uint16_t)~4;
                insn->gpr_written &= (uint16_t)~4;
        }
        if (insn->rep && insn->op >= OP_MOVS && insn->op <= OP_OUTS) {
                insn->gpr_read |= 2;
                insn->gpr_written |= 2;
        }
        if (insn->op == OP_X87 && insn->code == 0xdf && insn->modrm == 0xe0)
                insn->gpr_written |= 1;
        if (!insn->is_mem)
                return;
        if (insn->base < 16)
                insn->gpr_read |= (uint16_t)(1u << insn->base);
        if (insn->index < 16 && !(insn->row->properties & VSIB))
                insn->gpr_read |= (uint16_t)(1u << insn->index);
}

static uint8_t insn_class(const struct insn *insn)
{
        uint64_t p = insn->row->properties;
        if (p & CTL)
                return CLASS_CONTROL;
        if (p & PRV)
                return CLASS_PRIVILEGED;
        if (p & HLP)
                return CLASS_HELPER;
        return insn->is_mem && insn->mem_size ? CLASS_MEMORY : CLASS_COPY;
}

static int x87_form(struct insn *insn)
{
        unsigned escape = insn->code & 7, reg = insn->modrm >> 3 & 7;
        if (!insn->is_mem)
                return decode_x87_register[escape][reg] >> (insn->modrm & 7) & 1 ? 1
                                                                                 : DECODE_INVALID;
        int size = decode_x87_memory[escape][reg];
        if (size == 0)
                return DECODE_INVALID;
        insn->mem_read = size > 0;
        insn->mem_write = size < 0;
        size = size < 0 ? -size : size;
        if (size >= 28 && insn->opsize == 2)
                size -= 14;
        insn->mem_size = (uint16_t)size;
        return 1;
}

/* What the rows do not express. */
static int check_special(const struct insn *insn)
{
        if (insn->lock && !(insn->row->properties & LOCKS && insn->is_mem))
                return DECODE_INVALID;
        switch (insn->op) {
        case OP_MOV_FROM_SEG:
                return insn->reg % 8 < 6 ? 1 : DECODE_INVALID;
        case OP_MOV_TO_SEG:
                return insn->reg % 8 < 6 && insn->reg % 8 != 1 ? 1 : DECODE_INVALID;
        case OP_MOV_FROM_CR:
        case OP_MOV_TO_CR:
                return 0x11d >> insn->reg & 1 ? 1 : DECODE_INVALID;
        case OP_MOV_FROM_DR:
        case OP_MOV_TO_DR:
                return insn->reg < 8 ? 1 : DECODE_INVALID;
        case OP_VGATHER:
                return insn->reg != insn->vvvv && insn->reg != insn->index &&
                                       insn->vvvv != insn->index
                               ? 1
                               : DECODE_INVALID;
        default:
                return 1;
        }
}

static void register_numbers(enum decode_mode mode, struct insn *insn)
{
        unsigned r = insn->rex & 4 ? 8 : 0, b = insn->rex & 1 ? 8 : 0;
        if (insn->has_modrm) {
                insn->reg = (uint8_t)((insn->modrm >> 3 & 7) | r);
                insn->rm = (uint8_t)((insn->modrm & 7) | b);
                /* Segment and MMX registers ignore the extension. */
                for (unsigned i = 0; i < 4; i++) {
                        if (insn->row->operands[i].kind == OPK_P ||
                            insn->row->operands[i].kind == OPK_S)
                                insn->reg &= 7;
                        if (insn->row->operands[i].kind == OPK_Q && insn->modrm >= 0xc0)
                                insn->rm &= 7;
                }
        } else {
                insn->rm = (uint8_t)((insn->code & 7) | b);
        }
        if (mode != DECODE_64)
                insn->vvvv &= 7;
}

static int operands(struct cursor *c, enum decode_mode mode, struct insn *insn)
{
        const struct opcode *row = insn->row;
        int r;
        if (insn->has_modrm && insn->modrm < 0xc0 && !(row->properties & MODREG)) {
                r = memory_operand(c, mode, insn);
                if (r <= 0)
                        return r;
        }
        for (unsigned i = 0; i < 4; i++) {
                switch (row->operands[i].kind) {
                case OPK_O:
                        r = moffs(c, insn);
                        break;
                case OPK_I:
                case OPK_J:
                case OPK_FARP:
                case OPK_L:
                        r = immediate(c, row->operands[i], insn);
                        break;
                default:
                        r = 1;
                }
                if (r < 0)
                        return r;
        }
        if (mode != DECODE_64)
                insn->is4 &= 7;
        if (insn->seg == REG_NONE)
                insn->seg = SEG_DS;
        return 1;
}

/* TZCNT and LZCNT: BSF and BSR with a prefix that those do not know. */
static bool is_zero_count(const struct insn *insn)
{
        return insn->map == MAP_0F && !insn->vex && (insn->code & 0xfe) == 0xbc &&
               insn->pp == PP_F3;
}

static int decode_with(const uint8_t *bytes, size_t size, enum decode_mode mode, bool older,
                       struct insn *ret)
{
        struct cursor c = { bytes, size, 0 };
        struct insn *insn = ret;
        *insn = (struct insn){ .seg = REG_NONE, .base = REG_NONE, .index = REG_NONE };
        int r = prefixes(&c, mode, insn);
        if (r > 0)
                r = opcode_byte(&c, mode, insn);
        if (r <= 0)
                return r;
        insn->w = insn->rex & 8;
        if (older && is_zero_count(insn)) {
                insn->pp = insn->has_66 ? PP_66 : PP_NONE;
                insn->rep = 0;
        }
        r = find_row(&c, mode, insn);
        if (r <= 0)
                return r;
        register_numbers(mode, insn);
        find_sizes(mode, insn);
        r = operands(&c, mode, insn);
        if (r > 0)
                r = check_special(insn);
        if (r <= 0)
                return r;
        for (unsigned i = 0; insn->op != OP_NOP && i < 4 && insn->row->operands[i].kind; i++)
                note_operand(insn, i);
        if (insn->op == OP_X87) {
                r = x87_form(insn);
                if (r <= 0)
                        return r;
        }
        note_implicit(insn);
        note_flags(insn);
        insn->class = insn_class(insn);
        insn->length = (uint8_t)c.at;
        return insn->length;
}

int decode(const uint8_t *bytes, size_t size, enum decode_mode mode, struct insn *ret)
{
        return decode_with(bytes, size, mode, false, ret);
}

int decode_for(uint64_t features, const uint8_t *bytes, size_t size, enum decode_mode mode,
               struct insn *ret)
{
        int r = decode_with(bytes, size, mode, false, ret);
        bool older = r > 0 && is_zero_count(ret) &&
                     !(features >> FEAT_OF(ret->row->properties) & 1);
        if (!older)
                return r;
        r = decode_with(bytes, size, mode, true, ret);
        ret->class = CLASS_HELPER; /* the host does know the prefix */
        return r;
}

const char *insn_op_name(unsigned op)
{
        static const char *const names[INSN_OP_COUNT] = { [OP_INVALID] = "INVALID",
#define X(name) [OP_##name] = #name,
                                                          INSN_OPS(X)
#undef X
        };
        return op < INSN_OP_COUNT ? names[op] : "?";
}
