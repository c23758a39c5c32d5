#include "cpu/decode_tables.h"

/* clang-format off */
#define TWO 0x100
#define R(m, c, name, fl, props, ...) \
        { .map = (m), .code = (uint8_t)(c), .flags = F_##fl, .op = OP_##name, \
          .operands = { __VA_ARGS__ }, .properties = (props) },
#define X1(c, n, ...) R(((c) & TWO) ? MAP_0F : MAP_ONE, ((c) & 0xff) + (n), __VA_ARGS__)
#define X8(c, ...) \
        X1(c, 0, __VA_ARGS__) X1(c, 1, __VA_ARGS__) X1(c, 2, __VA_ARGS__) X1(c, 3, __VA_ARGS__) \
        X1(c, 4, __VA_ARGS__) X1(c, 5, __VA_ARGS__) X1(c, 6, __VA_ARGS__) X1(c, 7, __VA_ARGS__)
#define ALU6N(base, name, fl) \
        R(MAP_ONE, (base) + 0, name, fl, RO, Eb, Gb) \
        R(MAP_ONE, (base) + 1, name, fl, RO, Ev, Gv) \
        R(MAP_ONE, (base) + 2, name, fl, RO, Gb, Eb) \
        R(MAP_ONE, (base) + 3, name, fl, RO, Gv, Ev) \
        R(MAP_ONE, (base) + 4, name, fl, RO | NOMODRM, Ab, Ib) \
        R(MAP_ONE, (base) + 5, name, fl, RO | SX | NOMODRM, Av, Iz)

#define Eb   { OPK_E, SZ_B }
#define Ew   { OPK_E, SZ_W }
#define Ed   { OPK_E, SZ_D }
#define Ev   { OPK_E, SZ_V }
#define Ey   { OPK_E, SZ_Y }
#define En   { OPK_E, SZ_NONE }
#define Evw  { OPK_E, SZ_VW }
#define Edb  { OPK_E, SZ_DB }
#define Edw  { OPK_E, SZ_DW }
#define Es64 { OPK_E, SZ_S64 }
#define M    { OPK_E, SZ_NONE }
#define Mb   { OPK_E, SZ_B }
#define Md   { OPK_E, SZ_D }
#define Mp   { OPK_E, SZ_P }
#define Mt   { OPK_E, SZ_T }
#define Mdq  { OPK_E, SZ_DQ }
#define M2v  { OPK_E, SZ_2V }
#define Mbig { OPK_E, SZ_BIG }
#define Gb   { OPK_G, SZ_B }
#define Gw   { OPK_G, SZ_W }
#define Gv   { OPK_G, SZ_V }
#define Gy   { OPK_G, SZ_Y }
#define Gs64 { OPK_G, SZ_S64 }
#define By   { OPK_B, SZ_Y }
#define Zb   { OPK_Z, SZ_B }
#define Zv   { OPK_Z, SZ_V }
#define Ab   { OPK_A, SZ_B }
#define Aw   { OPK_A, SZ_W }
#define Az   { OPK_A, SZ_Z }
#define Av   { OPK_A, SZ_V }
#define CL   { OPK_CL, SZ_B }
#define ONE  { OPK_ONE, SZ_B }
#define DX   { OPK_DX, SZ_W }
#define Ib   { OPK_I, SZ_B }
#define Iw   { OPK_I, SZ_W }
#define Iz   { OPK_I, SZ_Z }
#define Iv   { OPK_I, SZ_V }
#define Jb   { OPK_J, SZ_B }
#define Jz   { OPK_J, SZ_Z }
#define Ob   { OPK_O, SZ_B }
#define Ov   { OPK_O, SZ_V }
#define FARP { OPK_FARP, SZ_P }
#define Sw   { OPK_S, SZ_W }
#define SEGo { OPK_SEG, SZ_W }
#define Cs64 { OPK_C, SZ_S64 }
#define Ds64 { OPK_D, SZ_S64 }
#define Xb   { OPK_X, SZ_B }
#define Xv   { OPK_X, SZ_V }
#define Xz   { OPK_X, SZ_Z }
#define Yb   { OPK_Y, SZ_B }
#define Yv   { OPK_Y, SZ_V }
#define Yz   { OPK_Y, SZ_Z }
#define E87  { OPK_E, SZ_F87 }
#define Vx   { OPK_V, SZ_X }
#define Hx   { OPK_H, SZ_X }
#define Lx   { OPK_L, SZ_X }
#define X0   { OPK_X0, SZ_X }
#define Wx   { OPK_W, SZ_X }
#define Whx  { OPK_W, SZ_HX }
#define Wqx  { OPK_W, SZ_QX }
#define Wex  { OPK_W, SZ_EX }
#define Wdup { OPK_W, SZ_DUP }
#define Wfs  { OPK_W, SZ_FS }
#define Wb   { OPK_W, SZ_B }
#define Ww   { OPK_W, SZ_W }
#define Wd   { OPK_W, SZ_D }
#define Wq   { OPK_W, SZ_Q }
#define Wdq  { OPK_W, SZ_DQ }
#define Wn   { OPK_W, SZ_NONE }
#define Pq   { OPK_P, SZ_Q }
#define Qq   { OPK_Q, SZ_Q }
#define Qd   { OPK_Q, SZ_D }

const struct opcode decode_rows[] = {
#include "cpu/rows_integer.h"
#include "cpu/rows_vector.h"
};
/* clang-format on */

const unsigned decode_rows_length = sizeof(decode_rows) / sizeof(decode_rows[0]);

#define ARITH6 FLAGS_ARITHMETIC
#define LOW5   (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF)
#define SYSTEM (FLAG_TF | FLAG_IF | FLAG_DF)

const struct flag_sets insn_flag_effects[F_COUNT] = {
        [F_NONE] = { 0, 0, 0 },
        [F_ARITH] = { 0, ARITH6, 0 },
        [F_CARRY] = { FLAG_CF, ARITH6, 0 },
        [F_LOGIC] = { 0, ARITH6, FLAG_AF },
        [F_INC] = { 0, ARITH6 & ~FLAG_CF, 0 },
        [F_SHIFT] = { 0, ARITH6, FLAG_AF | FLAG_OF | FLAG_CF },
        [F_ROTATE] = { 0, FLAG_CF | FLAG_OF, FLAG_OF },
        [F_RCL] = { FLAG_CF, FLAG_CF | FLAG_OF, FLAG_OF },
        [F_MUL] = { 0, ARITH6, FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF },
        [F_DIV] = { 0, ARITH6, ARITH6 },
        [F_BT] = { 0, ARITH6 & ~FLAG_ZF, FLAG_OF | FLAG_SF | FLAG_AF | FLAG_PF },
        [F_BSF] = { 0, ARITH6, ARITH6 & ~FLAG_ZF },
        [F_CC] = { ARITH6 & ~FLAG_AF, 0, 0 },
        [F_ZF] = { 0, FLAG_ZF, 0 },
        [F_CF] = { 0, FLAG_CF, 0 },
        [F_CMC] = { FLAG_CF, FLAG_CF, 0 },
        [F_ADCX] = { FLAG_CF, FLAG_CF, 0 },
        [F_ADOX] = { FLAG_OF, FLAG_OF, 0 },
        [F_SAHF] = { 0, LOW5, 0 },
        [F_LAHF] = { LOW5, 0, 0 },
        [F_DAA] = { FLAG_CF | FLAG_AF, ARITH6, FLAG_OF },
        [F_AAA] = { FLAG_AF, ARITH6, FLAG_OF | FLAG_SF | FLAG_ZF | FLAG_PF },
        [F_AAM] = { 0, ARITH6, FLAG_OF | FLAG_AF | FLAG_CF },
        [F_DF] = { 0, FLAG_DF, 0 },
        [F_READDF] = { FLAG_DF, 0, 0 },
        [F_SCAS] = { FLAG_DF | FLAG_ZF, ARITH6, 0 },
        [F_ALL] = { ARITH6 | SYSTEM, ARITH6 | SYSTEM, 0 },
        [F_READ] = { ARITH6 | SYSTEM, 0, 0 },
        [F_COMIS] = { 0, ARITH6, 0 },
        [F_BMI] = { 0, ARITH6, FLAG_AF | FLAG_PF },
        [F_BEXTR] = { 0, ARITH6, FLAG_AF | FLAG_PF | FLAG_SF },
        [F_POPCNT] = { 0, ARITH6, 0 },
        [F_TZCNT] = { 0, ARITH6, FLAG_OF | FLAG_SF | FLAG_AF | FLAG_PF },
};

/* clang-format off */
const int8_t decode_x87_memory[8][8] = {
        { 4, 4, 4, 4, 4, 4, 4, 4 },
        { 4, 0, -4, -4, 28, 2, -28, -2 },
        { 4, 4, 4, 4, 4, 4, 4, 4 },
        { 4, -4, -4, -4, 0, 10, 0, -10 },
        { 8, 8, 8, 8, 8, 8, 8, 8 },
        { 8, -8, -8, -8, 108, 0, -108, -2 },
        { 2, 2, 2, 2, 2, 2, 2, 2 },
        { 2, -2, -2, -2, 10, 8, -10, -8 },
};

const uint8_t decode_x87_register[8][8] = {
        { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
        { 0xff, 0xff, 0x01, 0xff, 0x33, 0x7f, 0xff, 0xff },
        { 0xff, 0xff, 0xff, 0xff, 0x00, 0x02, 0x00, 0x00 },
        { 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0x00 },
        { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
        { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00 },
        { 0xff, 0xff, 0xff, 0x02, 0xff, 0xff, 0xff, 0xff },
        { 0xff, 0xff, 0xff, 0xff, 0x01, 0xff, 0xff, 0x00 },
};
/* clang-format on */

#define rAX 0x01
#define rCX 0x02
#define rDX 0x04
#define rBX 0x08
#define rSP 0x10
#define rBP 0x20
#define rSI 0x40
#define rDI 0x80
#define R11 0x800

const struct decode_implicit decode_implicit[INSN_OP_COUNT] = {
        [OP_MUL] = { rAX, rAX | rDX },
        [OP_IMUL1] = { rAX, rAX | rDX },
        [OP_DIV] = { rAX | rDX, rAX | rDX },
        [OP_IDIV] = { rAX | rDX, rAX | rDX },
        [OP_CMPXCHG] = { rAX, rAX },
        [OP_CMPXCHG8B] = { rAX | rDX | rBX | rCX, rAX | rDX },
        [OP_CWD] = { rAX, rDX },
        [OP_LAHF] = { rAX, rAX },
        [OP_SAHF] = { rAX, 0 },
        [OP_XLAT] = { rAX | rBX, rAX },
        [OP_AAM] = { rAX, rAX },
        [OP_AAD] = { rAX, rAX },
        [OP_PUSH] = { rSP, rSP },
        [OP_POP] = { rSP, rSP },
        [OP_PUSHA] = { 0xff, rSP },
        [OP_POPA] = { rSP, 0xff },
        [OP_PUSHF] = { rSP, rSP },
        [OP_POPF] = { rSP, rSP },
        [OP_PUSH_SEG] = { rSP, rSP },
        [OP_POP_SEG] = { rSP, rSP },
        [OP_ENTER] = { rSP | rBP, rSP | rBP },
        [OP_LEAVE] = { rSP | rBP, rSP | rBP },
        [OP_CALL] = { rSP, rSP },
        [OP_CALL_IND] = { rSP, rSP },
        [OP_CALL_FAR] = { rSP, rSP },
        [OP_CALL_FAR_IND] = { rSP, rSP },
        [OP_RET] = { rSP, rSP },
        [OP_RET_FAR] = { rSP, rSP },
        [OP_IRET] = { rSP, rSP },
        [OP_LOOP] = { rCX, rCX },
        [OP_LOOPE] = { rCX, rCX },
        [OP_LOOPNE] = { rCX, rCX },
        [OP_JCXZ] = { rCX, 0 },
        [OP_INT] = { rSP, rSP },
        [OP_INT3] = { rSP, rSP },
        [OP_INT1] = { rSP, rSP },
        [OP_INTO] = { rSP, rSP },
        [OP_MOVS] = { rSI | rDI, rSI | rDI },
        [OP_CMPS] = { rSI | rDI, rSI | rDI },
        [OP_STOS] = { rDI, rDI },
        [OP_LODS] = { rSI, rSI },
        [OP_SCAS] = { rDI, rDI },
        [OP_INS] = { rDI, rDI },
        [OP_OUTS] = { rSI, rSI },
        [OP_RDTSC] = { 0, rAX | rDX },
        [OP_RDTSCP] = { 0, rAX | rDX | rCX },
        [OP_RDPMC] = { rCX, rAX | rDX },
        [OP_RDMSR] = { rCX, rAX | rDX },
        [OP_WRMSR] = { rCX | rAX | rDX, 0 },
        [OP_CPUID] = { rAX | rCX, rAX | rBX | rCX | rDX },
        [OP_SYSCALL] = { 0, rCX | R11 },
        [OP_SYSRET] = { rCX | R11, 0 },
        [OP_SYSENTER] = { 0, rSP },
        [OP_SYSEXIT] = { rCX | rDX, rSP },
        [OP_VMCALL] = { rAX | rBX | rCX | rDX | rSI, rAX },
        [OP_XGETBV] = { rCX, rAX | rDX },
        [OP_XSETBV] = { rCX | rAX | rDX, 0 },
        [OP_RDPKRU] = { rCX, rAX | rDX },
        [OP_WRPKRU] = { rCX | rAX | rDX, 0 },
        [OP_XSAVE] = { rAX | rDX, 0 },
        [OP_XSAVEOPT] = { rAX | rDX, 0 },
        [OP_XSAVEC] = { rAX | rDX, 0 },
        [OP_XRSTOR] = { rAX | rDX, 0 },
        [OP_MASKMOVQ] = { rDI, 0 },
        [OP_HOST_MULX] = { rDX, 0 },
        [OP_HOST_PCMPESTRI] = { rAX | rDX, rCX },
        [OP_HOST_PCMPESTRM] = { rAX | rDX, 0 },
        [OP_HOST_PCMPISTRI] = { 0, rCX },
};
