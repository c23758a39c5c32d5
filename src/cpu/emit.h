/* Writes x86-64 machine code: the forms that the translator needs.
 *
 * An emitter is a cursor into the writable view of the code cache. Whoever emits
 * has made sure of enough room (translate.c: TRANSLATE_ROOM per block). Registers
 * are numbers 0 to 15. "gs" forms address a field of the current `struct cpu` by
 * its offset: the host's GS base points to it while translated code runs.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct emitter {
        uint8_t *at;
};

#define EMIT_GS_PREFIX 0x65

static inline void emit1(struct emitter *e, unsigned byte)
{
        *e->at++ = (uint8_t)byte;
}

static inline void emit4(struct emitter *e, uint32_t value)
{
        memcpy(e->at, &value, 4);
        e->at += 4;
}

static inline void emit8(struct emitter *e, uint64_t value)
{
        memcpy(e->at, &value, 8);
        e->at += 8;
}

/* ModRM and SIB of the absolute field at `offset`, with `reg` in the reg field. */
static inline void emit_field(struct emitter *e, unsigned reg, uint32_t offset)
{
        emit1(e, (reg & 7) << 3 | 4);
        emit1(e, 0x25);
        emit4(e, offset);
}

/* The same indexed: [offset + index * 8]. */
static inline void emit_field_index(struct emitter *e, unsigned reg, unsigned index,
                                    uint32_t offset)
{
        emit1(e, (reg & 7) << 3 | 4);
        emit1(e, 0xc0 | (index & 7) << 3 | 5);
        emit4(e, offset);
}

/* op reg64, gs:[offset] or op gs:[offset], reg64, as `opcode` says. */
static inline void emit_gs(struct emitter *e, unsigned opcode, unsigned reg, uint32_t offset)
{
        emit1(e, EMIT_GS_PREFIX);
        emit1(e, 0x48 | (reg & 8 ? 4 : 0));
        emit1(e, opcode);
        emit_field(e, reg, offset);
}

/* The same with 32 bits. */
static inline void emit_gs32(struct emitter *e, unsigned opcode, unsigned reg, uint32_t offset)
{
        emit1(e, EMIT_GS_PREFIX);
        if (reg & 8)
                emit1(e, 0x44);
        emit1(e, opcode);
        emit_field(e, reg, offset);
}

/* The same with a byte offset: [offset + index]. */
static inline void emit_field_at(struct emitter *e, unsigned reg, unsigned index, uint32_t offset)
{
        emit1(e, (reg & 7) << 3 | 4);
        emit1(e, (index & 7) << 3 | 5);
        emit4(e, offset);
}

static inline void emit_gs_at(struct emitter *e, unsigned opcode, unsigned reg, unsigned index,
                              uint32_t offset)
{
        emit1(e, EMIT_GS_PREFIX);
        emit1(e, 0x48 | (reg & 8 ? 4 : 0) | (index & 8 ? 2 : 0));
        emit1(e, opcode);
        emit_field_at(e, reg, index, offset);
}

static inline void emit_gs_index(struct emitter *e, unsigned opcode, unsigned reg, unsigned index,
                                 uint32_t offset)
{
        emit1(e, EMIT_GS_PREFIX);
        emit1(e, 0x48 | (reg & 8 ? 4 : 0) | (index & 8 ? 2 : 0));
        emit1(e, opcode);
        emit_field_index(e, reg, index, offset);
}

#define EMIT_LOAD  0x8b
#define EMIT_STORE 0x89
#define EMIT_ADD   0x03

/* mov dword gs:[offset], value */
static inline void emit_gs_set32(struct emitter *e, uint32_t offset, uint32_t value)
{
        emit1(e, EMIT_GS_PREFIX);
        emit1(e, 0xc7);
        emit_field(e, 0, offset);
        emit4(e, value);
}

/* The same of 64 bits, in two stores. */
static inline void emit_gs_set64(struct emitter *e, uint32_t offset, uint64_t value)
{
        emit_gs_set32(e, offset, (uint32_t)value);
        emit_gs_set32(e, offset + 4, (uint32_t)(value >> 32));
}

/* jmp gs:[index + offset] */
static inline void emit_gs_at_jump(struct emitter *e, unsigned index, uint32_t offset)
{
        emit1(e, EMIT_GS_PREFIX);
        if (index & 8)
                emit1(e, 0x42);
        emit1(e, 0xff);
        emit_field_at(e, 4, index, offset);
}

/* jmp gs:[offset] */
static inline void emit_gs_jump(struct emitter *e, uint32_t offset)
{
        emit1(e, EMIT_GS_PREFIX);
        emit1(e, 0xff);
        emit_field(e, 4, offset);
}

/* cmp dword gs:[offset], 0 */
static inline void emit_gs_is_zero(struct emitter *e, uint32_t offset)
{
        emit1(e, EMIT_GS_PREFIX);
        emit1(e, 0x83);
        emit_field(e, 7, offset);
        emit1(e, 0);
}

#define EMIT_PEXT 2
#define EMIT_PDEP 3

/* pext or pdep to, from, gs:[offset]: flags are not touched. */
static inline void emit_bits_gs(struct emitter *e, unsigned which, unsigned to, unsigned from,
                                uint32_t offset)
{
        emit1(e, EMIT_GS_PREFIX);
        emit1(e, 0xc4);
        emit1(e, (to & 8 ? 0 : 0x80) | 0x62);
        emit1(e, 0x80 | (~from & 15) << 3 | which);
        emit1(e, 0xf5);
        emit_field(e, to, offset);
}

static inline void emit_pext_gs(struct emitter *e, unsigned to, unsigned from, uint32_t offset)
{
        emit_bits_gs(e, EMIT_PEXT, to, from, offset);
}

/* rorx to, from, count of 64 bits: flags are not touched. */
static inline void emit_rotate(struct emitter *e, unsigned to, unsigned from, unsigned count)
{
        emit1(e, 0xc4);
        emit1(e, (to & 8 ? 0 : 0x80) | 0x40 | (from & 8 ? 0 : 0x20) | 3);
        emit1(e, 0xfb);
        emit1(e, 0xf0);
        emit1(e, 0xc0 | (to & 7) << 3 | (from & 7));
        emit1(e, count);
}

/* sarx to, from, count of 64 or 32 bits: flags are not touched. */
static inline void emit_sarx(struct emitter *e, bool wide, unsigned to, unsigned from,
                             unsigned count)
{
        emit1(e, 0xc4);
        emit1(e, (to & 8 ? 0 : 0x80) | 0x40 | (from & 8 ? 0 : 0x20) | 2);
        emit1(e, (wide ? 0x80u : 0) | (~count & 15) << 3 | 2);
        emit1(e, 0xf7);
        emit1(e, 0xc0 | (to & 7) << 3 | (from & 7));
}

/* movsxd reg64, reg32 */
static inline void emit_sign_extend(struct emitter *e, unsigned reg)
{
        emit1(e, 0x48 | (reg & 8 ? 5u : 0));
        emit1(e, 0x63);
        emit1(e, 0xc0 | (reg & 7) << 3 | (reg & 7));
}

/* not reg64: flags are not touched. */
static inline void emit_not(struct emitter *e, unsigned reg)
{
        emit1(e, 0x48 | (reg & 8 ? 1u : 0));
        emit1(e, 0xf7);
        emit1(e, 0xd0 | (reg & 7));
}

/* mov reg32, value */
static inline void emit_set32(struct emitter *e, unsigned reg, uint32_t value)
{
        if (reg & 8)
                emit1(e, 0x41);
        emit1(e, 0xb8 | (reg & 7));
        emit4(e, value);
}

/* and reg32, mask */
static inline void emit_and(struct emitter *e, unsigned reg, uint32_t mask)
{
        if (reg & 8)
                emit1(e, 0x41);
        emit1(e, 0x81);
        emit1(e, 0xe0 | (reg & 7));
        emit4(e, mask);
}

#define EMIT_NO_REG 0xffu

/* ModRM, SIB and displacement of [base + index << scale + disp] in 64-bit code;
 * base and index may be EMIT_NO_REG. */
static inline void emit_memory(struct emitter *e, unsigned reg, unsigned base, unsigned index,
                               unsigned scale, int32_t disp)
{
        unsigned r = (reg & 7) << 3;
        if (base == EMIT_NO_REG) {
                emit1(e, r | 4);
                emit1(e, scale << 6 | (index == EMIT_NO_REG ? 4 : index & 7) << 3 | 5);
                emit4(e, (uint32_t)disp);
                return;
        }
        bool none = disp == 0 && (base & 7) != 5, small = disp >= -128 && disp <= 127;
        unsigned mod = none ? 0 : small ? 0x40 : 0x80;
        if (index == EMIT_NO_REG && (base & 7) != 4) {
                emit1(e, mod | r | (base & 7));
        } else {
                emit1(e, mod | r | 4);
                emit1(e, scale << 6 | (index == EMIT_NO_REG ? 4 : index & 7) << 3 | (base & 7));
        }
        if (!none && small)
                emit1(e, (uint8_t)disp);
        else if (!none)
                emit4(e, (uint32_t)disp);
}

static inline unsigned emit_rex(unsigned reg, unsigned base, unsigned index)
{
        return (reg & 8 ? 4u : 0) | (index != EMIT_NO_REG && index & 8 ? 2u : 0) |
               (base != EMIT_NO_REG && base & 8 ? 1u : 0);
}

/* lea reg, [base + index << scale + disp]: flags are not touched. */
static inline void emit_lea(struct emitter *e, unsigned reg, unsigned base, unsigned index,
                            unsigned scale, int32_t disp)
{
        emit1(e, 0x48 | emit_rex(reg, base, index));
        emit1(e, 0x8d);
        emit_memory(e, reg, base, index, scale, disp);
}

/* lea reg, [rip + displacement]; its place is the four bytes before the next instruction. */
static inline void emit_lea_code(struct emitter *e, unsigned reg)
{
        emit1(e, 0x48 | (reg & 8 ? 4u : 0));
        emit1(e, 0x8d);
        emit1(e, (reg & 7) << 3 | 5);
        emit4(e, 0);
}

/* mov between reg64 and [base + index]. */
static inline void emit_mov(struct emitter *e, unsigned opcode, unsigned reg, unsigned base,
                            unsigned index)
{
        emit1(e, 0x48 | emit_rex(reg, base, index));
        emit1(e, opcode);
        emit_memory(e, reg, base, index, 0, 0);
}

/* mov between reg64 and [base + index + disp]. */
static inline void emit_mov_place(struct emitter *e, unsigned opcode, unsigned reg, unsigned base,
                                  unsigned index, int32_t disp)
{
        emit1(e, 0x48 | emit_rex(reg, base, index));
        emit1(e, opcode);
        emit_memory(e, reg, base, index, 0, disp);
}

/* mov to, from of 64 bits */
static inline void emit_mov_reg(struct emitter *e, unsigned to, unsigned from)
{
        emit1(e, 0x48 | (from & 8 ? 4u : 0) | (to & 8 ? 1u : 0));
        emit1(e, EMIT_STORE);
        emit1(e, 0xc0 | (from & 7) << 3 | (to & 7));
}

/* jmp rel32 or jcc rel32; the place of the displacement is returned. */
static inline uint8_t *emit_jump(struct emitter *e)
{
        emit1(e, 0xe9);
        emit4(e, 0);
        return e->at - 4;
}

static inline uint8_t *emit_jump_if(struct emitter *e, unsigned condition)
{
        emit1(e, 0x0f);
        emit1(e, 0x80 | condition);
        emit4(e, 0);
        return e->at - 4;
}

/* Lets the displacement at `from` lead to `to`. */
static inline void emit_patch(uint8_t *from, const uint8_t *to)
{
        int32_t distance = (int32_t)(to - (from + 4));
        memcpy(from, &distance, 4);
}

/* jrcxz over the next `skip` bytes. */
static inline void emit_jrcxz(struct emitter *e, unsigned skip)
{
        emit1(e, 0xe3);
        emit1(e, skip);
}
