#include "vmm/gdb/system.h"

#include <errno.h>
#include <string.h>

#include "base/str.h"

#define CR0_PE        0x1u
#define CR0_ET        0x10u
#define CR0_NW        0x20000000u
#define CR0_CD        0x40000000u
#define CR0_PG        0x80000000u
#define CR0_HELD      0xe005003fu /* the others read 0 */
#define CR3_BITS      46          /* as CPUID has it */
#define CR4_PAE       0x20u
#define CR4_PCIDE     0x20000u
#define EFER_LME      0x100u
#define EFER_LMA      0x400u
#define TABLE_LDT     4u
#define TYPE_READABLE 0x2u /* of code; of data: writable */
#define TYPE_EXPAND   0x4u /* of data; of code: conforming */
#define TYPE_CODE     0x8u
#define ATTR_S        0x10u
#define ATTR_DPL(a)   ((a) >> 5 & 3)
#define ATTR_P        0x80u
#define ATTR_L        0x2000u
#define ATTR_DB       0x4000u
#define ATTR_UNUSABLE 0x10000u
#define RPL(selector) ((selector)&3u)

static bool long_code(const struct cpu_state *s)
{
        return s->efer & EFER_LMA && s->seg[CPU_CS].attributes & ATTR_L;
}

static int set_cr0(struct cpu_state *s, uint64_t value, struct err *err)
{
        if (value >> 32)
                return err_plain(err, EINVAL, "CR0 has 32 bits");
        if (value & CR0_PG && !(value & CR0_PE))
                return err_plain(err, EINVAL, "CR0: paging (PG) wants protected mode (PE)");
        if (value & CR0_NW && !(value & CR0_CD))
                return err_plain(err, EINVAL, "CR0: NW wants CD");
        bool on = value & CR0_PG && !(s->cr0 & CR0_PG), off = !(value & CR0_PG) && s->cr0 & CR0_PG;
        if (on && s->efer & EFER_LME && !(s->cr4 & CR4_PAE))
                return err_plain(err, EINVAL, "CR0: paging in long mode wants PAE in CR4");
        if (on && s->efer & EFER_LME && s->seg[CPU_CS].attributes & ATTR_L)
                return err_plain(err, EINVAL, "CR0: long mode does not begin in 64-bit code");
        if (off && long_code(s))
                return err_plain(err, EINVAL, "CR0: 64-bit code cannot do without paging");
        if (off && s->cr4 & CR4_PCIDE)
                return err_plain(err, EINVAL, "CR0: paging stays while PCIDE in CR4 is set");
        if (on && s->efer & EFER_LME)
                s->efer |= EFER_LMA;
        if (off)
                s->efer &= ~(uint64_t)EFER_LMA;
        s->cr0 = (value & CR0_HELD) | CR0_ET;
        return 0;
}

static int set_cr3(struct cpu_state *s, uint64_t value, struct err *err)
{
        unsigned bits = s->efer & EFER_LMA ? CR3_BITS : 32;
        if (value >> bits)
                return err_plain(err, EINVAL, "CR3 has %u bits in this mode", bits);
        s->cr3 = value;
        return 0;
}

static int set_cr4(struct cpu_state *s, uint64_t value, struct err *err)
{
        bool longer = s->efer & EFER_LMA;
        if (longer && !(value & CR4_PAE))
                return err_plain(err, EINVAL, "CR4: long mode keeps PAE");
        if (value & ~s->cr4 & CR4_PCIDE && (!longer || s->cr3 & 0xfff))
                return err_plain(err, EINVAL,
                                 "CR4: PCIDE wants long mode and the low 12 bits of CR3 clear");
        s->cr4 = value;
        return 0;
}

static int set_cr8(struct cpu_state *s, uint64_t value, struct err *err)
{
        if (value > 15)
                return err_plain(err, EINVAL, "CR8 is 0 to 15");
        s->cr8 = value;
        return 0;
}

static int set_efer(struct cpu_state *s, uint64_t value, struct err *err)
{
        if ((value ^ s->efer) & EFER_LMA)
                return err_plain(err, EINVAL, "EFER: LMA follows LME and paging");
        if ((value ^ s->efer) & EFER_LME && s->cr0 & CR0_PG)
                return err_plain(err, EINVAL, "EFER: LME stays while CR0 has paging on");
        s->efer = value;
        return 0;
}

/* ---- selectors ---- */

static unsigned level(const struct cpu_state *s)
{
        return s->cr0 & CR0_PE ? ATTR_DPL(s->seg[CPU_SS].attributes) : 0;
}

static int set_null(struct cpu_state *s, unsigned seg, uint16_t selector, struct err *err)
{
        unsigned cpl = level(s);
        if (seg == CPU_CS)
                return err_plain(err, EINVAL, "CS cannot be null");
        if (seg == CPU_SS && (!long_code(s) || cpl == 3 || RPL(selector) != cpl))
                return err_plain(err, EINVAL, "SS can be null only in 64-bit code of the kernel");
        s->seg[seg] = (struct cpu_segment){
                .selector = selector,
                .attributes = ATTR_UNUSABLE | (seg == CPU_SS ? cpl << 5 : 0),
        };
        return 0;
}

static int read_descriptor(const struct cpu_state *s, uint16_t selector,
                           const struct gdb_reader *reader, struct cpu_segment *ret,
                           struct err *err)
{
        bool local = selector & TABLE_LDT;
        uint64_t base = local ? s->ldtr.base : s->gdtr.base, descriptor;
        uint32_t limit = local ? s->ldtr.limit : s->gdtr.limit;
        uint32_t offset = selector & 0xfff8u;
        uint8_t bytes[sizeof(descriptor)];
        if ((local && s->ldtr.attributes & ATTR_UNUSABLE) || offset + 7 > limit)
                return err_plain(err, EINVAL, "selector 0x%x is not in the %s", selector,
                                 local ? "LDT" : "GDT");
        unsigned long long at = base + offset;
        int r = reader->read(reader->arg, at, bytes, sizeof(bytes));
        if (r < 0)
                return err_plain(err, -r, "descriptor of selector 0x%x at 0x%llx is not mapped",
                                 selector, at);
        memcpy(&descriptor, bytes, sizeof(descriptor));
        *ret = cpu_segment_from(descriptor, selector);
        return 0;
}

/* Why this one cannot be in that register; NULL if it can. */
static const char *segment_problem(const struct cpu_state *s, unsigned seg,
                                   const struct cpu_segment *new)
{
        uint32_t a = new->attributes;
        unsigned cpl = level(s), dpl = ATTR_DPL(a), rpl = RPL(new->selector);
        bool code = a & TYPE_CODE, conforming = code && a & TYPE_EXPAND;
        if (!(a & ATTR_S))
                return "is of the system";
        if (!(a & ATTR_P))
                return "is not present";
        if (seg == CPU_CS) {
                if (!code || rpl != cpl || (conforming ? dpl > cpl : dpl != cpl))
                        return "is not code of the vCPU's privilege level";
                return s->efer & EFER_LMA && a & ATTR_L && a & ATTR_DB
                               ? "is code of 64 and of 32 bits"
                               : NULL;
        }
        if (seg == CPU_SS)
                return code || !(a & TYPE_READABLE) || rpl != cpl || dpl != cpl
                               ? "is not a stack of the vCPU's privilege level"
                               : NULL;
        if (code && !(a & TYPE_READABLE))
                return "cannot be read";
        return !conforming && (dpl < cpl || dpl < rpl) ? "is of a higher privilege level" : NULL;
}

static int set_selector(struct cpu_state *s, unsigned seg, uint64_t value,
                        const struct gdb_reader *reader, struct err *err)
{
        struct cpu_segment new;
        uint16_t selector = (uint16_t)value;
        if (value >> 16)
                return err_plain(err, EINVAL, "selectors have 16 bits");
        if (!(s->cr0 & CR0_PE)) {
                s->seg[seg].selector = selector;
                s->seg[seg].base = (uint64_t)selector << 4;
                return 0;
        }
        if (!(selector & 0xfffc))
                return set_null(s, seg, selector, err);
        int r = read_descriptor(s, selector, reader, &new, err);
        if (r < 0)
                return r;
        const char *problem = segment_problem(s, seg, &new);
        if (problem)
                return err_plain(err, EINVAL, "selector 0x%x %s", selector, problem);
        new.attributes |= 1; /* accessed */
        s->seg[seg] = new;
        return 0;
}

int gdb_system_set(struct cpu_state *s, unsigned which, uint64_t value,
                   const struct gdb_reader *reader, struct err *err)
{
        static int (*const setters[])(struct cpu_state *, uint64_t, struct err *) = {
                [GDB_CR0] = set_cr0, [GDB_CR3] = set_cr3,   [GDB_CR4] = set_cr4,
                [GDB_CR8] = set_cr8, [GDB_EFER] = set_efer,
        };
        if (which < ELEMENTS(setters) && setters[which])
                return setters[which](s, value, err);
        return set_selector(s, which - GDB_SELECTOR, value, reader, err);
}
