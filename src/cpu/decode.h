/* From instruction bytes to everything one needs to know to execute or
 * translate them. Pure: no state, no memory but what is passed in.
 *
 * decode() finds the row of the opcode tables (decode_rows.h) that matches the
 * bytes, checks that the encoding is legal for the processor we present, and
 * fills `struct insn`: where each part of the encoding lies (for re-encoding),
 * the operands, the memory operand's form, which general registers and flags
 * are read, written or left undefined, and the class:
 *
 *   COPY        no memory operand, no privilege: the same bytes do the same thing
 *               on the host (a register number may have to be renamed)
 *   MEMORY      the same with an explicit memory operand: ModRM is rewritten
 *   CONTROL     changes rip
 *   HELPER      needs the processor's own code: strings, segments, cpuid, stack
 *   PRIVILEGED  ring 0 or IOPL or mode dependent
 *
 * What the host implements but the guest must not see (EVEX, XOP, 3DNow!, VMX,
 * SVM, TSX, CET, MPX, AMX, ...) is simply not in the tables: DECODE_INVALID.
 *
 * Source: Intel SDM volume 2 appendix A; AMD APM volume 3 appendix A. Where the
 * two differ (operand size prefix on near branches in 64-bit mode) Intel's way.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum decode_mode { DECODE_16, DECODE_32, DECODE_64 };

enum decode_map { MAP_ONE, MAP_0F, MAP_0F38, MAP_0F3A, DECODE_MAPS };

enum insn_class { CLASS_COPY, CLASS_MEMORY, CLASS_CONTROL, CLASS_HELPER, CLASS_PRIVILEGED };

/* Mandatory prefix, in VEX.pp's numbering. */
enum insn_pp { PP_NONE, PP_66, PP_F3, PP_F2 };

#define INSN_OPS(X)                                                                                \
        /* ALU, in ModRM.reg order of group 1 */                                                   \
        X(ADD)                                                                                     \
        X(OR)                                                                                      \
        X(ADC)                                                                                     \
        X(SBB)                                                                                     \
        X(AND)                                                                                     \
        X(SUB)                                                                                     \
        X(XOR)                                                                                     \
        X(CMP)                                                                                     \
        X(TEST)                                                                                    \
        /* shifts, in group 2 order */                                                             \
        X(ROL)                                                                                     \
        X(ROR)                                                                                     \
        X(RCL)                                                                                     \
        X(RCR)                                                                                     \
        X(SHL)                                                                                     \
        X(SHR)                                                                                     \
        X(SAL)                                                                                     \
        X(SAR)                                                                                     \
        X(SHLD)                                                                                    \
        X(SHRD)                                                                                    \
        X(INC)                                                                                     \
        X(DEC)                                                                                     \
        X(NOT)                                                                                     \
        X(NEG)                                                                                     \
        X(MUL)                                                                                     \
        X(IMUL1)                                                                                   \
        X(IMUL)                                                                                    \
        X(DIV)                                                                                     \
        X(IDIV)                                                                                    \
        X(BT)                                                                                      \
        X(BTS)                                                                                     \
        X(BTR)                                                                                     \
        X(BTC)                                                                                     \
        X(BSF)                                                                                     \
        X(BSR)                                                                                     \
        X(BSWAP)                                                                                   \
        X(MOV)                                                                                     \
        X(MOVZX)                                                                                   \
        X(MOVSX)                                                                                   \
        X(MOVBE)                                                                                   \
        X(LEA)                                                                                     \
        X(XCHG)                                                                                    \
        X(XADD)                                                                                    \
        X(CMPXCHG)                                                                                 \
        X(CMPXCHG8B)                                                                               \
        X(CMOV)                                                                                    \
        X(SETCC)                                                                                   \
        X(CBW)                                                                                     \
        X(CWD)                                                                                     \
        X(LAHF)                                                                                    \
        X(SAHF)                                                                                    \
        X(CLC)                                                                                     \
        X(STC)                                                                                     \
        X(CMC)                                                                                     \
        X(CLD)                                                                                     \
        X(STD)                                                                                     \
        X(SALC)                                                                                    \
        X(XLAT)                                                                                    \
        X(DAA)                                                                                     \
        X(DAS)                                                                                     \
        X(AAA)                                                                                     \
        X(AAS)                                                                                     \
        X(AAM)                                                                                     \
        X(AAD)                                                                                     \
        X(NOP)                                                                                     \
        X(FENCE)                                                                                   \
        X(PUSH)                                                                                    \
        X(POP)                                                                                     \
        X(PUSHA)                                                                                   \
        X(POPA)                                                                                    \
        X(PUSHF)                                                                                   \
        X(POPF)                                                                                    \
        X(PUSH_SEG)                                                                                \
        X(POP_SEG)                                                                                 \
        X(ENTER)                                                                                   \
        X(LEAVE)                                                                                   \
        X(JMP)                                                                                     \
        X(JMP_IND)                                                                                 \
        X(JMP_FAR)                                                                                 \
        X(JMP_FAR_IND)                                                                             \
        X(JCC)                                                                                     \
        X(CALL)                                                                                    \
        X(CALL_IND)                                                                                \
        X(CALL_FAR)                                                                                \
        X(CALL_FAR_IND)                                                                            \
        X(RET)                                                                                     \
        X(RET_FAR)                                                                                 \
        X(IRET)                                                                                    \
        X(LOOP)                                                                                    \
        X(LOOPE)                                                                                   \
        X(LOOPNE)                                                                                  \
        X(JCXZ)                                                                                    \
        X(INT)                                                                                     \
        X(INT3)                                                                                    \
        X(INT1)                                                                                    \
        X(INTO)                                                                                    \
        X(BOUND)                                                                                   \
        X(UD)                                                                                      \
        X(MOVS)                                                                                    \
        X(CMPS)                                                                                    \
        X(STOS)                                                                                    \
        X(LODS)                                                                                    \
        X(SCAS)                                                                                    \
        X(INS)                                                                                     \
        X(OUTS)                                                                                    \
        X(IN)                                                                                      \
        X(OUT)                                                                                     \
        X(MOV_FROM_SEG)                                                                            \
        X(MOV_TO_SEG)                                                                              \
        X(LOAD_FAR)                                                                                \
        X(MOV_FROM_CR)                                                                             \
        X(MOV_TO_CR)                                                                               \
        X(MOV_FROM_DR)                                                                             \
        X(MOV_TO_DR)                                                                               \
        X(SGDT)                                                                                    \
        X(SIDT)                                                                                    \
        X(LGDT)                                                                                    \
        X(LIDT)                                                                                    \
        X(SLDT)                                                                                    \
        X(STR)                                                                                     \
        X(LLDT)                                                                                    \
        X(LTR)                                                                                     \
        X(VERR)                                                                                    \
        X(VERW)                                                                                    \
        X(LAR)                                                                                     \
        X(LSL)                                                                                     \
        X(ARPL)                                                                                    \
        X(SMSW)                                                                                    \
        X(LMSW)                                                                                    \
        X(CLTS)                                                                                    \
        X(INVLPG)                                                                                  \
        X(INVPCID)                                                                                 \
        X(SWAPGS)                                                                                  \
        X(RDTSC)                                                                                   \
        X(RDTSCP)                                                                                  \
        X(RDPMC)                                                                                   \
        X(RDPID)                                                                                   \
        X(RDMSR)                                                                                   \
        X(WRMSR)                                                                                   \
        X(CPUID)                                                                                   \
        X(SYSCALL)                                                                                 \
        X(SYSRET)                                                                                  \
        X(SYSENTER)                                                                                \
        X(SYSEXIT)                                                                                 \
        X(CLI)                                                                                     \
        X(STI)                                                                                     \
        X(CLAC)                                                                                    \
        X(STAC)                                                                                    \
        X(HLT)                                                                                     \
        X(INVD)                                                                                    \
        X(WBINVD)                                                                                  \
        X(CACHE_LINE)                                                                              \
        X(VMCALL)                                                                                  \
        X(SERIALIZE)                                                                               \
        X(XGETBV)                                                                                  \
        X(XSETBV)                                                                                  \
        X(RDPKRU)                                                                                  \
        X(WRPKRU)                                                                                  \
        X(RDFSBASE)                                                                                \
        X(RDGSBASE)                                                                                \
        X(WRFSBASE)                                                                                \
        X(WRGSBASE)                                                                                \
        X(FXSAVE)                                                                                  \
        X(FXRSTOR)                                                                                 \
        X(XSAVE)                                                                                   \
        X(XSAVEOPT)                                                                                \
        X(XSAVEC)                                                                                  \
        X(XRSTOR)                                                                                  \
        X(LDMXCSR)                                                                                 \
        X(STMXCSR)                                                                                 \
        X(X87)                                                                                     \
        X(FWAIT)                                                                                   \
        X(EMMS)                                                                                    \
        X(VZERO)                                                                                   \
        X(MASKMOVQ)                                                                                \
        X(VMASKMOV)                                                                                \
        X(VGATHER)                                                                                 \
        /* executed by the host's own instruction */                                               \
        X(HOST)                                                                                    \
        X(HOST_MULX)                                                                               \
        X(HOST_PCMPESTRI)                                                                          \
        X(HOST_PCMPESTRM)                                                                          \
        X(HOST_PCMPISTRI)

enum insn_op {
        OP_INVALID,
#define X(name) OP_##name,
        INSN_OPS(X)
#undef X
                INSN_OP_COUNT,
};

enum operand_kind {
        OPK_NONE,
        OPK_E,    /* ModRM.rm: general register or memory */
        OPK_G,    /* ModRM.reg: general register */
        OPK_B,    /* VEX.vvvv: general register */
        OPK_Z,    /* opcode's low three bits: general register */
        OPK_A,    /* accumulator */
        OPK_CL,   /* shift count in CL */
        OPK_ONE,  /* the constant 1 */
        OPK_DX,   /* port in DX */
        OPK_I,    /* immediate */
        OPK_J,    /* relative target */
        OPK_O,    /* absolute offset (moffs) */
        OPK_FARP, /* far pointer immediate */
        OPK_S,    /* ModRM.reg: segment register */
        OPK_SEG,  /* a segment register named by the opcode */
        OPK_C,    /* control register */
        OPK_D,    /* debug register */
        OPK_V,    /* ModRM.reg: vector register */
        OPK_W,    /* ModRM.rm: vector register or memory */
        OPK_H,    /* VEX.vvvv: vector register; absent in legacy encodings */
        OPK_L,    /* immediate's high four bits: vector register */
        OPK_X0,   /* xmm0, implied */
        OPK_P,    /* ModRM.reg: MMX register */
        OPK_Q,    /* ModRM.rm: MMX register or memory */
        OPK_X,    /* string source DS:rSI */
        OPK_Y,    /* string destination ES:rDI */
        OPK_STACK /* x87 register stack */
};

/* Operand sizes; the letters are those of the SDM's appendix A. */
enum operand_size {
        SZ_NONE, /* no memory, or of no size (LEA, INVLPG) */
        SZ_B,
        SZ_W,
        SZ_D,
        SZ_Q,
        SZ_DQ,  /* 16 */
        SZ_QQ,  /* 32 */
        SZ_V,   /* 2, 4, 8 by operand size */
        SZ_Z,   /* 2, 4 by operand size */
        SZ_Y,   /* 4, 8 by W */
        SZ_X,   /* 16, 32 by VEX.L */
        SZ_HX,  /* half of X */
        SZ_QX,  /* quarter */
        SZ_EX,  /* eighth */
        SZ_DUP, /* 8 or 32 (MOVDDUP) */
        SZ_FS,  /* 4, 8 by W (scalar FMA) */
        SZ_DB,  /* register 4, memory 1 */
        SZ_DW,  /* register 4, memory 2 */
        SZ_P,   /* far pointer: 2 + operand size */
        SZ_2V,  /* two of V (BOUND), CMPXCHG8B/16B */
        SZ_T,   /* descriptor table register: 2 + 4 or 8 */
        SZ_VW,  /* register V, memory 2 */
        SZ_S64, /* V, but 8 in 64-bit mode (control registers) */
        SZ_BIG, /* 512 bytes and more: FXSAVE, XSAVE */
        SZ_F87  /* x87: by opcode */
};

struct operand {
        uint8_t kind, size;
};

/* Row properties: matching conditions first, then facts. */
#define P_NP       (1ull << 0) /* mandatory prefix; none of the four: does not matter */
#define P_66       (1ull << 1)
#define P_F3       (1ull << 2)
#define P_F2       (1ull << 3)
#define RG(n)      (1ull << (4 + (n))) /* ModRM.reg is n; none: any */
#define MEM        (1ull << 12)
#define REG        (1ull << 13)
#define W0         (1ull << 14)
#define W1         (1ull << 15)
#define L0         (1ull << 16)
#define L1         (1ull << 17)
#define O64        (1ull << 18)                       /* only in 64-bit mode */
#define I64        (1ull << 19)                       /* not in 64-bit mode */
#define VEX        (1ull << 20)                       /* VEX encoding */
#define LEG        (1ull << 21)                       /* legacy encoding (implied without VEX) */
#define RM(n)      (1ull << 22 | (uint64_t)(n) << 23) /* ModRM.rm is n */
#define D64        (1ull << 26) /* operand size 64 by default in 64-bit mode */
#define F64        (1ull << 27) /* always 64 in 64-bit mode */
#define LOCKS      (1ull << 28) /* LOCK is legal with a memory operand */
#define CTL        (1ull << 29)
#define HLP        (1ull << 30)
#define PRV        (1ull << 31)
#define NOALIGN    (1ull << 32) /* legacy SSE form that does not demand alignment */
#define ALIGNED    (1ull << 33) /* VEX form that does */
#define DW         (1ull << 34) /* first operand is written, not read */
#define RO         (1ull << 35) /* first operand is read, not written */
#define RW2        (1ull << 36) /* second operand is written too */
#define DW2        (1ull << 37) /* second operand is written, not read (MULX) */
#define SX         (1ull << 38) /* immediate is sign-extended to the operand size */
#define FP         (1ull << 39) /* SIMD floating point: may raise #XM */
#define MMX        (1ull << 40) /* touches the x87/MMX registers */
#define SSE        (1ull << 41) /* vector registers: CR4.OSFXSR or XCR0 decide */
#define NOMODRM    (1ull << 42)
#define MODREG     (1ull << 43) /* mod is ignored, always a register (MOV CR) */
#define VSIB       (1ull << 44)
#define FEAT(f)    ((uint64_t)FEATURE_##f << 48)
#define FEAT_OF(p) ((unsigned)((p) >> 48 & 63))

/* CPUID features an instruction depends on. */
enum cpu_feature {
        FEATURE_BASE,
        FEATURE_SSE3,
        FEATURE_SSSE3,
        FEATURE_SSE41,
        FEATURE_SSE42,
        FEATURE_AES,
        FEATURE_PCLMUL,
        FEATURE_SHA,
        FEATURE_AVX,
        FEATURE_AVX2,
        FEATURE_FMA,
        FEATURE_F16C,
        FEATURE_BMI1,
        FEATURE_BMI2,
        FEATURE_ADX,
        FEATURE_MOVBE,
        FEATURE_POPCNT,
        FEATURE_LZCNT,
        FEATURE_CRC32,
        FEATURE_RDRAND,
        FEATURE_RDSEED,
        FEATURE_XSAVE,
        FEATURE_XSAVEOPT,
        FEATURE_XSAVEC,
        FEATURE_CX16,
        FEATURE_RDTSCP,
        FEATURE_RDPID,
        FEATURE_FSGSBASE,
        FEATURE_SMAP,
        FEATURE_INVPCID,
        FEATURE_CLFLUSHOPT,
        FEATURE_CLWB,
        FEATURE_PKU,
        FEATURE_SERIALIZE,
        FEATURE_LAHF, /* in 64-bit code */
        FEATURE_COUNT
};

/* Effects on RFLAGS, index into insn_flag_effects. */
enum flag_effect {
        F_NONE,
        F_ARITH,
        F_CARRY,  /* ADC, SBB: reads CF */
        F_LOGIC,  /* AF undefined */
        F_INC,    /* all but CF */
        F_SHIFT,  /* unchanged for a zero count */
        F_ROTATE, /* CF and OF; unchanged for a zero count */
        F_RCL,
        F_MUL,
        F_DIV,
        F_BT,
        F_BSF,
        F_CC,   /* reads what the condition reads */
        F_ZF,   /* writes ZF */
        F_CF,   /* writes CF */
        F_CMC,  /* reads and writes CF */
        F_ADCX, /* reads, writes CF */
        F_ADOX, /* reads, writes OF */
        F_SAHF, /* writes all but OF */
        F_LAHF, /* reads all but OF */
        F_DAA,
        F_AAA,
        F_AAM,
        F_DF,
        F_READDF, /* string without compare */
        F_SCAS,   /* string with compare */
        F_ALL,    /* POPF and the like */
        F_READ,   /* PUSHF */
        F_COMIS,  /* ZF PF CF, others cleared */
        F_BMI,    /* as LOGIC but PF undefined too */
        F_BEXTR,  /* ZF, CF and OF cleared */
        F_POPCNT, /* all written */
        F_TZCNT,  /* CF ZF; others undefined */
        F_COUNT
};

struct flag_sets {
        uint16_t read, write, undefined; /* undefined ones are also in `write` */
};

extern const struct flag_sets insn_flag_effects[F_COUNT];

#define FLAG_CF          0x001u
#define FLAG_PF          0x004u
#define FLAG_AF          0x010u
#define FLAG_ZF          0x040u
#define FLAG_SF          0x080u
#define FLAG_TF          0x100u
#define FLAG_IF          0x200u
#define FLAG_DF          0x400u
#define FLAG_OF          0x800u
#define FLAGS_ARITHMETIC 0x8d5u

struct opcode {
        uint8_t map, code;
        uint8_t flags; /* enum flag_effect */
        uint16_t op;   /* enum insn_op */
        struct operand operands[4];
        uint64_t properties;
};

#define INSN_SIZE_LIMIT 15
#define REG_NONE        0xff
#define BASE_RIP        16

struct insn {
        const struct opcode *row;
        uint64_t imm; /* sign- or zero-extended as the instruction uses it */
        int64_t disp;
        uint16_t gpr_read, gpr_written; /* bit n: general register n, any part */
        uint16_t imm2;                  /* ENTER's level, far pointer's selector */
        struct flag_sets eflags;
        uint16_t op;
        uint16_t mem_size; /* bytes accessed through the memory operand, 0 none */
        uint8_t length;
        uint8_t class;
        uint8_t map, code;
        uint8_t pp;  /* enum insn_pp: mandatory prefix as it selects the row */
        uint8_t rex; /* the byte, 0 none */
        bool vex, vex_l, w;
        bool lock, has_66, has_67;
        uint8_t rep;            /* 0, 0xf2 or 0xf3: the last one */
        uint8_t opsize, adsize; /* bytes */
        uint8_t modrm;
        bool has_modrm, is_mem;
        bool mem_read, mem_write, mem_aligned; /* aligned: #GP when not */
        uint8_t reg, rm, vvvv, is4;            /* extended register numbers */
        uint8_t base, index, scale, seg;       /* memory operand; REG_NONE, BASE_RIP */
        uint8_t modrm_at, disp_at, disp_size, imm_at, imm_size; /* for re-encoding */
};

enum decode_result {
        DECODE_INVALID = 0, /* #UD */
        DECODE_SHORT = -1,  /* more bytes are needed */
        DECODE_LONG = -2,   /* over 15 bytes: #GP */
};

/* Builds the index over the rows. Idempotent and thread-safe; before decode(). */
void decode_init(void);

/* Decodes the instruction at bytes[0..size). Returns its length, or one of enum
 * decode_result with *ret undefined. */
int decode(const uint8_t *bytes, size_t size, enum decode_mode mode, struct insn *ret);

/* The same, where TZCNT and LZCNT are BSF and BSR for a processor whose features, a bit per enum
 * cpu_feature, do not include them. */
int decode_for(uint64_t features, const uint8_t *bytes, size_t size, enum decode_mode mode,
               struct insn *ret);

/* Bytes of an operand of this size for this instruction (registers: the part used). */
unsigned insn_operand_size(const struct insn *insn, struct operand operand);

const char *insn_op_name(unsigned op);
