/* The decoder against Zydis: random encodings over all opcode maps and modes
 * must agree in legality and length, and our register, flag and memory facts
 * must cover Zydis's. Seeds are fixed; ISLE_DECODE_CASES sets how many. */
#include "cpu/decode.h"

#include <Zydis/Zydis.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t rnd(void)
{
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        return seed * 0x2545f4914f6cdd1d >> 16;
}

/* Instruction sets hidden from the guest: ours says #UD on purpose. */
static bool hidden_set(const ZydisDecodedInstruction *z)
{
        if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
            z->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX ||
            z->encoding == ZYDIS_INSTRUCTION_ENCODING_XOP ||
            z->encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW)
                return true;
        switch (z->meta.isa_ext) {
        case ZYDIS_ISA_EXT_VTX:
        case ZYDIS_ISA_EXT_SVM:
        case ZYDIS_ISA_EXT_SMX:
        case ZYDIS_ISA_EXT_SGX:
        case ZYDIS_ISA_EXT_RTM:
        case ZYDIS_ISA_EXT_MPX:
        case ZYDIS_ISA_EXT_CET:
        case ZYDIS_ISA_EXT_FMA4:
        case ZYDIS_ISA_EXT_TBM:
        case ZYDIS_ISA_EXT_SSE4A:
        case ZYDIS_ISA_EXT_AMD3DNOW:
        case ZYDIS_ISA_EXT_XSAVES:
        case ZYDIS_ISA_EXT_MONITOR:
        case ZYDIS_ISA_EXT_MONITORX:
        case ZYDIS_ISA_EXT_CLZERO:
        case ZYDIS_ISA_EXT_PT:
        case ZYDIS_ISA_EXT_GFNI:
        case ZYDIS_ISA_EXT_VAES:
        case ZYDIS_ISA_EXT_VPCLMULQDQ:
        case ZYDIS_ISA_EXT_MOVDIR:
        case ZYDIS_ISA_EXT_WAITPKG:
        case ZYDIS_ISA_EXT_CLDEMOTE:
        case ZYDIS_ISA_EXT_ENQCMD:
        case ZYDIS_ISA_EXT_SERIALIZE:
        case ZYDIS_ISA_EXT_TSX_LDTRK:
        case ZYDIS_ISA_EXT_KEYLOCKER:
        case ZYDIS_ISA_EXT_KEYLOCKER_WIDE:
        case ZYDIS_ISA_EXT_UINTR:
        case ZYDIS_ISA_EXT_HRESET:
        case ZYDIS_ISA_EXT_AVX_VNNI:
        case ZYDIS_ISA_EXT_AMX_TILE:
        case ZYDIS_ISA_EXT_AMX_INT8:
        case ZYDIS_ISA_EXT_AMX_BF16:
        case ZYDIS_ISA_EXT_SNP:
        case ZYDIS_ISA_EXT_MCOMMIT:
        case ZYDIS_ISA_EXT_RDPRU:
        case ZYDIS_ISA_EXT_PADLOCK:
        case ZYDIS_ISA_EXT_KNC:
        case ZYDIS_ISA_EXT_KNCE:
        case ZYDIS_ISA_EXT_KNCV:
        case ZYDIS_ISA_EXT_TDX:
        case ZYDIS_ISA_EXT_VMFUNC:
        case ZYDIS_ISA_EXT_AMD_INVLPGB:
        case ZYDIS_ISA_EXT_SGX_ENCLV:
        case ZYDIS_ISA_EXT_PCONFIG:
        case ZYDIS_ISA_EXT_AVX512EVEX:
        case ZYDIS_ISA_EXT_AVX512VEX: /* mask registers */
                return true;
        default:
                break;
        }
        switch (z->mnemonic) {
        case ZYDIS_MNEMONIC_RSM: /* no SMM */
        case ZYDIS_MNEMONIC_PCONFIG:
        case ZYDIS_MNEMONIC_PTWRITE:
        case ZYDIS_MNEMONIC_VPERMIL2PS: /* AMD XOP */
        case ZYDIS_MNEMONIC_VPERMIL2PD:
                return true;
        default:
                return false;
        }
}

/* Encodings we accept on purpose and Zydis 4.0.0 does not. */
static bool justified(const struct insn *ours)
{
        /* 0F 1A and 0F 1B with other than MPX's operands: reserved no-operations,
         * all of them without MPX. */
        return ours->map == MAP_0F && (ours->code == 0x1a || ours->code == 0x1b);
}

static size_t make_case(uint8_t *b, enum decode_mode mode)
{
        static const uint8_t legacy[] = { 0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x36,
                                          0x3e, 0x26, 0x64, 0x65, 0xf0 };
        size_t n = 0;
        for (size_t i = 0; i < 24; i++)
                b[i] = (uint8_t)rnd();
        if (rnd() % 8 == 0)
                return 24;
        while (rnd() % 3 == 0 && n < 3)
                b[n++] = legacy[rnd() % sizeof(legacy)];
        switch (rnd() % 10) {
        case 0:
        case 1:
                break;
        case 2:
        case 3:
                b[n++] = 0x0f;
                break;
        case 4:
                b[n++] = 0x0f;
                b[n++] = 0x38;
                break;
        case 5:
                b[n++] = 0x0f;
                b[n++] = 0x3a;
                break;
        case 6:
                b[n++] = 0xc5;
                if (mode != DECODE_64)
                        b[n] |= 0xc0;
                break;
        case 7:
        case 8:
                b[n++] = 0xc4;
                b[n] = (uint8_t)((b[n] & 0xe0) | (1 + rnd() % 3));
                if (mode != DECODE_64)
                        b[n] |= 0xc0;
                if (rnd() % 2)
                        b[n + 1] |= 0x78;
                break;
        default:
                if (mode == DECODE_64)
                        b[n++] = (uint8_t)(0x40 | (rnd() & 15));
                if (rnd() % 2)
                        b[n++] = 0x0f;
        }
        return 24;
}

static uint16_t zydis_gpr(ZydisRegister reg)
{
        ZydisRegister big = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
        if (big < ZYDIS_REGISTER_RAX || big > ZYDIS_REGISTER_R15)
                return 0;
        return (uint16_t)(1u << (big - ZYDIS_REGISTER_RAX));
}

/* Our facts about registers and memory must cover those of Zydis. */
static bool facts_cover(const struct insn *i, const ZydisDecodedInstruction *z,
                        const ZydisDecodedOperand *ops, const char **what)
{
        if (i->op == OP_NOP) /* RDSSP and the like: no-operations without CET */
                return true;
        for (unsigned n = 0; n < z->operand_count; n++) {
                const ZydisDecodedOperand *o = &ops[n];
                bool r = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
                bool w = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
                if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
                        uint16_t bit = zydis_gpr(o->reg.value);
                        *what = "register read";
                        if (r && bit & ~i->gpr_read)
                                return false;
                        *what = "register written";
                        if (w && bit & ~i->gpr_written)
                                return false;
                } else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
                        uint16_t bits = (uint16_t)(zydis_gpr(o->mem.base) |
                                                   zydis_gpr(o->mem.index));
                        *what = "address register";
                        /* Zydis 4.0.0 names r13d where SIB has no base and REX.B is set. */
                        if (i->has_67 && i->base == REG_NONE && i->rex & 1)
                                bits &= (uint16_t) ~(1u << 13);
                        if (bits & ~i->gpr_read)
                                return false;
                        if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM || !i->is_mem ||
                            o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
                                continue;
                        *what = "memory size";
                        bool sized = i->class == CLASS_COPY || i->class == CLASS_MEMORY;
                        if (sized && i->mem_size && i->op != OP_X87 && o->size / 8 != i->mem_size &&
                            i->op != OP_BTC && i->op != OP_BTR && i->op != OP_BTS && i->op != OP_BT)
                                return false;
                        *what = "memory access";
                        if (sized && i->mem_size && (r != i->mem_read || w != i->mem_write) &&
                            i->op != OP_CMPXCHG && i->op != OP_CMPXCHG8B)
                                return false;
                }
        }
        return true;
}

static bool flags_cover(const struct insn *i, const ZydisDecodedInstruction *z, const char **what)
{
        const ZydisAccessedFlags *f = z->cpu_flags;
        if (!f || i->class >= CLASS_CONTROL || i->op == OP_X87)
                return true;
        uint32_t written = (f->modified | f->set_0 | f->set_1 | f->undefined) & FLAGS_ARITHMETIC;
        *what = "flags read";
        if (f->tested & FLAGS_ARITHMETIC & ~i->eflags.read)
                return false;
        if (z->mnemonic == ZYDIS_MNEMONIC_BEXTR) /* CF and OF are cleared (SDM) */
                return true;
        *what = "flags written";
        if (written & ~i->eflags.write)
                return false;
        *what = "flags undefined";
        if (i->op == OP_SBB) /* Zydis 4.0.0 calls its AF undefined; it is not */
                return true;
        return !(f->undefined & FLAGS_ARITHMETIC & ~i->eflags.undefined);
}

static void print_case(const char *what, enum decode_mode mode, const uint8_t *b, int ours,
                       const ZydisDecodedInstruction *z)
{
        printf("# mode %d %s ours %d zydis %d %s:", mode, what, ours, z ? z->length : -1,
               z ? ZydisMnemonicGetString(z->mnemonic) : "-");
        for (int i = 0; i < 12; i++)
                printf(" %02x", b[i]);
        printf("\n");
}

static unsigned compare(const ZydisDecoder *decoder, enum decode_mode mode)
{
        uint8_t b[24];
        make_case(b, mode);
        struct insn i;
        ZydisDecodedInstruction z;
        ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
        int ours = decode(b, sizeof(b), mode, &i);
        ZyanStatus status = ZydisDecoderDecodeFull(decoder, b, sizeof(b), &z, ops);
        bool z_ok = ZYAN_SUCCESS(status);
        if (z_ok && ours <= 0 && hidden_set(&z))
                return 0;
        if (!z_ok && ours > 0 && justified(&i))
                return 0;
        if (z_ok != (ours > 0) || (z_ok && z.length != ours)) {
                print_case("legality or length", mode, b, ours, z_ok ? &z : NULL);
                return 1;
        }
        const char *what = "";
        if (z_ok && (!facts_cover(&i, &z, ops, &what) || !flags_cover(&i, &z, &what))) {
                print_case(what, mode, b, ours, &z);
                return 1;
        }
        return 0;
}

static void decoder_agrees_with_zydis(void **state)
{
        (void)state;
        const char *cases = getenv("ISLE_DECODE_CASES");
        long count = cases ? atol(cases) : 400000;
        ZydisDecoder decoders[3];
        ZydisDecoderInit(&decoders[DECODE_16], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
        ZydisDecoderInit(&decoders[DECODE_32], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
        ZydisDecoderInit(&decoders[DECODE_64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
        unsigned wrong = 0;
        for (long n = 0; n < count && wrong < 400; n++) {
                enum decode_mode mode = n % 4 == 0 ? DECODE_16 : n % 4 == 1 ? DECODE_32 : DECODE_64;
                wrong += compare(&decoders[mode], mode);
        }
        assert_int_equal(wrong, 0);
}

static void short_and_long_inputs_are_told_apart(void **state)
{
        (void)state;
        struct insn i;
        static const uint8_t add[] = { 0x48, 0x81, 0x84, 0x91, 1, 2, 3, 4, 5, 6, 7, 8 };
        for (size_t size = 0; size < sizeof(add); size++)
                assert_int_equal(decode(add, size, DECODE_64, &i), DECODE_SHORT);
        assert_int_equal(decode(add, sizeof(add), DECODE_64, &i), sizeof(add));
        assert_int_equal(i.op, OP_ADD);
        assert_int_equal(i.base, 1);
        assert_int_equal(i.index, 2);
        assert_int_equal(i.disp, 0x04030201);
        assert_int_equal(i.imm, 0x08070605);
        uint8_t prefixes[20];
        memset(prefixes, 0x66, sizeof(prefixes));
        assert_int_equal(decode(prefixes, sizeof(prefixes), DECODE_64, &i), DECODE_LONG);
        assert_int_equal(decode(prefixes, 14, DECODE_64, &i), DECODE_SHORT);
}

int main(void)
{
        decode_init();
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(decoder_agrees_with_zydis),
                cmocka_unit_test(short_and_long_inputs_are_told_apart),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
