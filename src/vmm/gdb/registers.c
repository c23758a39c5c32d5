#include "vmm/gdb/registers.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/str.h"

#define TAGS_OFFSET    offsetof(struct cpu_state, x87.tag)
#define FLAGS_WRITABLE 0x257fd5u /* arithmetic, TF, IF, DF, IOPL, NT, RF, AC, ID */
#define MXCSR_WRITABLE 0xffffu

struct reg {
        const char *name, *type;
        uint16_t offset; /* in struct cpu_state */
        uint8_t held;    /* bytes there */
        uint8_t size;    /* bytes as gdb has it; zeroes fill up */
        uint8_t system;  /* enum gdb_system, GDB_SELECTOR and the segment */
};

#define REG(name_, type_, member, held_, size_)                                                    \
        {                                                                                          \
                .name = (name_), .type = (type_), .offset = offsetof(struct cpu_state, member),    \
                .held = (held_), .size = (size_)                                                   \
        }
#define SYSTEM(name_, type_, member, held_, size_, system_)                                        \
        {                                                                                          \
                .name = (name_), .type = (type_), .offset = offsetof(struct cpu_state, member),    \
                .held = (held_), .size = (size_), .system = (system_)                              \
        }
#define GENERAL(name, i)  REG(name, "int64", gpr[i], 8, 8)
#define SELECTOR(name, i) SYSTEM(name, "int32", seg[i].selector, 2, 4, GDB_SELECTOR + (i))
#define ST(i)             REG("st" #i, "i387_ext", x87.st[i], 10, 10)
#define XMM(i)            REG("xmm" #i, "vec128", vec[i].bytes[0], 16, 16)
#define YMM_HIGH(i)       REG("ymm" #i "h", "uint128", vec[i].bytes[16], 16, 16)
#define SIXTEEN(m)                                                                                 \
        m(0), m(1), m(2), m(3), m(4), m(5), m(6), m(7), m(8), m(9), m(10), m(11), m(12), m(13),    \
                m(14), m(15)

static const struct reg core[] = {
        GENERAL("rax", CPU_RAX),
        GENERAL("rbx", CPU_RBX),
        GENERAL("rcx", CPU_RCX),
        GENERAL("rdx", CPU_RDX),
        GENERAL("rsi", CPU_RSI),
        GENERAL("rdi", CPU_RDI),
        REG("rbp", "data_ptr", gpr[CPU_RBP], 8, 8),
        REG("rsp", "data_ptr", gpr[CPU_RSP], 8, 8),
        GENERAL("r8", 8),
        GENERAL("r9", 9),
        GENERAL("r10", 10),
        GENERAL("r11", 11),
        GENERAL("r12", 12),
        GENERAL("r13", 13),
        GENERAL("r14", 14),
        GENERAL("r15", 15),
        REG("rip", "code_ptr", rip, 8, 8),
        REG("eflags", "i386_eflags", rflags, 4, 4),
        SELECTOR("cs", CPU_CS),
        SELECTOR("ss", CPU_SS),
        SELECTOR("ds", CPU_DS),
        SELECTOR("es", CPU_ES),
        SELECTOR("fs", CPU_FS),
        SELECTOR("gs", CPU_GS),
        ST(0),
        ST(1),
        ST(2),
        ST(3),
        ST(4),
        ST(5),
        ST(6),
        ST(7),
        REG("fctrl", "int", x87.control, 2, 4),
        REG("fstat", "int", x87.status, 2, 4),
        REG("ftag", "int", x87.tag, 1, 4), /* two bits per register there */
        REG("fiseg", "int", x87.ip, 0, 4), /* 64-bit mode has none */
        REG("fioff", "int", x87.ip, 4, 4),
        REG("foseg", "int", x87.dp, 0, 4),
        REG("fooff", "int", x87.dp, 4, 4),
        REG("fop", "int", x87.opcode, 2, 4),
};
static const struct reg sse[] = { SIXTEEN(XMM), REG("mxcsr", "int", x87.mxcsr, 4, 4) };
static const struct reg avx[] = { SIXTEEN(YMM_HIGH) };
static const struct reg segments[] = {
        REG("fs_base", "int64", seg[CPU_FS].base, 8, 8),
        REG("gs_base", "int64", seg[CPU_GS].base, 8, 8),
};
static const struct reg control[] = {
        REG("k_gs_base", "int64", kernel_gs_base, 8, 8),
        SYSTEM("cr0", "int64", cr0, 8, 8, GDB_CR0),
        REG("cr2", "int64", cr2, 8, 8),
        SYSTEM("cr3", "int64", cr3, 8, 8, GDB_CR3),
        SYSTEM("cr4", "int64", cr4, 8, 8, GDB_CR4),
        SYSTEM("cr8", "int64", cr8, 8, 8, GDB_CR8),
        SYSTEM("efer", "int64", efer, 8, 8, GDB_EFER),
};

#define CORE_TYPES                                                                                 \
        "<flags id=\"i386_eflags\" size=\"4\">"                                                    \
        "<field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" end=\"1\"/>"       \
        "<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/>"     \
        "<field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/>"     \
        "<field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"IF\" start=\"9\" end=\"9\"/>"     \
        "<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/>" \
        "<field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" start=\"16\" end=\"16\"/>" \
        "<field name=\"AC\" start=\"18\" end=\"18\"/><field name=\"ID\" start=\"21\" end=\"21\"/>" \
        "</flags>"
#define SSE_TYPES                                                                                  \
        "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"                                    \
        "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"                                    \
        "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"                                        \
        "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"                                        \
        "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"                                        \
        "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"                                        \
        "<union id=\"vec128\">"                                                                    \
        "<field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"          \
        "<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>"       \
        "<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>"       \
        "<field name=\"uint128\" type=\"uint128\"/></union>"

static const struct feature {
        const char *name, *types;
        const struct reg *regs;
        unsigned length;
} features[] = {
        { "org.gnu.gdb.i386.core", CORE_TYPES, core, ELEMENTS(core) },
        { "org.gnu.gdb.i386.sse", SSE_TYPES, sse, ELEMENTS(sse) },
        { "org.gnu.gdb.i386.avx", "", avx, ELEMENTS(avx) },
        { "org.gnu.gdb.i386.segments", "", segments, ELEMENTS(segments) },
        { "isle.system", "", control, ELEMENTS(control) },
};

static const struct reg *find(unsigned index)
{
        const struct feature *f = features;
        while (index >= f->length)
                index -= f++->length;
        return &f->regs[index];
}

unsigned gdb_registers(void)
{
        unsigned n = 0;
        for (unsigned i = 0; i < ELEMENTS(features); i++)
                n += features[i].length;
        return n;
}

unsigned gdb_register_size(unsigned index)
{
        return find(index)->size;
}

void gdb_registers_describe(struct buf *out)
{
        buf_puts(out, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">"
                      "<target><architecture>i386:x86-64</architecture>");
        for (const struct feature *f = features; f < features + ELEMENTS(features); f++) {
                buf_printf(out, "<feature name=\"%s\">%s", f->name, f->types);
                for (unsigned i = 0; i < f->length; i++)
                        buf_printf(out, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"/>",
                                   f->regs[i].name, 8u * f->regs[i].size, f->regs[i].type);
                buf_puts(out, "</feature>");
        }
        buf_puts(out, "</target>");
}

/* ---- the x87 tag word: two bits per physical register, of which FXSAVE keeps whether it
 * is empty. ---- */

enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

static unsigned tag_of(const uint8_t st[16])
{
        uint64_t fraction;
        uint16_t exponent;
        memcpy(&fraction, st, 8);
        memcpy(&exponent, st + 8, 2);
        exponent &= 0x7fff;
        if (!exponent && !fraction)
                return TAG_ZERO;
        return exponent && exponent != 0x7fff && fraction >> 63 ? TAG_VALID : TAG_SPECIAL;
}

static uint16_t tags_get(const struct cpu_x87 *x)
{
        unsigned top = x->status >> 11 & 7, tags = 0;
        for (unsigned i = 0; i < 8; i++)
                tags |= (x->tag >> i & 1 ? tag_of(x->st[(i - top) & 7]) : TAG_EMPTY) << 2 * i;
        return (uint16_t)tags;
}

static uint8_t tags_set(uint16_t tags)
{
        unsigned used = 0;
        for (unsigned i = 0; i < 8; i++)
                used |= (unsigned)((tags >> 2 * i & 3) != TAG_EMPTY) << i;
        return (uint8_t)used;
}

/* ---- values ---- */

void gdb_register_get(const struct cpu_state *s, unsigned index, uint8_t *ret)
{
        const struct reg *r = find(index);
        memset(ret, 0, r->size);
        if (r->offset == TAGS_OFFSET) {
                uint16_t tags = tags_get(&s->x87);
                memcpy(ret, &tags, sizeof(tags));
                return;
        }
        memcpy(ret, (const uint8_t *)s + r->offset, r->held);
}

static uint32_t masked(uint32_t old, uint32_t new, uint32_t writable)
{
        return (old & ~writable) | (new &writable);
}

static int set_system(struct cpu_state *s, const struct reg *r, const uint8_t *bytes,
                      const struct gdb_reader *reader, struct err *err)
{
        uint64_t value = 0, old = 0;
        memcpy(&value, bytes, r->size);
        memcpy(&old, (const uint8_t *)s + r->offset, r->held);
        return value == old ? 0 : gdb_system_set(s, r->system, value, reader, err);
}

int gdb_register_set(struct cpu_state *s, unsigned index, const uint8_t *bytes,
                     const struct gdb_reader *reader, struct err *err)
{
        const struct reg *r = find(index);
        uint8_t *at = (uint8_t *)s + r->offset;
        uint32_t old, new;
        if (r->system)
                return set_system(s, r, bytes, reader, err);
        memcpy(&new, bytes, sizeof(new));
        if (r->offset == TAGS_OFFSET) {
                s->x87.tag = tags_set((uint16_t) new);
                return 0;
        }
        memcpy(&old, at, sizeof(old));
        if (r->offset == offsetof(struct cpu_state, rflags))
                new = masked(old, new, FLAGS_WRITABLE);
        else if (r->offset == offsetof(struct cpu_state, x87.mxcsr))
                new = masked(old, new, MXCSR_WRITABLE);
        else {
                memcpy(at, bytes, r->held);
                return 0;
        }
        memcpy(at, &new, sizeof(new));
        return 0;
}
